//! The prompt on a terminal: editing, history, completion, statements over several lines.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::rc::Rc;

use provium_lua::Interactive;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::{evaluate, is_exit};
use crate::problem::Problem;

/// Lines that are remembered.
const HISTORY: usize = 5000;

/// Reads and runs until Ctrl-D or `exit()`. A line is remembered over sessions in `history`.
pub(super) fn read_and_run(lua: &Rc<Interactive>, history: &Path) -> Result<(), Problem> {
    let config = Config::builder()
        .auto_add_history(false)
        .max_history_size(HISTORY)
        .map_err(failed)?
        .build();
    let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Names {
        lua: Rc::clone(lua),
    }));
    // No history yet, or none that can be read: the prompt works without.
    let _ = editor.load_history(history);
    let result = converse(lua, &mut editor);
    if let Some(dir) = history.parent() {
        let saved = std::fs::create_dir_all(dir).map_err(ReadlineError::Io);
        if let Err(error) = saved.and_then(|()| editor.save_history(history)) {
            eprintln!(
                "repl: the history cannot be saved in {}: {error}",
                history.display()
            );
        }
    }
    result
}

fn converse(lua: &Interactive, editor: &mut Editor<Names, DefaultHistory>) -> Result<(), Problem> {
    let mut typed = String::new();
    loop {
        let line = editor.readline(if typed.is_empty() { "> " } else { ">> " });
        match line {
            Ok(line) if typed.is_empty() && is_exit(&line) => return Ok(()),
            Ok(line) => {
                typed.push_str(&line);
                typed.push('\n');
                if typed.trim().is_empty() {
                    typed.clear();
                } else if evaluate(lua, &typed)? {
                    editor.add_history_entry(typed.trim_end()).map_err(failed)?;
                    typed.clear();
                }
            }
            // Ctrl-C gives up what was begun.
            Err(ReadlineError::Interrupted) => typed.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn failed(error: ReadlineError) -> Problem {
    unreadable(io::Error::other(error))
}

/// The prompt cannot be read on.
pub(super) fn unreadable(source: io::Error) -> Problem {
    Problem::Io {
        action: "read the prompt",
        source,
    }
}

/// Completes names of the Lua state.
struct Names {
    lua: Rc<Interactive>,
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let (path, mark, begun) = split(&line[..position]);
        let mut names = self.lua.complete(path, mark);
        names.retain(|name| name.starts_with(begun));
        Ok((position - begun.len(), names))
    }
}

/// What is being typed at the end of a line: the path, the mark behind it, the name begun.
fn split(line: &str) -> (&str, &str, &str) {
    let in_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
    let start = line
        .char_indices()
        .rev()
        .take_while(|(_, c)| in_path(*c))
        .last()
        .map_or(line.len(), |(at, _)| at);
    let word = &line[start..];
    match word.rfind(['.', ':']) {
        Some(at) => (&word[..at], &word[at..=at], &word[at + 1..]),
        None => ("", "", word),
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Validator for Names {}

impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r004_what_is_being_typed_is_found() {
        assert_eq!(split("pro"), ("", "", "pro"));
        assert_eq!(split("x = vm:ru"), ("vm", ":", "ru"));
        assert_eq!(split("print(a.b."), ("a.b", ".", ""));
        assert_eq!(split(""), ("", "", ""));
        assert_eq!(split("f(\"ä\", str"), ("", "", "str"));
    }
}
