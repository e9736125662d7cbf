//! The kernel command line: what the user asked for, and what the machine adds (cli-and-config
//! R-081, lua-api L-067, L-241).
//!
//! Order: the user's base; `console=ttyS0`; `rdinit=` and `provium.init=` when an agent is injected;
//! the machine's own tokens; the user's last words. A token of ours is left out where the user has
//! set the same parameter, so the user always wins.

use crate::config::Backend;

/// A parameter that the machine adds for a reason.
#[derive(Clone, Copy, Debug)]
struct Token {
    /// What is added.
    text: &'static str,
    /// Only for this backend; for both if `None`.
    backend: Option<Backend>,
}

impl Token {
    /// The parameter that it sets; if the user sets it too, ours is left out.
    fn parameter(&self) -> &'static str {
        parameter(self.text)
    }
}

const fn both(text: &'static str) -> Token {
    Token {
        text,
        backend: None,
    }
}

/// What makes boots fast without making them silent.
///
/// What is *not* here, and why: `quiet` (the console log of a failed boot must tell what happened);
/// `mitigations=off` (the CPU model needs no mitigation, see [`crate::cpuid`]); `nokaslr` (only the
/// decompressor would obey, which does not run); `lpj=` and `no_timer_check` (the kernel knows
/// the TSC's rate from the hypervisor leaves and checks no timer under KVM); `pci=off` (it looks no
/// less for PCI, and finds none either way); `panic=` (the base decides, cli-and-config R-079).
const TOKENS: &[Token] = &[
    // The crypto layer's self-tests take two thirds of all instructions of a boot.
    both("cryptomgr.notests"),
    // Two serial ports exist: do not probe for the others.
    both("8250.nr_uarts=2"),
    // Messages from before the serial driver come out as they are written, not only if the boot gets
    // that far: a kernel that dies early says why.
    both("earlycon=uart8250,io,0x3f8"),
    // On hardware-reduced ACPI Linux takes EFI's reset for granted, which is not there, and ends in a
    // triple fault instead of using the reset register: L-062 wants a reset.
    both("reboot=a"),
    // The seed is given by the loader; its bits count, whatever the distribution thinks.
    both("random.trust_bootloader=on"),
    // The software CPU's TSC is exact: no watchdog over it, no comparing of processors when they
    // start. A real host's may not be.
    Token {
        text: "tsc=reliable",
        backend: Some(Backend::Soft),
    },
];

/// Below this much RAM a stock distribution kernel runs out of memory before it frees what only its
/// boot needs.
const SMALL_MACHINE: u64 = 96 << 20;

/// What a small machine needs to boot a stock kernel at all. On Debian's 6.1 the files of tracefs,
/// ten thousand of them, take 9 MiB, and a chunk of per-CPU memory in large pages 4 MiB.
const SMALL_MACHINE_TOKENS: [&str; 2] = [
    "initcall_blacklist=tracer_init_tracefs",
    "percpu_alloc=page",
];

/// The line with what a machine of `memory` bytes needs besides, before the arguments for init.
pub(crate) fn fit_memory(line: &str, memory: u64) -> String {
    let (mut tokens, arguments) = split_init_arguments(line);
    if memory < SMALL_MACHINE {
        let missing = |token: &&str| {
            !tokens
                .iter()
                .any(|given| same_parameter(parameter(token), given))
        };
        let added: Vec<&str> = SMALL_MACHINE_TOKENS.into_iter().filter(missing).collect();
        tokens.extend(added);
    }
    join(tokens, &arguments)
}

/// Injection of the agent as the guest's first program.
#[derive(Clone, Copy, Debug)]
pub struct Injection<'a> {
    /// Path of the agent in the guest.
    pub agent: &'a str,
    /// The profile's `init`, if set.
    pub init: Option<&'a str>,
    /// What becomes PID 1 if neither the profile nor the command line says.
    pub default_init: Option<&'a str>,
}

/// What a command line is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The user's part: `kernel_cmdline` if given, else the profile's base and `append`.
    pub base: &'a str,
    /// How the agent gets in; `None` if it does not.
    pub injection: Option<Injection<'a>>,
    /// Who runs the guest.
    pub backend: Backend,
    /// `kernel_cmdline_append`: placed last.
    pub last: &'a str,
}

/// Why no command line can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// The user wants another first program than the agent.
    #[error(
        "the command line says rdinit={theirs}, but the agent needs rdinit={agent}; \
         remove it, or set inject_agent = false"
    )]
    OtherRdinit {
        /// What the user set.
        theirs: String,
        /// What the agent needs.
        agent: String,
    },
    /// A character that the kernel would take for something else.
    #[error("the command line contains the control character {0:?}")]
    ControlCharacter(char),
}

/// Makes the command line.
pub fn assemble(parts: &Parts<'_>) -> Result<String, CmdlineError> {
    let user = format!("{} {}", parts.base, parts.last);
    if let Some(bad) = user.chars().find(|c| c.is_control() && !c.is_whitespace()) {
        return Err(CmdlineError::ControlCharacter(bad));
    }
    // What follows "--" goes to init, so our tokens must come before.
    let (base, base_args) = split_init_arguments(parts.base);
    let (last, last_args) = split_init_arguments(parts.last);
    let given: Vec<&str> = base.iter().chain(&last).copied().collect();

    let added_for_agent = match &parts.injection {
        Some(injection) => injection_tokens(injection, &given)?,
        None => Vec::new(),
    };
    let mut line = base;
    if !given.iter().any(|token| is_serial_console(token)) {
        line.push("console=ttyS0");
    }
    line.extend(added_for_agent.iter().map(String::as_str));
    for token in machine_tokens(parts.backend, &given) {
        line.push(token);
    }
    line.extend(last);
    let arguments: Vec<&str> = base_args.into_iter().chain(last_args).collect();
    Ok(join(line, &arguments))
}

/// Tokens for the kernel and, after `--`, those for init.
fn join<'a>(mut tokens: Vec<&'a str>, arguments: &[&'a str]) -> String {
    if !arguments.is_empty() {
        tokens.push("--");
        tokens.extend(arguments);
    }
    tokens.join(" ")
}

fn injection_tokens(
    injection: &Injection<'_>,
    given: &[&str],
) -> Result<Vec<String>, CmdlineError> {
    let mut tokens = Vec::new();
    match value_of("rdinit", given) {
        None => tokens.push(format!("rdinit={}", injection.agent)),
        Some(theirs) if theirs == injection.agent => {}
        Some(theirs) => {
            let (theirs, agent) = (theirs.to_owned(), injection.agent.to_owned());
            return Err(CmdlineError::OtherRdinit { theirs, agent });
        }
    }
    if value_of("provium.init", given).is_none() {
        let init = injection
            .init
            .or(value_of("init", given))
            .or(injection.default_init);
        tokens.extend(init.map(|init| format!("provium.init={init}")));
    }
    Ok(tokens)
}

fn machine_tokens(backend: Backend, given: &[&str]) -> impl Iterator<Item = &'static str> {
    let set = |token: &&Token| {
        given
            .iter()
            .any(|other| same_parameter(token.parameter(), other))
    };
    TOKENS
        .iter()
        .filter(move |token| token.backend.is_none_or(|only| only == backend))
        .filter(move |token| !set(token))
        .map(|token| token.text)
}

/// The name part of a token.
fn parameter(token: &str) -> &str {
    token.split_once('=').map_or(token, |(name, _)| name)
}

/// Whether a token sets a parameter; the kernel does not tell `-` from `_`.
fn same_parameter(name: &str, token: &str) -> bool {
    let canonical = |byte: u8| if byte == b'-' { b'_' } else { byte };
    name.bytes()
        .map(canonical)
        .eq(parameter(token).bytes().map(canonical))
}

/// The value that the tokens give a parameter; the last one counts, as in the kernel.
fn value_of<'a>(name: &str, tokens: &[&'a str]) -> Option<&'a str> {
    let set = |token: &&&str| same_parameter(name, token);
    let (_, value) = tokens.iter().rfind(set)?.split_once('=')?;
    Some(value.trim_matches('"'))
}

fn is_serial_console(token: &str) -> bool {
    let console = token.strip_prefix("console=ttyS0");
    console.is_some_and(|options| options.is_empty() || options.starts_with(','))
}

/// Tokens for the kernel, and those after `--`, which it hands to init.
fn split_init_arguments(text: &str) -> (Vec<&str>, Vec<&str>) {
    let mut tokens = tokens(text);
    let end = tokens
        .iter()
        .position(|token| *token == "--")
        .unwrap_or(tokens.len());
    let arguments = tokens.split_off(end).into_iter().skip(1).collect();
    (tokens, arguments)
}

/// Splits at blanks outside double quotes, as the kernel does.
fn tokens(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    })
    .filter(|token| !token.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Injection<'static> = Injection {
        agent: "/sbin/provium-agent",
        init: None,
        default_init: Some("/init"),
    };

    fn line(base: &str) -> String {
        let parts = Parts {
            base,
            injection: Some(AGENT),
            backend: Backend::Soft,
            last: "",
        };
        assemble(&parts).unwrap()
    }

    fn bare(base: &str, last: &str) -> String {
        assemble(&Parts {
            base,
            injection: None,
            backend: Backend::Soft,
            last,
        })
        .unwrap()
    }

    #[test]
    fn r081_order_is_base_console_agent_machine() {
        let line = line("panic=-1 foo");
        let head = "panic=-1 foo console=ttyS0 rdinit=/sbin/provium-agent provium.init=/init ";
        let machine = line.strip_prefix(head).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(
            machine,
            TOKENS
                .iter()
                .map(|token| token.text)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }

    #[test]
    fn r081_console_is_added_unless_there() {
        let count = |base: &str| bare(base, "").matches("console=ttyS0").count();
        assert_eq!(
            [
                count(""),
                count("console=ttyS0"),
                count("console=ttyS0,115200n8")
            ],
            [1, 1, 1]
        );
        assert!(bare("console=tty0", "").contains("console=tty0 console=ttyS0"));
        assert!(bare("console=ttyS01", "").contains("console=ttyS0 "));
    }

    #[test]
    fn r081_the_same_rdinit_is_fine_another_is_refused_naming_both() {
        assert_eq!(
            line("rdinit=/sbin/provium-agent").matches("rdinit").count(),
            1
        );
        let parts = Parts {
            base: "rdinit=/bin/sh",
            injection: Some(AGENT),
            backend: Backend::Kvm,
            last: "",
        };
        let error = assemble(&parts).unwrap_err().to_string();
        for fact in ["/bin/sh", "/sbin/provium-agent", "inject_agent"] {
            assert!(error.contains(fact), "{error}");
        }
        assert!(bare("rdinit=/bin/sh", "").starts_with("rdinit=/bin/sh "));
    }

    #[test]
    fn r081_init_comes_from_the_profile_then_the_user_then_the_default() {
        let with = |base: &str, init| {
            let injection = Some(Injection { init, ..AGENT });
            assemble(&Parts {
                base,
                injection,
                backend: Backend::Soft,
                last: "",
            })
            .unwrap()
        };
        assert!(with("", None).contains("provium.init=/init"));
        assert!(
            with("init=/lib/systemd/systemd", None).contains("provium.init=/lib/systemd/systemd")
        );
        assert!(with("init=/a", Some("/b")).contains("provium.init=/b"));
        assert!(!with("provium.init=/c", Some("/b")).contains("provium.init=/b"));
    }

    #[test]
    fn the_users_setting_of_a_parameter_wins() {
        let line = bare("tsc=unstable random.trust-bootloader=off", "");
        assert!(
            !line.contains("tsc=reliable") && !line.contains("trust_bootloader=on"),
            "{line}"
        );
        assert!(line.contains("8250.nr_uarts=2"));
        assert!(!bare("", "8250.nr_uarts=4").contains("8250.nr_uarts=2"));
    }

    #[test]
    fn only_the_software_cpu_promises_an_exact_tsc() {
        let with = |backend| {
            let (base, last) = ("", "");
            assemble(&Parts {
                base,
                injection: None,
                backend,
                last,
            })
            .unwrap()
        };
        assert!(with(Backend::Soft).contains("tsc=reliable"));
        assert!(!with(Backend::Kvm).contains("tsc=reliable"));
    }

    #[test]
    fn small_machines_get_what_they_need_unless_the_user_says_otherwise() {
        assert_eq!(fit_memory("a  b -- c", 96 << 20), "a b -- c");
        assert_eq!(
            fit_memory("a -- c", 64 << 20),
            "a initcall_blacklist=tracer_init_tracefs percpu_alloc=page -- c"
        );
        let line = fit_memory("initcall_blacklist= percpu_alloc=embed", 64 << 20);
        assert_eq!(line, "initcall_blacklist= percpu_alloc=embed");
    }

    #[test]
    fn l241_append_comes_last() {
        assert!(bare("a", "z=\"1 2\"").ends_with(" z=\"1 2\""));
    }

    #[test]
    fn arguments_for_init_stay_behind_the_dashes() {
        let line = bare("a -- single", "b -- verbose");
        assert!(line.ends_with(" b -- single verbose"), "{line}");
        assert!(line.starts_with("a console=ttyS0 "), "{line}");
    }

    #[test]
    fn blanks_are_collapsed_but_not_within_quotes() {
        assert!(bare("  a \n b=\"x  y\"\t", "").starts_with("a b=\"x  y\" console="));
    }

    #[test]
    fn control_characters_are_refused() {
        let parts = Parts {
            base: "a\0b",
            injection: None,
            backend: Backend::Soft,
            last: "",
        };
        assert_eq!(assemble(&parts), Err(CmdlineError::ControlCharacter('\0')));
    }
}
