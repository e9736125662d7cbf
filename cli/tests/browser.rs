//! The page of `--report` in a browser: its script runs without errors, draws, searches, and shows
//! the consoles of failures.
//!
//! Skipped, with a line that says so, where there is no Chromium; with `chromium` in
//! `PROVIUM_REQUIRE` that is a failure.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Ran;
use support::kitchen::Kitchen;

/// Names under which distributions have it.
const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-headless-shell",
    "chromium-browser",
    "google-chrome",
];

fn browser() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let found = PROGRAMS.into_iter().find(|name| is_there(name));
    let required = std::env::var("PROVIUM_REQUIRE").is_ok_and(|list| list.contains("chromium"));
    assert!(found.is_some() || !required, "there is no Chromium on PATH");
    if found.is_none() {
        eprintln!("skipped: there is no Chromium on PATH (Debian package chromium)");
    }
    found
}

/// Before the page's own script: keeps what goes wrong in it.
const WATCH: &str = "<script>const errors = [];
addEventListener('error', event => errors.push(event.message));
addEventListener('unhandledrejection', event => errors.push(String(event.reason)));</script>";

/// After the page's own script: does what a reader does, and writes down what is to be seen.
const READ: &str = r##"<script>
const seen = node => node.getClientRects().length > 0;
const shown = () => [...document.querySelectorAll("details.file")].filter(seen)
  .map(node => node.querySelector("summary").textContent.split(" ")[1]);
const type = text => { search.value = text; search.dispatchEvent(new Event("input")) };
const probe = { summary: document.getElementById("summary").textContent, all: shown() };
for (const text of ["greet", "KERNEL panic", "no such thing", ""]) { type(text); probe["search " + text] = shown() }
failures.click(); probe.failures = shown(); failures.click();
probe.bars = [...document.querySelectorAll("#chart rect")].map(bar => {
  const { width, height } = bar.getBoundingClientRect();
  return { title: bar.textContent, drawn: width > 0 && height > 0 };
});
probe.panics = [...document.querySelectorAll("pre span.panic")].filter(seen).map(node => node.textContent);
probe.errors = errors;
const out = document.createElement("pre");
out.id = "probe";
out.textContent = JSON.stringify(probe);
document.body.append(out);
</script>"##;

/// The page as the browser has it after its scripts have run.
fn open(program: &str, kitchen: &Kitchen, page: &str) -> String {
    let path = kitchen.0.path().join("probe.html");
    std::fs::write(&path, page).unwrap();
    let out = kitchen.0.path().join("dom");
    let profile = kitchen.0.path().join("profile");
    let mut child = Command::new(program)
        // As root it refuses to run in its sandbox; the page is our own.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", path.display()))
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{program} did not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::read_to_string(out).unwrap()
}

#[test]
fn the_page_of_a_run_works_in_a_browser() {
    let Some(program) = browser() else { return };
    let panics = "local vm = provium:vm('doomed', 'minimal'):boot()\n\
                  test('survives', function() vm:run('echo c > /proc/sysrq-trigger') end)";
    let kitchen = Kitchen::with(&[
        (
            "a.test.lua",
            "test('one', function() end) test('two', {skip='later'}, print)",
        ),
        (
            "b.test.lua",
            "test('greets', function(t) t:log('</script><b>') t:assert_eq('x', 'y') end)",
        ),
        ("c.test.lua", panics),
    ]);
    Ran::from(kitchen.command("run --report page.html").output().unwrap()).expect(1);
    let page = std::fs::read_to_string(kitchen.0.path().join("page.html")).unwrap();
    let page = page.replacen(
        "<meta charset=\"utf-8\">",
        &format!("<meta charset=\"utf-8\">{WATCH}"),
        1,
    );
    let page = page.replacen("</html>", &format!("{READ}</html>"), 1);
    assert!(page.contains(WATCH) && page.contains(READ));

    let dom = open(program, &kitchen, &page);
    let (_, probe) = dom
        .split_once("<pre id=\"probe\">")
        .unwrap_or_else(|| panic!("{dom}"));
    let (probe, _) = probe.split_once("</pre>").unwrap();
    let probe = probe
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let probe: serde_json::Value = serde_json::from_str(&probe).unwrap();

    let none: [&str; 0] = [];
    assert_eq!(probe["errors"], serde_json::json!(none), "{probe:#}");
    let all = serde_json::json!(["a.test.lua", "b.test.lua", "c.test.lua"]);
    assert_eq!(
        (&probe["all"], &probe["search "]),
        (&all, &all),
        "{probe:#}"
    );
    assert_eq!(probe["search greet"], serde_json::json!(["b.test.lua"]));
    assert_eq!(
        probe["search KERNEL panic"],
        serde_json::json!(["c.test.lua"])
    );
    assert_eq!(probe["search no such thing"], serde_json::json!(none));
    assert_eq!(
        probe["failures"],
        serde_json::json!(["b.test.lua", "c.test.lua"])
    );
    let summary = probe["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("3 files; 1 passed, 2 failed, 1 skipped; "),
        "{summary}"
    );

    let bars = probe["bars"].as_array().unwrap();
    assert!(bars.iter().all(|bar| bar["drawn"] == true), "{probe:#}");
    for title in [
        "a.test.lua: passed",
        "b.test.lua: failed",
        "one: passed",
        "two: skipped",
        "greets: failed",
        "survives: failed",
        "vm doomed of c.test.lua",
    ] {
        let count = bars
            .iter()
            .filter(|bar| bar["title"].as_str().unwrap().starts_with(title))
            .count();
        assert_eq!(count, 1, "{title} in {probe:#}");
    }
    let panics = probe["panics"].as_array().unwrap();
    assert!(
        panics.iter().any(|line| line
            .as_str()
            .unwrap()
            .contains("Kernel panic - not syncing")),
        "{probe:#}"
    );
}
