//! The kernel's command line: what profile and options say, and what the harness adds (cli-and-config R-079..R-083,
//! lua-api L-067, L-241).

use crate::config::Profile;
use crate::error::Reason;

use super::options::BootOptions;

/// The agent in the guest, by way of the appended archive.
const AGENT: &str = "/sbin/provium-agent";

/// The final command line but for what the machine itself adds.
pub(super) fn command_line(profile: &Profile, options: &BootOptions) -> Result<String, Reason> {
    let base = match &options.kernel_cmdline {
        Some(given) => given.trim().to_owned(),
        None => profile.base_cmdline().map_err(|source| Reason::Host {
            action: "read",
            path: profile.cmdline_file.clone().unwrap_or_default(),
            source,
        })?,
    };
    let mut line = base;
    let has = |line: &str, token: &str| line.split_whitespace().any(|word| word == token);
    if !has(&line, "console=ttyS0") {
        push(&mut line, "console=ttyS0");
    }
    if profile.inject_agent {
        add_agent(profile, &mut line)?;
    }
    if let Some(append) = &options.kernel_cmdline_append {
        push(&mut line, append.trim());
    }
    Ok(line)
}

fn push(line: &mut String, text: &str) {
    if !line.is_empty() && !text.is_empty() {
        line.push(' ');
    }
    line.push_str(text);
}

/// The value of the last `key=` token.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .next_back()
}

fn add_agent(profile: &Profile, line: &mut String) -> Result<(), Reason> {
    match value(line, "rdinit") {
        Some(AGENT) => {}
        Some(other) => {
            return Err(Reason::Refused(format!(
                "the command line has rdinit={other}, the agent needs rdinit={AGENT}; \
                 remove it, or set inject_agent = false in profile {}",
                profile.name
            )));
        }
        None => push(line, &format!("rdinit={AGENT}")),
    }
    if value(line, "provium.init").is_none() {
        let init = profile
            .init
            .as_deref()
            .or_else(|| value(line, "init"))
            .map(str::to_owned);
        // Without one, the agent takes the first that exists; classic profiles look elsewhere first.
        let init = init.or_else(|| profile.classic.then(|| "/sbin/init,/init".to_owned()));
        if let Some(init) = init {
            push(line, &format!("provium.init={init}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Places};
    use std::path::{Path, PathBuf};

    fn profile(text: &str) -> Profile {
        let places = Places {
            home: None,
            cache: PathBuf::from("/c"),
            build_dir: None,
        };
        let text = format!("[profiles.p]\nkernel='k'\n{text}");
        let config = Config::parse(Path::new("/x/provium.toml"), &text, &places).unwrap();
        config.profile("p").unwrap().clone()
    }

    fn line(text: &str, options: BootOptions) -> Result<String, Reason> {
        command_line(&profile(text), &options)
    }

    #[test]
    fn r081_harness_tokens_follow_unless_they_are_there() {
        assert_eq!(
            line("append='quiet'\ninit='/init'", BootOptions::default()).unwrap(),
            "panic=-1 quiet console=ttyS0 rdinit=/sbin/provium-agent provium.init=/init"
        );
        assert_eq!(
            line(
                "cmdline='console=ttyS0 rdinit=/sbin/provium-agent init=/a'",
                BootOptions::default()
            )
            .unwrap(),
            "console=ttyS0 rdinit=/sbin/provium-agent init=/a provium.init=/a"
        );
        assert_eq!(
            line("inject_agent=false\ninitrd='i'", BootOptions::default()).unwrap(),
            "panic=-1 console=ttyS0"
        );
    }

    #[test]
    fn r081_another_rdinit_is_an_error_that_names_both() {
        let text = line("cmdline='rdinit=/bin/sh'", BootOptions::default())
            .unwrap_err()
            .to_string();
        for part in [
            "rdinit=/bin/sh",
            "rdinit=/sbin/provium-agent",
            "inject_agent",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn l067_l241_options_replace_and_append() {
        let options = BootOptions {
            kernel_cmdline: Some("debug".into()),
            kernel_cmdline_append: Some("last=1".into()),
            ..BootOptions::default()
        };
        assert_eq!(
            line("append='quiet'", options).unwrap(),
            "debug console=ttyS0 rdinit=/sbin/provium-agent last=1"
        );
    }
}
