//! The states of a VM and which call is allowed in which (lua-api L-047..L-060).
//!
//! The table of the specification, once, as data: every call asks [`VmState::check`] and gets either leave or an
//! error that names the state, what is needed, and the way out.

use std::fmt;

use crate::error::Reason;

/// State of a VM (section 5.1 of the Lua API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmState {
    /// Declared, never booted.
    Created,
    /// Up, the agent answers.
    Booted,
    /// Up, guest time stands still.
    Paused,
    /// Down in good order; may be booted again.
    Shutdown,
    /// Stopped by itself abnormally (L-061).
    Dead,
}

impl VmState {
    /// The word of the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Booted => "booted",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Dead => "dead",
        }
    }

    /// Leave to perform `need` now, or the error to raise.
    pub fn check(self, need: Need) -> Result<(), Reason> {
        if need.allows(self) {
            return Ok(());
        }
        Err(Reason::WrongState {
            actual: self,
            needed: need.states(),
            way_out: self.way_out(need),
        })
    }

    fn way_out(self, need: Need) -> &'static str {
        match (self, need) {
            (Self::Created | Self::Shutdown, _) => "call vm:boot first",
            (Self::Paused, Need::Bootable) => "it is up already, call vm:resume",
            (Self::Paused, _) => "call vm:resume first",
            (Self::Booted, Need::Bootable) => "it is up already, call vm:shutdown first",
            (Self::Booted, _) => "call vm:pause first",
            (Self::Dead, _) => "it cannot come back, declare another VM",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a call needs of the VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// boot, restore: `created` or `shutdown` (L-047, L-055).
    Bootable,
    /// Guest operations, pause, reset, power button: `booted` (L-048, L-052, L-053, L-056).
    Booted,
    /// resume: `paused` (L-049).
    Paused,
    /// snapshot, console write, guest memory: `booted` or `paused` (L-054, L-057, L-238).
    Up,
}

impl Need {
    fn allows(self, state: VmState) -> bool {
        match self {
            Self::Bootable => matches!(state, VmState::Created | VmState::Shutdown),
            Self::Booted => state == VmState::Booted,
            Self::Paused => state == VmState::Paused,
            Self::Up => matches!(state, VmState::Booted | VmState::Paused),
        }
    }

    fn states(self) -> &'static str {
        match self {
            Self::Bootable => "created or shutdown",
            Self::Booted => "booted",
            Self::Paused => "paused",
            Self::Up => "booted or paused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [VmState; 5] = [
        VmState::Created,
        VmState::Booted,
        VmState::Paused,
        VmState::Shutdown,
        VmState::Dead,
    ];

    #[test]
    fn l047_to_l057_the_table_of_the_specification() {
        let rows = [
            (Need::Bootable, [true, false, false, true, false]),
            (Need::Booted, [false, true, false, false, false]),
            (Need::Paused, [false, false, true, false, false]),
            (Need::Up, [false, true, true, false, false]),
        ];
        for (need, allowed) in rows {
            for (state, ok) in ALL.into_iter().zip(allowed) {
                assert_eq!(state.check(need).is_ok(), ok, "{need:?} in {state}");
            }
        }
    }

    #[test]
    fn l231_a_refusal_names_state_need_and_way_out() {
        let text = VmState::Created
            .check(Need::Booted)
            .unwrap_err()
            .to_string();
        assert_eq!(text, "state is created, needs booted; call vm:boot first");
        let text = VmState::Booted
            .check(Need::Bootable)
            .unwrap_err()
            .to_string();
        assert!(text.contains("vm:shutdown first"), "{text}");
    }
}
