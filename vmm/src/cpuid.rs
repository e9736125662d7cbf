//! The one CPU model that every guest sees, as CPUID leaves and as the MSRs that belong to it.
//!
//! The software CPU executes the table as it is; KVM gets the same table cut down to what the host
//! can do, so that a guest saved on one resumes on the other (design "Two CPUs, one machine";
//! lua-api L-080).
//!
//! # The model
//!
//! x86-64-v2 without anything that hosts differ in (no AVX, AES, RDRAND, PCID, XSAVEOPT, machine
//! checks). It signs as `GenuineIntel` family 6 model 0x36, a 64-bit Atom without speculative
//! execution. Linux knows that core to be free of every speculation bug, so it needs neither page
//! table isolation nor retpolines nor buffer clearing, whatever the kernel version and without
//! `mitigations=off`: those would cost the software CPU dear and protect nothing in a test guest.
//! A newer Intel signature would need `ARCH_CAPABILITIES` bits that KVM takes only on hosts which
//! have them, and an AMD one family-specific MSRs; both would make the model depend on the host.
//! Unlike its siblings 0x1c and 0x26, model 0x36 is on no library's list of slow instructions.
//!
//! Addresses are 39 bits physical (the narrowest host with KVM that is still common) and 48 bits
//! virtual. MCE and MCA are absent: KVM cannot present zero banks, and a guest without the bits
//! never looks.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_msr_entry};

/// Width of a guest physical address.
pub const PHYS_ADDR_BITS: u32 = 39;
/// Width of a guest virtual address.
pub const VIRT_ADDR_BITS: u32 = 48;
/// The software CPU's time stamp counter: one tick a nanosecond.
pub const SOFT_TSC_KHZ: u32 = 1_000_000;
/// Name of the model as `/proc/cpuinfo` shows it. It changes whenever the table changes in a way a
/// guest can see; fixture keys and snapshots carry it (cli-and-config R-091, lua-api L-080).
pub const MODEL_NAME: &str = "Provium x86-64-v2 processor";

/// Rate of the local APIC timer before its divider, on both backends.
const APIC_TIMER_HZ: u32 = 1_000_000_000;
/// Family 6, model 0x36, stepping 1.
const SIGNATURE: u32 = 0x0003_0661;
const HIGHEST_BASIC_LEAF: u32 = 0x16;
const HIGHEST_EXTENDED_LEAF: u32 = 0x8000_0008;
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const HIGHEST_HYPERVISOR_LEAF: u32 = 0x4000_0010;
/// Bytes of the x87 and SSE state in the XSAVE area, header included.
const XSAVE_SIZE: u32 = 576;

/// One bit of one CPUID register: the unit in which features are listed and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Feature {
    bit: u32,
    name: &'static str,
    on_kvm: OnKvm,
}

/// How a feature fares when the host's KVM does not list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnKvm {
    /// Cut from the guest's table and reported as missing.
    NeedsHost,
    /// Kept: KVM provides it itself, or it tells of speed only.
    Always,
}

const fn host(bit: u32, name: &'static str) -> Feature {
    Feature {
        bit,
        name,
        on_kvm: OnKvm::NeedsHost,
    }
}

const fn always(bit: u32, name: &'static str) -> Feature {
    Feature {
        bit,
        name,
        on_kvm: OnKvm::Always,
    }
}

/// Leaf 1 ECX. OSXSAVE is not here: it mirrors CR4 and is filled in by whoever executes CPUID.
const LEAF_1_ECX: &[Feature] = &[
    host(0, "sse3"),
    host(9, "ssse3"),
    host(13, "cx16"),
    host(19, "sse4.1"),
    host(20, "sse4.2"),
    always(21, "x2apic"),
    host(23, "popcnt"),
    always(24, "tsc-deadline"),
    host(26, "xsave"),
    always(31, "hypervisor"),
];

/// Leaf 1 EDX, without HTT, which depends on the number of processors.
const LEAF_1_EDX: &[Feature] = &[
    host(0, "fpu"),
    host(2, "de"),
    host(3, "pse"),
    host(4, "tsc"),
    host(5, "msr"),
    host(6, "pae"),
    host(8, "cx8"),
    host(9, "apic"),
    host(11, "sep"),
    host(12, "mtrr"),
    host(13, "pge"),
    host(15, "cmov"),
    host(16, "pat"),
    host(17, "pse36"),
    host(19, "clflush"),
    host(23, "mmx"),
    host(24, "fxsr"),
    host(25, "sse"),
    host(26, "sse2"),
];

const LEAF_1_EDX_HTT: u32 = 1 << 28;

const LEAF_6_EAX: &[Feature] = &[always(2, "arat")];

const LEAF_7_EBX: &[Feature] = &[
    host(0, "fsgsbase"),
    host(7, "smep"),
    always(9, "erms"),
    host(20, "smap"),
];

const LEAF_7_EDX: &[Feature] = &[always(4, "fsrm")];

const KVM_FEATURES: &[Feature] = &[
    host(1, "kvm-nop-io-delay"),
    host(3, "kvm-clocksource2"),
    host(24, "kvm-clocksource-stable"),
];

const EXT_1_ECX: &[Feature] = &[host(0, "lahf")];

const EXT_1_EDX: &[Feature] = &[
    host(11, "syscall"),
    host(20, "nx"),
    host(26, "pdpe1gb"),
    host(27, "rdtscp"),
    host(29, "lm"),
];

const EXT_7_EDX: &[Feature] = &[host(8, "invariant-tsc")];

/// Which register of an entry a feature list describes.
#[derive(Clone, Copy, Debug)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Register::Eax => &mut entry.eax,
            Register::Ebx => &mut entry.ebx,
            Register::Ecx => &mut entry.ecx,
            Register::Edx => &mut entry.edx,
        }
    }
}

/// Every feature word of the model: leaf, register, and the features in it.
const FEATURE_WORDS: &[(u32, Register, &[Feature])] = &[
    (0x1, Register::Ecx, LEAF_1_ECX),
    (0x1, Register::Edx, LEAF_1_EDX),
    (0x6, Register::Eax, LEAF_6_EAX),
    (0x7, Register::Ebx, LEAF_7_EBX),
    (0x7, Register::Edx, LEAF_7_EDX),
    (0x4000_0001, Register::Eax, KVM_FEATURES),
    (0x8000_0001, Register::Ecx, EXT_1_ECX),
    (0x8000_0001, Register::Edx, EXT_1_EDX),
    (0x8000_0007, Register::Edx, EXT_7_EDX),
];

fn bits(features: &[Feature]) -> u32 {
    features
        .iter()
        .fold(0, |word, feature| word | 1 << feature.bit)
}

fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

fn subleaf(function: u32, index: u32, values: [u32; 4]) -> kvm_cpuid_entry2 {
    let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    kvm_cpuid_entry2 {
        index,
        flags,
        ..leaf(function, values)
    }
}

/// Four bytes of text as CPUID returns them.
fn text(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    u32::from_le_bytes(word)
}

/// The model's CPUID table for the software CPU: processor `index` of `cpus`.
///
/// Leaves whose sub-leaf counts carry `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`; a leaf or sub-leaf that is
/// not listed reads as zero. OSXSAVE (leaf 1, ECX bit 27) is left clear.
pub fn table(cpus: u32, index: u32) -> Vec<kvm_cpuid_entry2> {
    table_with_tsc(cpus, index, SOFT_TSC_KHZ)
}

fn table_with_tsc(cpus: u32, index: u32, tsc_khz: u32) -> Vec<kvm_cpuid_entry2> {
    let mut table = basic_leaves(cpus, index, tsc_khz);
    table.extend(topology_leaves(cpus, index));
    table.extend(hypervisor_leaves(tsc_khz));
    table.extend(extended_leaves());
    table.sort_by_key(|entry| (entry.function, entry.index));
    table
}

fn basic_leaves(cpus: u32, index: u32, tsc_khz: u32) -> Vec<kvm_cpuid_entry2> {
    let vendor = b"GenuineIntel";
    let htt = if cpus > 1 { LEAF_1_EDX_HTT } else { 0 };
    // APIC id, room for processors in the package, CLFLUSH line in units of 8 bytes.
    let leaf_1_ebx = (index & 0xff) << 24 | (package_room(cpus) & 0xff) << 16 | 8 << 8;
    let mhz = tsc_khz / 1000;
    vec![
        leaf(
            0x0,
            [
                HIGHEST_BASIC_LEAF,
                text(vendor, 0),
                text(vendor, 8),
                text(vendor, 4),
            ],
        ),
        leaf(
            0x1,
            [
                SIGNATURE,
                leaf_1_ebx,
                bits(LEAF_1_ECX),
                bits(LEAF_1_EDX) | htt,
            ],
        ),
        // "See leaf 4 for caches, and nowhere for TLBs", in one round.
        leaf(0x2, [0x00fe_ff01, 0, 0, 0]),
        leaf(0x6, [bits(LEAF_6_EAX), 0, 0, 0]),
        subleaf(0x7, 0, [0, bits(LEAF_7_EBX), 0, bits(LEAF_7_EDX)]),
        // XCR0 may hold x87 and SSE; neither XSAVEOPT nor XSAVEC nor XSAVES.
        subleaf(0xd, 0, [0b11, XSAVE_SIZE, XSAVE_SIZE, 0]),
        subleaf(0xd, 1, [0, 0, 0, 0]),
        // The crystal also feeds the APIC timer, so it has that rate, and the ratio gives the TSC.
        leaf(0x15, [APIC_TIMER_HZ / 1000, tsc_khz, APIC_TIMER_HZ, 0]),
        leaf(0x16, [mhz, mhz, APIC_TIMER_HZ / 1_000_000, 0]),
    ]
}

/// Number of APIC ids that a package of `cpus` cores takes: the next power of two.
fn package_room(cpus: u32) -> u32 {
    cpus.max(1).next_power_of_two()
}

/// One package of `cpus` cores with one thread each: caches (4) and APIC id layout (0xb).
fn topology_leaves(cpus: u32, index: u32) -> Vec<kvm_cpuid_entry2> {
    let room = package_room(cpus);
    // Fields hold "number minus one"; the core count has 6 bits.
    let cores = (room - 1).min(63) << 26;
    let shared = (room - 1) << 14;
    // Geometry: line size 64, ways, one partition; sets; all minus one.
    let ways = |ways: u32| (ways - 1) << 22 | 63;
    let id_bits = room.trailing_zeros();
    vec![
        subleaf(0x4, 0, [cores | 1 << 8 | 1 << 5 | 1, ways(8), 63, 0]),
        subleaf(0x4, 1, [cores | 1 << 8 | 1 << 5 | 2, ways(8), 63, 0]),
        subleaf(0x4, 2, [cores | 1 << 8 | 2 << 5 | 3, ways(8), 1023, 0]),
        subleaf(
            0x4,
            3,
            [cores | shared | 1 << 8 | 3 << 5 | 3, ways(16), 8191, 0],
        ),
        subleaf(0x4, 4, [0, 0, 0, 0]),
        subleaf(0xb, 0, [0, 1, 1 << 8, index]),
        subleaf(0xb, 1, [id_bits, cpus, 2 << 8 | 1, index]),
        subleaf(0xb, 2, [0, 0, 2, index]),
    ]
}

fn hypervisor_leaves(tsc_khz: u32) -> Vec<kvm_cpuid_entry2> {
    let signature = b"KVMKVMKVM\0\0\0";
    let name = [text(signature, 0), text(signature, 4), text(signature, 8)];
    vec![
        leaf(
            HYPERVISOR_BASE,
            [HIGHEST_HYPERVISOR_LEAF, name[0], name[1], name[2]],
        ),
        leaf(0x4000_0001, [bits(KVM_FEATURES), 0, 0, 0]),
        leaf(
            HIGHEST_HYPERVISOR_LEAF,
            [tsc_khz, APIC_TIMER_HZ / 1000, 0, 0],
        ),
    ]
}

fn extended_leaves() -> Vec<kvm_cpuid_entry2> {
    let brand = MODEL_NAME.as_bytes();
    let name = |function: u32, at: usize| {
        leaf(
            function,
            [0, 4, 8, 12].map(|offset| text(brand, at + offset)),
        )
    };
    vec![
        leaf(0x8000_0000, [HIGHEST_EXTENDED_LEAF, 0, 0, 0]),
        leaf(0x8000_0001, [0, 0, bits(EXT_1_ECX), bits(EXT_1_EDX)]),
        name(0x8000_0002, 0),
        name(0x8000_0003, 16),
        name(0x8000_0004, 32),
        // Second-level cache: 512 KiB, 8 ways, lines of 64 bytes.
        leaf(0x8000_0006, [0, 0, 512 << 16 | 6 << 12 | 64, 0]),
        leaf(0x8000_0007, [0, 0, 0, bits(EXT_7_EDX)]),
        leaf(
            HIGHEST_EXTENDED_LEAF,
            [PHYS_ADDR_BITS | VIRT_ADDR_BITS << 8, 0, 0, 0],
        ),
    ]
}

/// The model as a KVM host can run it.
#[derive(Clone, Debug)]
pub struct KvmCpuid {
    /// What to hand to `KVM_SET_CPUID2`.
    pub entries: Vec<kvm_cpuid_entry2>,
    /// Features of the model that the host lacks, by name: cut from `entries`. A guest saved
    /// elsewhere must not be resumed here unless this is empty.
    pub missing: Vec<&'static str>,
}

/// The model's table for processor `index` of `cpus` on a KVM host which reports `supported`
/// (`KVM_GET_SUPPORTED_CPUID`) and whose guests' TSC runs at `tsc_khz`.
pub fn kvm_table(cpus: u32, index: u32, tsc_khz: u32, supported: &[kvm_cpuid_entry2]) -> KvmCpuid {
    let mut entries = table_with_tsc(cpus, index, tsc_khz);
    let mut missing = Vec::new();
    for &(function, register, features) in FEATURE_WORDS {
        let host_word = supported
            .iter()
            .find(|entry| entry.function == function && entry.index == 0)
            .map_or(0, |entry| *register.of(&mut entry.clone()));
        let lacks = |feature: &&Feature| {
            feature.on_kvm == OnKvm::NeedsHost && host_word & 1 << feature.bit == 0
        };
        for feature in features.iter().filter(lacks) {
            missing.push(feature.name);
            for entry in entries
                .iter_mut()
                .filter(|entry| entry.function == function)
            {
                *register.of(entry) &= !(1 << feature.bit);
            }
        }
    }
    KvmCpuid { entries, missing }
}

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// Fast string operations: without the bit Linux drops ERMS and its `rep movsb` copies.
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs on, everything write-back: without it Linux believes that RAM is uncacheable.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// MSRs which firmware would have set before any kernel runs, on every processor. Both backends
/// write them at reset.
pub fn boot_msrs() -> Vec<kvm_msr_entry> {
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    vec![
        msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        msr(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MAX_CPUS;

    fn find(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *table
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap_or_else(|| panic!("no leaf {function:#x}.{index}"))
    }

    /// What x86-64-v2 asks for (System V psABI), each by leaf, register and bit.
    #[test]
    fn the_model_is_x86_64_v2_and_no_more() {
        let table = table(1, 0);
        let one = find(&table, 1, 0);
        for bit in [0, 8, 15, 19, 23, 24, 25, 26] {
            assert_ne!(one.edx & 1 << bit, 0, "leaf 1 edx bit {bit}");
        }
        for bit in [0, 9, 13, 19, 20, 23] {
            assert_ne!(one.ecx & 1 << bit, 0, "leaf 1 ecx bit {bit}");
        }
        let extended = find(&table, 0x8000_0001, 0);
        assert_eq!(extended.ecx, 1, "LAHF alone");
        for bit in [11, 20, 29] {
            assert_ne!(extended.edx & 1 << bit, 0, "leaf 0x80000001 edx bit {bit}");
        }
        // PCLMUL MONITOR FMA PCID MOVBE AES OSXSAVE AVX F16C RDRAND.
        for bit in [1, 3, 12, 17, 22, 25, 27, 28, 29, 30] {
            assert_eq!(one.ecx & 1 << bit, 0, "leaf 1 ecx bit {bit}");
        }
        // BMI1 AVX2 BMI2 INVPCID AVX512 RDSEED ADX SHA.
        for bit in [3, 5, 8, 10, 16, 18, 19, 29] {
            assert_eq!(find(&table, 7, 0).ebx & 1 << bit, 0, "leaf 7 ebx bit {bit}");
        }
    }

    #[test]
    fn signature_is_a_core_that_linux_knows_to_be_free_of_speculation() {
        let eax = find(&table(1, 0), 1, 0).eax;
        let family = eax >> 8 & 0xf;
        let model = eax >> 4 & 0xf | eax >> 12 & 0xf0;
        assert_eq!((family, model, eax & 0xf), (6, 0x36, 1));
    }

    #[test]
    fn names_read_as_text() {
        let table = table(1, 0);
        let zero = find(&table, 0, 0);
        let vendor: Vec<u8> = [zero.ebx, zero.edx, zero.ecx]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(vendor, b"GenuineIntel");
        let brand: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .map(|function| find(&table, function, 0))
            .flat_map(|entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(
            String::from_utf8(brand).unwrap().trim_end_matches('\0'),
            MODEL_NAME
        );
    }

    #[test]
    fn every_processor_has_its_id_in_both_topology_leaves() {
        for cpus in [1, 2, 3, 4, MAX_CPUS] {
            for index in 0..cpus {
                let table = table(cpus, index);
                assert_eq!(find(&table, 1, 0).ebx >> 24, index);
                assert_eq!(find(&table, 0xb, 0).edx, index);
                let cores = find(&table, 0xb, 1);
                assert_eq!((cores.ebx, cores.edx), (cpus, index));
                assert!(
                    cpus <= 1 << cores.eax,
                    "ids of {cpus} cpus fit in {} bits",
                    cores.eax
                );
                assert_eq!(find(&table, 1, 0).edx & LEAF_1_EDX_HTT != 0, cpus > 1);
            }
        }
    }

    #[test]
    fn caches_have_the_sizes_that_their_geometry_says() {
        let table = table(2, 0);
        let size = |index| {
            let entry = find(&table, 4, index);
            let (ways, line) = ((entry.ebx >> 22) + 1, (entry.ebx & 0xfff) + 1);
            ways * line * (entry.ecx + 1)
        };
        assert_eq!(
            [0, 1, 2, 3].map(size),
            [32 << 10, 32 << 10, 512 << 10, 8 << 20]
        );
        assert_eq!(find(&table, 4, 4).eax & 0x1f, 0, "the list ends");
    }

    #[test]
    fn tsc_frequency_follows_from_leaf_0x15() {
        for khz in [SOFT_TSC_KHZ, 2_494_137] {
            let entry = find(&table_with_tsc(1, 0, khz), 0x15, 0);
            let hz = u64::from(entry.ecx) * u64::from(entry.ebx) / u64::from(entry.eax);
            assert_eq!(hz, u64::from(khz) * 1000);
        }
    }

    #[test]
    fn entries_are_unique_and_marked_when_the_subleaf_counts() {
        let table = table(4, 1);
        for pair in table.windows(2) {
            assert!((pair[0].function, pair[0].index) < (pair[1].function, pair[1].index));
        }
        for entry in &table {
            let indexed = matches!(entry.function, 0x4 | 0x7 | 0xb | 0xd);
            assert_eq!(entry.flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX, indexed);
        }
    }

    #[test]
    fn a_capable_host_runs_the_whole_model() {
        let all = u32::MAX;
        let supported: Vec<_> = table(1, 0)
            .into_iter()
            .map(|entry| kvm_cpuid_entry2 {
                eax: all,
                ebx: all,
                ecx: all,
                edx: all,
                ..entry
            })
            .collect();
        let kvm = kvm_table(2, 1, SOFT_TSC_KHZ, &supported);
        assert!(kvm.missing.is_empty());
        assert_eq!(kvm.entries, table(2, 1));
    }

    #[test]
    fn features_that_the_host_lacks_are_cut_and_named() {
        let mut supported = table(1, 0);
        for entry in &mut supported {
            match entry.function {
                // No SMAP; no ERMS either, which only tells of speed and stays.
                7 => entry.ebx &= !(1 << 20 | 1 << 9),
                0x8000_0007 => entry.edx = 0,
                _ => {}
            }
        }
        let kvm = kvm_table(1, 0, SOFT_TSC_KHZ, &supported);
        assert_eq!(kvm.missing, ["smap", "invariant-tsc"]);
        assert_eq!(find(&kvm.entries, 7, 0).ebx, bits(LEAF_7_EBX) & !(1 << 20));
        assert_eq!(find(&kvm.entries, 0x8000_0007, 0).edx, 0);
    }

    /// The manual's table is this table.
    #[test]
    fn the_documentation_lists_the_same_features() {
        let manual = include_str!("../../docs/boot.md");
        for (function, register, features) in FEATURE_WORDS {
            let register = format!("{register:?}").to_lowercase();
            let names: Vec<_> = features.iter().map(|feature| feature.name).collect();
            let row = format!("| {function:#x} {register} | {} |", names.join(" "));
            assert!(manual.contains(&row), "docs/boot.md lacks: {row}");
        }
        assert!(manual.contains(MODEL_NAME));
    }
}
