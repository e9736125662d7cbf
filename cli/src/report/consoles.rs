//! What the consoles of a failed test's VMs said last (cli-and-config R-053, lua-api L-220).

use std::collections::BTreeMap;

use provium_lua::{ConsoleTail, Failure};

use super::paint::Paint;
use super::text::indented;

/// Console lines shown per VM of a failed test.
const LINES: usize = 20;

/// The consoles of one file's VMs, as far as they have been shown.
#[derive(Default)]
pub(super) struct Consoles {
    /// What was shown last, by VM. A console that has said nothing since is not shown again.
    shown: BTreeMap<String, String>,
}

impl Consoles {
    /// Appends the ends of all consoles of a failure, each under a line naming its VM.
    pub(super) fn show(
        &mut self,
        out: &mut String,
        indent: usize,
        failure: &Failure,
        paint: &Paint,
    ) {
        // The error of a guest that died or did not boot quotes the console already.
        let quoted = failure.message.contains("--- console (last lines) ---");
        for tail in &failure.consoles {
            for note in &tail.notes {
                indented(out, indent, &paint.red(&format!("vm {}: {note}", tail.vm)));
            }
            if !quoted {
                self.tail(out, indent, tail, paint);
            }
        }
    }

    fn tail(&mut self, out: &mut String, indent: usize, tail: &ConsoleTail, paint: &Paint) {
        let lines: Vec<String> = tail.text.lines().map(printable).collect();
        let lines = &lines[lines.len().saturating_sub(LINES)..];
        if lines.is_empty() {
            return;
        }
        let (vm, count) = (&tail.vm, lines.len());
        if self.shown.insert(vm.clone(), tail.text.clone()).as_ref() == Some(&tail.text) {
            let line = format!("--- console of vm {vm}: nothing since it was shown above ---");
            return indented(out, indent, &line);
        }
        let line = format!("--- console of vm {vm} (last {count} lines) ---");
        indented(out, indent, &line);
        for line in lines {
            let panic = line.contains("Kernel panic");
            indented(
                out,
                indent,
                &if panic { paint.red(line) } else { line.clone() },
            );
        }
    }
}

/// Console bytes may hold terminal control sequences, which must not act on this terminal.
fn printable(line: &str) -> String {
    let shown = |c: char| match c.is_control() && c != '\t' {
        true => '\u{fffd}',
        false => c,
    };
    line.trim_end().chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        let tail = ConsoleTail {
            vm: "a".to_owned(),
            text: text.to_owned(),
            notes: Vec::new(),
        };
        Failure {
            consoles: vec![tail],
            ..Failure::default()
        }
    }

    #[test]
    fn a_console_is_shown_again_only_when_it_has_said_something_new() {
        let (mut consoles, paint) = (Consoles::default(), Paint { colours: false });
        let mut shown = |text: &str| {
            let mut out = String::new();
            consoles.show(&mut out, 2, &failure(text), &paint);
            out
        };
        assert_eq!(
            shown("one\x1b[6n\n"),
            "  --- console of vm a (last 1 lines) ---\n  one\u{fffd}[6n\n"
        );
        assert_eq!(
            shown("one\x1b[6n\n"),
            "  --- console of vm a: nothing since it was shown above ---\n"
        );
        assert!(shown("one\ntwo\n").ends_with("(last 2 lines) ---\n  one\n  two\n"));
        assert_eq!(shown(""), "");
    }
}
