//! `provium reference`: the manual of the Lua API, made from the table that the bindings are made from.

use std::fmt::Write as _;
use std::io::Write as _;

use provium_lua::Entry;

use crate::api;
use crate::args::ReferenceArgs;
use crate::exit::Exit;
use crate::problem::Problem;

/// What the manual says of each class, in the order of its chapters: class, how its values are written in calls, and
/// what they are.
const CHAPTERS: &[(&str, &str, &str)] = &[
    (
        "",
        "",
        "What every file has, next to Lua 5.4 with its whole library.",
    ),
    (
        "Lab",
        "lab:",
        "A set of VMs with names. `provium` is one: in a file that of the file, in a test that of the test, \
         gone with it. `lab.NAME` is the VM or sub-lab of that name. Settings: `provium.timeout = \"30s\"` is the \
         deadline of each test that starts from now on; `provium.reset_between_tests = true`, set at file level, \
         takes everything back to the end of the file's own code before each test.",
    ),
    (
        "VM",
        "vm:",
        "A virtual machine. It is `created`, `booted`, `paused`, `shutdown` (and may be booted again), or `dead` \
         after a panic or a triple fault. Guest operations need it `booted`.\n\n\
         Boot options, given when it is declared or to `boot`, which wins: `memory` (a size), `cpus`, \
         `kernel_cmdline` (instead of the profile's), `kernel_cmdline_append`, `rng_seed` (an integer: one seed, one \
         stream of random bytes), `initial_time` (seconds since 1970), `files` (`{[guest path] = host path}`, or a \
         list of `{path=, content=, mode=}`; there before init runs), `boot_timeout`.",
    ),
    (
        "RunResult",
        "result:",
        "What a command gave: `exit_code`, `stdout`, `stderr`, `status`, `signal`, `command`.",
    ),
    ("Process", "proc:", "A command that runs beside the test."),
    ("File", "file:", "A file that is open in the guest."),
    (
        "Tail",
        "stream:",
        "Bytes as they come: of a file that grows, a descriptor, a process.",
    ),
    ("Console", "console:", "The serial console."),
    (
        "ConsoleStream",
        "stream:",
        "What the console says from now on.",
    ),
    ("Clock", "clock:", "The guest's time."),
    (
        "SyscallHandle",
        "handle:",
        "A system call that runs beside the test.",
    ),
    (
        "Worker",
        "worker:",
        "A further agent process with credentials, directory and descriptors of its own.",
    ),
    ("Snapshot", "snapshot:", "A VM at one instant."),
    ("LabSnapshot", "snapshot:", "A lab at one instant."),
    ("t", "t:", "The running test, which its body receives."),
    (
        "co",
        "co.",
        "Tasks: functions that go on while others wait.",
    ),
    (
        "Task",
        "task:",
        "A function that goes on while others wait.",
    ),
    ("json", "json.", "JSON, both ways."),
];

/// Prints the manual, or the part of it that was asked for.
pub(crate) fn reference(args: &ReferenceArgs) -> Result<Exit, Problem> {
    let entries = api::entries()?;
    let text = match &args.name {
        None => manual(&entries),
        Some(name) => match about(&entries, name) {
            text if text.is_empty() => {
                return Err(Problem::Usage(format!(
                    "nothing in the Lua API is called `{name}`; `provium reference` prints all of it"
                )));
            }
            text => text,
        },
    };
    // Nobody is there to hear that a pager was left.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(Exit::Success)
}

fn manual(entries: &[Entry]) -> String {
    let mut out = String::from(
        "# The Lua API\n\nWritten by `provium reference`; do not edit. `name?` may be left out; a \
         timeout is seconds, or a string such as `\"500ms\"` or `\"2m\"`; a size is bytes, or a string such as \
         `\"64M\"`.\n",
    );
    for (class, receiver, about) in CHAPTERS {
        let own: Vec<&Entry> = of_class(entries, class).collect();
        let title = if class.is_empty() { "Globals" } else { class };
        let _ = write!(out, "\n## {title}\n\n{about}\n");
        let (shared, own): (Vec<_>, Vec<_>) = own
            .into_iter()
            .partition(|entry| *class == "Worker" && is_of_vm(entries, entry));
        if !shared.is_empty() {
            let names: Vec<String> = shared
                .iter()
                .map(|entry| format!("`{}`", entry.name))
                .collect();
            let _ = write!(out, "\nAs on a VM: {}.\n", names.join(", "));
        }
        for entry in own {
            describe(&mut out, receiver, entry);
        }
    }
    out
}

/// The entries that a name means: `vm:run`, `VM` or `run`.
fn about(entries: &[Entry], name: &str) -> String {
    let mut out = String::new();
    for (class, receiver, _) in CHAPTERS {
        for entry in of_class(entries, class) {
            let call = format!("{receiver}{}", entry.name);
            if name == call || name == entry.name || (name == *class && !class.is_empty()) {
                describe(&mut out, receiver, entry);
            }
        }
    }
    out.trim_start().to_owned()
}

fn of_class<'a>(entries: &'a [Entry], class: &str) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(move |entry| entry.class == class)
}

fn is_of_vm(entries: &[Entry], entry: &Entry) -> bool {
    of_class(entries, "VM").any(|of_vm| of_vm.name == entry.name && of_vm.doc == entry.doc)
}

fn describe(out: &mut String, receiver: &str, entry: &Entry) {
    let name = &entry.name;
    let _ = match entry.signature.strip_prefix("= ") {
        Some(target) => write!(
            out,
            "\n### `{receiver}{name}`\n\nThe same as `{receiver}{target}`.\n"
        ),
        None => write!(
            out,
            "\n### `{receiver}{name}{}`\n\n{}\n",
            entry.signature, entry.doc
        ),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_its_place_in_the_manual() {
        let entries = api::entries().unwrap();
        let text = manual(&entries);
        for entry in &entries {
            assert!(
                CHAPTERS.iter().any(|(class, _, _)| *class == entry.class),
                "no chapter for {}",
                entry.class
            );
            assert!(
                !entry.doc.is_empty(),
                "{}.{} says nothing",
                entry.class,
                entry.name
            );
            // Under its own heading, or in the list of what a worker has as a VM has it.
            let receivers = CHAPTERS.iter().filter(|(class, ..)| *class == entry.class);
            let mut calls =
                receivers.map(|(_, receiver, _)| format!("\n### `{receiver}{}", entry.name));
            let listed = entry.class == "Worker" && text.contains(&format!("`{}`", entry.name));
            assert!(
                listed || calls.any(|call| text.contains(&call)),
                "{}",
                entry.name
            );
        }
        for (class, _, _) in CHAPTERS {
            assert!(
                of_class(&entries, class).next().is_some(),
                "{class} has nothing"
            );
        }
    }

    #[test]
    fn a_part_is_found_by_each_of_its_names() {
        let entries = api::entries().unwrap();
        assert!(about(&entries, "vm:run").starts_with("### `vm:run("));
        assert!(about(&entries, "run").contains("### `worker:run("));
        assert!(about(&entries, "Clock").contains("### `clock:advance"));
        assert!(about(&entries, "wait_until").starts_with("### `wait_until("));
        assert_eq!(about(&entries, "nonsense"), "");
    }
}
