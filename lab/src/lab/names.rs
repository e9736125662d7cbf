//! Names that a test may give (lua-api L-015, L-030).

use crate::error::Reason;

/// Keys of `provium` that no VM, bridge or lab may have as a name (L-015).
pub const RESERVED: [&str; 9] = [
    "pack",
    "unpack",
    "vm_fixture",
    "lab_fixture",
    "create",
    "fixture",
    "shutdown_all",
    "timeout",
    "reset_between_tests",
];

/// The refusal of a reserved name.
pub(super) fn reserved(kind: &str, name: &str) -> Reason {
    Reason::BadArgument {
        name: "name".to_owned(),
        problem: format!("{name:?} is a reserved key and cannot name a {kind}"),
    }
}

/// 1 to 63 of `A-Za-z0-9_-`, the first alphanumeric, none reserved.
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), Reason> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let starts_well = name
        .chars()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    if !starts_well || name.len() > 63 || !name.chars().all(allowed) {
        let rule = "1 to 63 characters of A-Z a-z 0-9 _ -, the first a letter or digit";
        let problem = format!("{name:?} is no name for a {kind}; names are {rule}");
        return Err(Reason::BadArgument {
            name: "name".to_owned(),
            problem,
        });
    }
    if RESERVED.contains(&name) {
        Err(reserved(kind, name))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l030_names_of_tests() {
        for name in ["a", "A-1_b", "0", &"x".repeat(63)] {
            assert!(check_name("VM", name).is_ok(), "{name}");
        }
        for name in [
            "",
            "_a",
            "-a",
            "a b",
            "ä",
            "a.b",
            "__vm_0",
            "a~2",
            &"x".repeat(64),
        ] {
            assert!(check_name("VM", name).is_err(), "{name}");
        }
    }

    #[test]
    fn l015_reserved_keys_are_named() {
        let text = check_name("VM", "timeout").unwrap_err().to_string();
        assert_eq!(
            text,
            "name: \"timeout\" is a reserved key and cannot name a VM"
        );
    }
}
