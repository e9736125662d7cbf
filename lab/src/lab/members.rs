//! What a lab holds, in declaration order (lua-api L-032..L-035).

use crate::lab::Lab;
use crate::vm::Vm;

/// A member of a lab.
#[derive(Clone, PartialEq)]
pub enum Member {
    /// A VM.
    Vm(Vm),
    /// A sub-lab.
    Lab(Lab),
}

/// Kinds of members; a name may be used once per kind (L-030).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A VM.
    Vm,
    /// A sub-lab.
    SubLab,
}

impl MemberKind {
    /// The word of the specification (L-034).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::SubLab => "sub_lab",
        }
    }

    /// As messages say it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::SubLab => "lab",
        }
    }

    pub(super) fn duplicate_code(self) -> &'static str {
        match self {
            Self::Vm => "DuplicateVmName",
            Self::SubLab => "DuplicateLabName",
        }
    }

    pub(super) fn lookup_call(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::SubLab => "lab",
        }
    }
}

impl Member {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> MemberKind {
        match self {
            Self::Vm(_) => MemberKind::Vm,
            Self::Lab(_) => MemberKind::SubLab,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vm(vm) => vm.name(),
            Self::Lab(lab) => lab.name(),
        }
    }

    pub(super) fn vm(&self) -> Option<&Vm> {
        if let Self::Vm(vm) = self {
            Some(vm)
        } else {
            None
        }
    }

    pub(super) fn lab(&self) -> Option<&Lab> {
        if let Self::Lab(lab) = self {
            Some(lab)
        } else {
            None
        }
    }
}

/// The members of one lab.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    anonymous_vms: u32,
    anonymous_labs: u32,
}

impl Members {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.iter()
    }

    pub(super) fn find(&self, kind: MemberKind, name: &str) -> Option<&Member> {
        self.list
            .iter()
            .find(|member| member.kind() == kind && member.name() == name)
    }

    pub(super) fn find_lab(&self, name: &str) -> Option<Lab> {
        self.find(MemberKind::SubLab, name)
            .and_then(Member::lab)
            .cloned()
    }

    pub(super) fn add(&mut self, member: Member) {
        self.list.push(member);
    }

    /// A name tries vm, then sub-lab (L-033).
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let position = [MemberKind::Vm, MemberKind::SubLab]
            .into_iter()
            .find_map(|kind| {
                self.list
                    .iter()
                    .position(|member| member.kind() == kind && member.name() == name)
            });
        position.map(|index| self.list.remove(index)).is_some()
    }

    /// `__vm_0`, `__lab_0`, ... (L-025).
    pub(super) fn next_anonymous(&mut self, kind: MemberKind) -> String {
        let (prefix, counter) = match kind {
            MemberKind::Vm => ("__vm_", &mut self.anonymous_vms),
            MemberKind::SubLab => ("__lab_", &mut self.anonymous_labs),
        };
        let name = format!("{prefix}{counter}");
        *counter += 1;
        name
    }
}
