//! Directed guests as kernels: an ELF file around a piece of machine code, and machines that run
//! it.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use provium_vmm::{Backend, Machine, MachineConfig, MachineState, StopCause, Waited, probe};

use crate::asm::CODE;

/// An ELF kernel with `code` as its only segment, entered at its start.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let note = [6u32, 4, 0x100].map(u32::to_le_bytes).concat();
    let note = [note, b"Linux\0\0\0".to_vec(), vec![0; 4]].concat();
    let (headers, count) = (64 + 2 * 56u64, 2u16);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 62, 1, 0].map(u16::to_le_bytes).concat());
    file.extend([CODE, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(
        [0, 0, 64u16, 56, count, 64, 0, 0]
            .map(u16::to_le_bytes)
            .concat(),
    );
    let code_len = code.len() as u64;
    let segments = [
        (1u64, headers, CODE, code_len, 0x10_0000),
        (
            4,
            headers + code_len,
            0,
            note.len() as u64,
            note.len() as u64,
        ),
    ];
    for (kind, offset, address, len, memory) in segments {
        let words = [kind, offset, address, address, len, memory, 0];
        file.extend(words.map(u64::to_le_bytes).concat());
    }
    file.extend_from_slice(code);
    file.extend(note);
    file
}

/// A kernel file that lives as long as the value.
pub(crate) struct Kernel(tempfile::NamedTempFile);

impl Kernel {
    pub(crate) fn new(code: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&elf(code)).unwrap();
        Self(file)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The backends that this host can run directed guests on. Says so visibly when KVM is left out,
/// and fails where the environment insists on it.
pub(crate) fn backends() -> Vec<Backend> {
    match probe::kvm() {
        probe::KvmReport::Unusable(why) => {
            let insisted = std::env::var("PROVIUM_REQUIRE").is_ok_and(|r| r.contains("kvm"));
            assert!(!insisted, "PROVIUM_REQUIRE asks for kvm: {why}");
            eprintln!("SKIPPED on kvm: {why}");
            vec![Backend::Soft]
        }
        _ => vec![Backend::Soft, Backend::Kvm],
    }
}

/// As [`backends`], for tests of KVM alone.
pub(crate) fn kvm_usable() -> bool {
    backends().contains(&Backend::Kvm)
}

pub(crate) fn config(kernel: &Kernel, backend: Backend) -> MachineConfig {
    let mut config = MachineConfig::new("directed", backend, kernel.path());
    config.memory = 16 << 20;
    config
}

pub(crate) fn start(kernel: &Kernel, backend: Backend) -> Machine {
    Machine::start(config(kernel, backend)).unwrap()
}

/// Generous: a host under load must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the machine run until its console shows `text`.
pub(crate) fn expect(machine: &Machine, text: &str) {
    let console = machine.console().clone();
    let _watch = console.watch();
    let shown = || {
        String::from_utf8_lossy(&console.read_log())
            .contains(text)
            .then_some(())
    };
    let end = machine.wait(None, Some(PATIENCE), shown);
    let log = String::from_utf8_lossy(&console.read_log()).into_owned();
    assert_eq!(
        end,
        Waited::Done(()),
        "waiting for {text:?}; console: {log:?}"
    );
}

/// Lets the machine run until it stops.
pub(crate) fn run_to_end(machine: &Machine) -> StopCause {
    let stopped = || match machine.state() {
        MachineState::Stopped(cause) => Some(cause),
        _ => None,
    };
    match machine.wait(None, Some(PATIENCE), stopped) {
        Waited::Done(cause) | Waited::Stopped(cause) => cause,
        other => panic!("the guest did not stop: {other:?}"),
    }
}

/// What the console shows.
pub(crate) fn console(machine: &Machine) -> String {
    String::from_utf8_lossy(&machine.console().read_log()).into_owned()
}
