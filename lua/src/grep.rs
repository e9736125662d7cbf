//! Lines that match a POSIX basic regular expression, as `grep` finds them (classic-api C-021).
//!
//! The C library's own `regcomp` is the definition of that grammar, so it is used.

use std::ffi::CString;

/// A compiled pattern.
struct Pattern(libc::regex_t);

impl Pattern {
    fn new(pattern: &str) -> Result<Self, String> {
        let text = CString::new(pattern).map_err(|_| "it holds a NUL byte".to_owned())?;
        // SAFETY: a zeroed `regex_t` is what `regcomp` expects to fill; `text` is a C string
        // that outlives the call. On success the value is initialised and owned by `Pattern`.
        let (status, compiled) = unsafe {
            let mut compiled: libc::regex_t = std::mem::zeroed();
            (
                libc::regcomp(&raw mut compiled, text.as_ptr(), libc::REG_NOSUB),
                compiled,
            )
        };
        if status != 0 {
            return Err(reason(status, &compiled));
        }
        Ok(Self(compiled))
    }

    fn matches(&self, line: &[u8]) -> bool {
        // A line with a NUL byte matches up to there, as with any C program.
        let end = line
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(line.len());
        let Ok(line) = CString::new(&line[..end]) else {
            return false;
        };
        // SAFETY: the pattern was compiled by `regcomp` and not freed; with REG_NOSUB no match
        // positions are written, so a null array of length 0 is allowed.
        let status =
            unsafe { libc::regexec(&raw const self.0, line.as_ptr(), 0, std::ptr::null_mut(), 0) };
        status == 0
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: compiled by `regcomp`, freed once.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

fn reason(status: libc::c_int, compiled: &libc::regex_t) -> String {
    let mut text = [0u8; 128];
    // SAFETY: `regerror` writes at most `text.len()` bytes, ended by NUL, and reads `compiled`
    // only as the value `regcomp` left.
    unsafe {
        libc::regerror(
            status,
            std::ptr::from_ref(compiled),
            text.as_mut_ptr().cast(),
            text.len(),
        );
    }
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The lines of `text` that match, each with its newline.
pub(crate) fn grep(text: &[u8], pattern: &str) -> Result<Vec<u8>, String> {
    let pattern = Pattern::new(pattern)?;
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if pattern.matches(bare) {
            out.extend_from_slice(bare);
            out.push(b'\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c021_basic_regular_expressions_select_lines() {
        let text = b"[0.1] usb 1\n[0.2] net eth0\n[0.3] a+b";
        let lines = |pattern| String::from_utf8(grep(text, pattern).unwrap()).unwrap();
        assert_eq!(lines("usb"), "[0.1] usb 1\n");
        assert_eq!(lines("eth[0-9]$"), "[0.2] net eth0\n");
        assert_eq!(lines("a+b"), "[0.3] a+b\n");
        assert_eq!(lines("nothing"), "");
        assert!(grep(text, "\\(").is_err());
    }
}
