//! `docs/running.md` is true: its files are written, its commands run, and what they print
//! compared with the page. With UPDATE_DOCS=1 the page is rewritten with what they print now.

mod support;

use support::{Place, repository};

/// Seconds differ from run to run.
fn without_times(text: &str) -> String {
    let word = |word: &str| {
        let number = word.trim_end_matches([';', ')', ',']).strip_suffix('s');
        let is_time = number.is_some_and(|number| {
            number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        });
        if is_time {
            "TIME".to_owned()
        } else {
            word.trim_end().to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_about_running_shows_what_happens() {
    let path = repository().join("docs/running.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let place = Place::with(&[]);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_provium"));
    let search = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut written = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        written += line;
        written.push('\n');
        if let Some(name) = line.strip_prefix("```lua ") {
            let mut source = String::new();
            for line in lines.by_ref().take_while(|line| *line != "```") {
                source += &format!("{line}\n");
            }
            place.write(name, &source);
            written += &format!("{source}```\n");
        } else if line == "```console" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            for command in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
                let output = place
                    .shell(&format!("{{ {command}\n}} 2>&1"))
                    .env("PATH", &search)
                    .output()
                    .unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                written += &format!("$ {command}\n{text}");
            }
            written += "```\n";
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &written).unwrap();
        return;
    }
    assert_eq!(
        without_times(&page),
        without_times(&written),
        "docs/running.md is out of date; UPDATE_DOCS=1 cargo test -p provium --test docs"
    );
}

#[test]
fn the_reference_names_every_function() {
    let path = repository().join("docs/reference.md");
    let printed = Place::with(&[]).run("reference").expect(0).stdout;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == printed,
        "docs/reference.md is not what `provium reference` prints; UPDATE_DOCS=1 rewrites it"
    );
}

#[test]
fn an_unknown_part_of_the_reference_is_told() {
    let ran = Place::with(&[]).run("reference nonsense").expect(2);
    assert!(
        ran.stderr
            .contains("nothing in the Lua API is called `nonsense`"),
        "{}",
        ran.stderr
    );
}
