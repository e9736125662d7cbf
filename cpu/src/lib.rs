//! Software x86-64 processor: decode, execute, MMU, exceptions, local APIC.
