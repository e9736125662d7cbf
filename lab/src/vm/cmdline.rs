//! The kernel's command line: what profile and options say; the machine adds the rest (cli-and-config R-079..R-083,
//! lua-api L-067, L-241).

use provium_vmm::Backend;
use provium_vmm::boot::cmdline::{CmdlineError, Injection, Parts, assemble};

use super::options::BootOptions;
use crate::config::Profile;
use crate::error::Reason;
use crate::overlay::AGENT_PATH;

/// The final command line.
pub(super) fn command_line(
    profile: &Profile,
    options: &BootOptions,
    backend: Backend,
    default_init: Option<&str>,
) -> Result<String, Reason> {
    let base = match &options.kernel_cmdline {
        Some(given) => given.trim().to_owned(),
        None => profile.base_cmdline().map_err(|source| Reason::Host {
            action: "read",
            path: profile.cmdline_file.clone().unwrap_or_default(),
            source,
        })?,
    };
    let injection = profile.inject_agent.then_some(Injection {
        agent: AGENT_PATH,
        init: profile.init.as_deref(),
        default_init,
    });
    let last = options.kernel_cmdline_append.as_deref().unwrap_or_default();
    let parts = Parts {
        base: &base,
        injection,
        backend,
        last,
    };
    assemble(&parts).map_err(|error| refusal(&error, &profile.name))
}

fn refusal(error: &CmdlineError, profile: &str) -> Reason {
    Reason::Refused(format!("profile {profile}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Places};
    use std::path::{Path, PathBuf};

    fn line(text: &str, options: BootOptions) -> Result<String, Reason> {
        let places = Places {
            home: None,
            cache: PathBuf::from("/c"),
            build_dir: None,
        };
        let text = format!("[profiles.p]\nkernel='k'\n{text}");
        let config = Config::parse(Path::new("/x/provium.toml"), &text, &places).unwrap();
        command_line(config.profile("p").unwrap(), &options, Backend::Soft, None)
    }

    fn starts(text: &str, options: BootOptions, wanted: &str) {
        let line = line(text, options).unwrap();
        assert!(line.starts_with(wanted), "{line}");
    }

    #[test]
    fn r081_profile_then_console_then_agent() {
        starts(
            "append='quiet'\ninit='/init'",
            BootOptions::default(),
            "panic=-1 quiet console=ttyS0 rdinit=/sbin/provium-agent provium.init=/init",
        );
        let without = line("inject_agent=false\ninitrd='i'", BootOptions::default()).unwrap();
        assert!(!without.contains("provium"), "{without}");
    }

    #[test]
    fn r081_another_rdinit_is_an_error_that_names_both() {
        let text = line("cmdline='rdinit=/bin/sh'", BootOptions::default())
            .unwrap_err()
            .to_string();
        for part in [
            "profile p",
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
        let line = line("append='quiet'", options).unwrap();
        assert!(
            line.starts_with("debug console=ttyS0 ") && line.ends_with(" last=1"),
            "{line}"
        );
    }
}
