//! The terminal as reporters share it: lines that stay, and one status line below them.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, while stdout carries data.
    Stderr,
}

/// Lines on one stream, a status line on stderr when that is a terminal.
#[derive(Clone)]
pub(crate) struct Screen {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    lines: Stream,
    colours: bool,
    live: bool,
    status: String,
}

impl Screen {
    /// A screen whose lines go to `lines`. Colours and the status line need a terminal; the
    /// former also that NO_COLOR is unset, the latter that CI is.
    #[must_use]
    pub(crate) fn new(lines: Stream) -> Self {
        let terminal = match lines {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        };
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let shared = Shared {
            lines,
            colours: terminal && unset("NO_COLOR"),
            live: io::stderr().is_terminal() && unset("CI"),
            status: String::new(),
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
        }
    }

    /// True when lines may carry colours.
    #[must_use]
    pub(crate) fn colours(&self) -> bool {
        self.shared.borrow().colours
    }

    /// True when a status line is shown.
    #[must_use]
    pub(crate) fn is_live(&self) -> bool {
        self.shared.borrow().live
    }

    /// Writes text that ends with a newline.
    pub(crate) fn write(&self, text: &[u8]) -> io::Result<()> {
        let shared = self.shared.borrow();
        shared.clear()?;
        match shared.lines {
            Stream::Stdout => flushed(io::stdout().lock(), text)?,
            Stream::Stderr => flushed(io::stderr().lock(), text)?,
        }
        shared.draw()
    }

    /// Writes a line to stderr.
    pub(crate) fn note(&self, text: &str) -> io::Result<()> {
        let shared = self.shared.borrow();
        shared.clear()?;
        flushed(io::stderr().lock(), format!("{text}\n").as_bytes())?;
        shared.draw()
    }

    /// Replaces the status line; an empty one removes it.
    pub(crate) fn status(&self, text: String) -> io::Result<()> {
        let mut shared = self.shared.borrow_mut();
        if !shared.live || shared.status == text {
            return Ok(());
        }
        shared.clear()?;
        shared.status = text;
        shared.draw()
    }
}

impl Shared {
    fn clear(&self) -> io::Result<()> {
        if self.live && !self.status.is_empty() {
            flushed(io::stderr().lock(), b"\r\x1b[2K")?;
        }
        Ok(())
    }

    fn draw(&self) -> io::Result<()> {
        if self.live && !self.status.is_empty() {
            let width = terminal_width();
            let line: String = self.status.chars().take(width.saturating_sub(1)).collect();
            flushed(io::stderr().lock(), line.as_bytes())?;
        }
        Ok(())
    }
}

fn flushed(mut out: impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.flush()
}

/// Columns of the terminal on stderr.
fn terminal_width() -> usize {
    crate::terminal::columns().unwrap_or(80)
}
