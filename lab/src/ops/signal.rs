//! Names of signals (lua-api L-130).

/// Number and name of the signals that may be named; of every other only the number is accepted.
const SIGNALS: [(i32, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// The number of a signal given as text: a name, with or without `SIG`, in any case, or digits.
#[must_use]
pub fn signal_by_name(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(number, _)| *number)
}

/// The name of a signal, without `SIG`.
#[must_use]
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l130_names_prefixes_cases_and_digits() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("Sigusr1", 10),
            ("winch", 28),
            ("19", 19),
        ] {
            assert_eq!(signal_by_name(text), Some(number), "{text}");
        }
        for text in ["", "SIG", "NOPE", "0", "65", "-9", "9.0"] {
            assert_eq!(signal_by_name(text), None, "{text}");
        }
        assert_eq!(signal_name(13), Some("PIPE"));
        assert_eq!(signal_name(60), None);
    }
}
