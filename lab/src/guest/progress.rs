//! Telling the user what a preparation is doing: it downloads tens of megabytes once, and must not look hung.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

/// A step of preparing a guest.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestStep {
    /// Another process or thread is preparing this guest; waiting for it.
    Waiting,
    /// Fetching the package lists.
    Lists {
        /// How far, 0 to 100.
        percent: f32,
    },
    /// Fetching packages.
    Download {
        /// How far, 0 to 100.
        percent: f32,
        /// Number of packages.
        packages: usize,
        /// Their size together.
        bytes: u64,
    },
    /// Taking the kernel and its modules out of its package.
    Kernel {
        /// The package.
        package: String,
    },
    /// Building the initramfs.
    Initramfs,
    /// Ready for use.
    Ready {
        /// Size of the kernel.
        kernel_bytes: u64,
        /// Size of the initramfs.
        initrd_bytes: u64,
        /// Directory that holds both.
        path: std::path::PathBuf,
    },
}

/// Is told the steps, in order, on the preparing thread.
pub trait Progress: Send + Sync {
    /// `guest` is the recipe's name.
    fn step(&self, guest: &str, step: &GuestStep);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _guest: &str, _step: &GuestStep) {}
}

/// Writes lines to standard error; on a terminal, percentages run in place.
#[derive(Default)]
pub struct StderrProgress {
    last: Mutex<String>,
}

impl Progress for StderrProgress {
    fn step(&self, guest: &str, step: &GuestStep) {
        let terminal = std::io::stderr().is_terminal();
        let (text, running) = describe(step, terminal);
        let line = format!("guest {guest}: {text}");
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last == line {
            return;
        }
        let mut err = std::io::stderr().lock();
        // A standard error that cannot be written to is no reason to fail.
        let _ignored = match (terminal, running) {
            (true, true) => write!(err, "\r\x1b[K{line}"),
            (true, false) => writeln!(err, "\r\x1b[K{line}"),
            (false, _) => writeln!(err, "{line}"),
        };
        let _ignored = err.flush();
        *last = line;
    }
}

/// The text of a step, and whether more of the same follows. Piped output gets no percentages.
fn describe(step: &GuestStep, terminal: bool) -> (String, bool) {
    let percentage = |percent: f32| {
        if terminal {
            format!(" {percent:.0} %")
        } else {
            String::new()
        }
    };
    match step {
        GuestStep::Waiting => (
            "waiting for another process that prepares it".to_owned(),
            false,
        ),
        GuestStep::Lists { percent } => (
            format!("fetching Debian package lists{}", percentage(*percent)),
            *percent < 100.0,
        ),
        GuestStep::Download {
            percent,
            packages,
            bytes,
        } => {
            let size = mebibytes(*bytes);
            let text = format!(
                "downloading {packages} packages, {size}{}",
                percentage(*percent)
            );
            (text, *percent < 100.0)
        }
        GuestStep::Kernel { package } => (format!("unpacking {package}"), false),
        GuestStep::Initramfs => ("building the initramfs".to_owned(), false),
        GuestStep::Ready {
            kernel_bytes,
            initrd_bytes,
            path,
        } => {
            let (kernel, initrd) = (mebibytes(*kernel_bytes), mebibytes(*initrd_bytes));
            (
                format!(
                    "ready: kernel {kernel}, initramfs {initrd}, in {}",
                    path.display()
                ),
                false,
            )
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piped_lines_do_not_change_with_the_percentage() {
        let step = |percent| GuestStep::Download {
            percent,
            packages: 2,
            bytes: 27_641_680,
        };
        assert_eq!(
            describe(&step(1.0), false).0,
            "downloading 2 packages, 26.4 MiB"
        );
        assert_eq!(
            describe(&step(1.0), false).0,
            describe(&step(99.0), false).0
        );
        assert_eq!(
            describe(&step(50.0), true).0,
            "downloading 2 packages, 26.4 MiB 50 %"
        );
    }
}
