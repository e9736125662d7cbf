//! CPUID: a table handed in by the machine, with the few bits that depend on the moment.

use crate::cpu::{Cpu, cr};

/// One answer of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input, if the leaf looks at it.
    pub subleaf: Option<u32>,
    /// The answer: EAX, EBX, ECX, EDX.
    pub value: [u32; 4],
}

const OSXSAVE: u32 = 1 << 27;
const APIC: u32 = 1 << 9;

impl Cpu {
    /// The answer to CPUID. Leaves that the model lacks read as zero.
    pub(crate) fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let found = self
            .cpuid
            .iter()
            .find(|l| l.leaf == leaf && l.subleaf.is_none_or(|s| s == subleaf));
        let mut value = found.map_or([0; 4], |l| l.value);
        match leaf {
            1 => {
                let osxsave = self.cr4 & cr::CR4_OSXSAVE != 0;
                value[2] = value[2] & !OSXSAVE | if osxsave { OSXSAVE } else { 0 };
                if self.apic.base() & 1 << 11 == 0 {
                    value[3] &= !APIC;
                }
            }
            // Size of the state that XCR0 enables: legacy area and header, no more.
            0xd if subleaf == 0 => value[1] = 576,
            _ => {}
        }
        value
    }
}
