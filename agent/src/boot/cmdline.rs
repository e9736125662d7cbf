//! The kernel command line.

use std::ffi::CString;

use crate::sys::{c_string, file};

/// The words of the command line.
pub(super) struct Cmdline(Vec<Vec<u8>>);

impl Cmdline {
    /// That of the running kernel.
    pub(super) fn read() -> Self {
        Self::parse(&file::contents(b"/proc/cmdline").unwrap_or_default())
    }

    /// Splits at blanks; a quoted part keeps its blanks, as for the kernel itself.
    fn parse(line: &[u8]) -> Self {
        let mut words = vec![Vec::new()];
        let mut quoted = false;
        for byte in line {
            match byte {
                b'"' => quoted = !quoted,
                byte if byte.is_ascii_whitespace() && !quoted => words.push(Vec::new()),
                byte => {
                    if let Some(word) = words.last_mut() {
                        word.push(*byte);
                    }
                }
            }
        }
        words.retain(|word| !word.is_empty());
        Self(words)
    }

    /// Value of the last `KEY=VALUE`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let value = |word: &'_ Vec<u8>| word.strip_prefix(key)?.strip_prefix(b"=").map(<[u8]>::len);
        let (word, length) = self
            .0
            .iter()
            .rev()
            .find_map(|word| value(word).map(|length| (word, length)))?;
        Some(&word[word.len() - length..])
    }

    /// Whether a word stands there alone.
    pub(super) fn has(&self, word: &[u8]) -> bool {
        self.0.iter().any(|other| other == word)
    }

    /// Programs named by `provium.init=`, separated by commas.
    pub(super) fn inits(&self) -> Vec<CString> {
        let list = self.get(b"provium.init").unwrap_or_default();
        let paths = list
            .split(|byte| *byte == b',')
            .filter(|path| !path.is_empty());
        paths.filter_map(|path| c_string(path).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts() {
        let line = b"console=ttyS0 ro root=/dev/vda root=\"/dev/my disk\" provium.init=/a,/b\n";
        let cmdline = Cmdline::parse(line);
        assert_eq!(cmdline.get(b"root"), Some(&b"/dev/my disk"[..]));
        assert_eq!(cmdline.get(b"console"), Some(&b"ttyS0"[..]));
        assert_eq!(cmdline.get(b"con"), None);
        assert!(cmdline.has(b"ro") && !cmdline.has(b"rw"));
        assert_eq!(cmdline.inits(), [c"/a".to_owned(), c"/b".to_owned()]);
        assert!(Cmdline::parse(b"").inits().is_empty());
    }
}
