//! Exceptions as values: vector, error code, and how to raise one.

use crate::cpu::Cpu;
use crate::op::Stop;
use crate::run::StopReason;

/// An exception on its way to delivery (SDM vol. 3, table 6-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) vector: u8,
    pub(crate) error: Option<u32>,
}

/// Vector numbers.
pub(crate) mod vector {
    pub(crate) const DE: u8 = 0;
    pub(crate) const DB: u8 = 1;
    pub(crate) const NMI: u8 = 2;
    pub(crate) const BP: u8 = 3;
    pub(crate) const OF: u8 = 4;
    pub(crate) const BR: u8 = 5;
    pub(crate) const UD: u8 = 6;
    pub(crate) const NM: u8 = 7;
    pub(crate) const DF: u8 = 8;
    pub(crate) const TS: u8 = 10;
    pub(crate) const NP: u8 = 11;
    pub(crate) const SS: u8 = 12;
    pub(crate) const GP: u8 = 13;
    pub(crate) const PF: u8 = 14;
    pub(crate) const MF: u8 = 16;
    pub(crate) const XM: u8 = 19;
}

/// How two exceptions in a row combine (SDM vol. 3, table 6-5).
#[derive(PartialEq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

impl Exception {
    fn class(&self) -> Class {
        match self.vector {
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Class::Contributory,
            vector::PF => Class::PageFault,
            _ => Class::Benign,
        }
    }

    /// Whether `second`, met while delivering `self`, makes a double fault.
    pub(crate) fn doubles_with(&self, second: &Exception) -> bool {
        match self.class() {
            Class::Benign => false,
            Class::Contributory => second.class() == Class::Contributory,
            Class::PageFault => second.class() != Class::Benign,
        }
    }

    /// Whether the saved RIP is that of the instruction itself, so that RF is set in the saved
    /// flags (SDM vol. 3, 17.3.1.1).
    pub(crate) fn is_fault(&self) -> bool {
        !matches!(
            self.vector,
            vector::DB | vector::BP | vector::OF | vector::NMI
        )
    }
}

impl Cpu {
    #[cold]
    fn raise(&mut self, vector: u8, error: Option<u32>) -> Stop {
        self.stop = StopReason::Exception(Exception { vector, error });
        Stop
    }

    /// #GP(selector or 0).
    #[cold]
    pub(crate) fn gp(&mut self, error: u16) -> Stop {
        self.raise(vector::GP, Some(u32::from(error)))
    }
    /// Turns #GP for a bad address into #SS: the access was to the stack.
    #[cold]
    pub(crate) fn stack_fault(&mut self, stop: Stop) -> Stop {
        if std::mem::take(&mut self.noncanonical) {
            return self.ss(0);
        }
        stop
    }
    /// #UD.
    #[cold]
    pub(crate) fn ud(&mut self) -> Stop {
        self.raise(vector::UD, None)
    }
    /// #NM.
    #[cold]
    pub(crate) fn nm(&mut self) -> Stop {
        self.raise(vector::NM, None)
    }
    /// #DE.
    #[cold]
    pub(crate) fn de(&mut self) -> Stop {
        self.raise(vector::DE, None)
    }
    /// #SS(selector or 0).
    #[cold]
    pub(crate) fn ss(&mut self, error: u16) -> Stop {
        self.raise(vector::SS, Some(u32::from(error)))
    }
    /// #NP(selector).
    #[cold]
    pub(crate) fn np(&mut self, error: u16) -> Stop {
        self.raise(vector::NP, Some(u32::from(error)))
    }
    /// #TS(selector).
    #[cold]
    pub(crate) fn ts(&mut self, error: u16) -> Stop {
        self.raise(vector::TS, Some(u32::from(error)))
    }
    /// #PF at `address`, which goes to CR2.
    #[cold]
    pub(crate) fn pf(&mut self, address: u64, error: u32) -> Stop {
        self.fault_address = address;
        self.raise(vector::PF, Some(error))
    }
    /// #MF: an unmasked x87 exception is pending.
    #[cold]
    pub(crate) fn mf(&mut self) -> Stop {
        self.raise(vector::MF, None)
    }
    /// #XM: an unmasked SIMD floating-point exception.
    #[cold]
    pub(crate) fn xm(&mut self) -> Stop {
        self.raise(vector::XM, None)
    }
    /// #BR.
    #[cold]
    pub(crate) fn br(&mut self) -> Stop {
        self.raise(vector::BR, None)
    }
}
