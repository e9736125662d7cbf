//! That no instruction is forgotten: what is not run on the host, and what only faults there for
//! want of privilege, has a directed guest.

use std::collections::BTreeSet;

use iced_x86::Mnemonic;

use crate::{apic, control, devices, guest, interrupts, paging, scope, syscalls, tables};

/// Instructions that only the kernel may use, from their descriptions; and those of `scope`.
fn wanted() -> BTreeSet<Mnemonic> {
    let mut all: BTreeSet<Mnemonic> = scope::not_native().map(|(m, _)| m).collect();
    for bits in [32, 64] {
        for code in scope::candidates(bits) {
            let info = code.op_code();
            if info.must_be_cpl0() || info.is_privileged() || info.may_require_cpl0() {
                all.insert(code.mnemonic());
            }
        }
    }
    all
}

#[test]
fn every_privileged_instruction_has_a_guest() {
    let guests: &[fn()] = &[
        apic::one_shot_timer,
        control::caches,
        control::control_registers_keep_their_values,
        control::cpuid_answers_from_its_table,
        control::debug_registers,
        control::extended_control_register,
        control::machine_status_word,
        control::model_specific_registers,
        control::no_performance_counters,
        control::segment_bases,
        control::time_stamp_counter,
        devices::ports,
        devices::string_ports,
        interrupts::halt,
        interrupts::int_changes_rings_and_iret_returns,
        interrupts::interrupt_shadow,
        paging::supervisor_mode_access_prevention,
        paging::translations_end_when_they_have_to,
        syscalls::syscall_and_sysretq,
        syscalls::sysenter_and_sysexit,
        syscalls::sysret_to_compatibility_mode,
        tables::descriptor_table_registers,
        tables::local_descriptor_table,
        tables::task_register,
    ];
    guest::assembled();
    guests.iter().for_each(|test| test());
    let covered = guest::assembled();
    let missing: Vec<_> = wanted()
        .into_iter()
        .filter(|m| !covered.contains(m))
        .collect();
    assert!(missing.is_empty(), "no directed guest for {missing:?}");
}
