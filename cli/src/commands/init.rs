//! `provium init`: a commented provium.toml and a first test.

use std::io;
use std::path::{Path, PathBuf};

use crate::args::InitArgs;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::say::say;

/// What is written, and where.
const FILES: &[(&str, &str)] = &[
    ("provium.toml", include_str!("init/provium.toml")),
    ("tests/first.test.lua", include_str!("init/first.test.lua")),
];

/// Writes the files; what is there already is left alone.
pub(crate) fn init(args: &InitArgs) -> Result<Exit, Problem> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    for (name, text) in FILES {
        let path = dir.join(name);
        let shown = path.strip_prefix(".").unwrap_or(&path).display();
        match write_new(&path, text) {
            Ok(()) => say!("wrote {shown}"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                say!("kept  {shown} (it is there already)");
            }
            Err(source) => return Err(Problem::file("write", path)(source)),
        }
    }
    let there = if dir == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", dir.display())
    };
    say!("\nNow run it:            {there}provium run -v");
    say!("What this machine has: {there}provium doctor");
    say!("Help in your editor:   {there}provium lsp-setup");
    Ok(Exit::Success)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = std::fs::File::create_new(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use provium_lab::config::{Config, Places};

    #[test]
    fn the_configuration_is_valid_also_with_its_examples_switched_on() {
        let text = super::FILES[0].1;
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let places = Places {
            home: Some("/home/u".into()),
            ..Places::from_env()
        };
        for text in [text, &uncommented] {
            let path = std::path::Path::new("/x/provium.toml");
            let config = Config::parse(path, text, &places).unwrap();
            assert!(config.warnings.is_empty(), "{:?}", config.warnings);
            assert_eq!(config.roots, [std::path::Path::new("/x/tests")]);
        }
        let path = std::path::Path::new("/x/provium.toml");
        let config = Config::parse(path, &uncommented, &places).unwrap();
        assert!(config.profiles.contains_key("mine"), "{uncommented}");
    }
}
