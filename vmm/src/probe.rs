//! Which backend to use: does `/dev/kvm` exist, may we use it, and does it really execute guest
//! code?
//!
//! Some hosts offer a KVM that emulates ring 0 one instruction at a time; a guest kernel does not
//! boot there in any reasonable time, if at all. So the probe runs a short loop and measures: real
//! hardware is above 1000 million instructions per second, an emulating KVM at one or two. The
//! threshold is [`MIN_RATE`].

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use provium_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::boot::{self, CpuEntry};
use crate::config::Backend;
use crate::engine::chain;
use crate::error::Error;
use crate::kvm::KvmVm;
use crate::layout;
use crate::vcpu::Vcpu;

/// Million guest instructions per second below which a KVM is taken for an emulator.
pub const MIN_RATE: f64 = 50.0;

/// Iterations of the two-instruction loop.
const ITERATIONS: u64 = 100_000;
/// After so long the loop is cut off. Hardware needs a fraction of a millisecond.
const TIME_LIMIT: Duration = Duration::from_millis(20);
/// Where the loop says that it is done.
const DONE_PORT: u8 = 0x80;

/// What the user asked for (`--vmm`, R-021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// KVM where it is usable and fast, else the software CPU.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// The software CPU; `/dev/kvm` is not touched.
    Soft,
}

impl std::str::FromStr for Request {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "soft" => Ok(Self::Soft),
            other => Err(format!(
                "unknown backend `{other}` (valid: auto, kvm, soft)"
            )),
        }
    }
}

/// What the probe found out about this host's KVM.
#[derive(Debug, Clone, PartialEq)]
pub enum KvmReport {
    /// It executes guest code at this rate, in million instructions per second.
    Fast(f64),
    /// It works, but at a rate that only an emulator has.
    Emulating(f64),
    /// It cannot be used; says which step failed and how.
    Unusable(String),
}

impl std::fmt::Display for KvmReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fast(rate) => write!(f, "KVM executes {rate:.0} M instr/s"),
            Self::Emulating(rate) => write!(
                f,
                "KVM only emulates: {rate:.1} M instr/s, below the threshold of {MIN_RATE:.0}"
            ),
            Self::Unusable(why) => write!(f, "KVM is unusable: {why}"),
        }
    }
}

/// The backend to use, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// One line for people.
    pub reason: String,
    /// True when `auto` would have liked KVM and could not have it.
    pub fell_back: bool,
}

/// `kvm` was asked for and cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--vmm kvm: {reason}")]
pub struct KvmUnusable {
    /// The failing step.
    pub reason: String,
}

/// Decides which backend to use.
///
/// # Errors
/// When KVM is asked for and unusable.
pub fn choose(request: Request) -> Result<Choice, KvmUnusable> {
    decide(request, kvm)
}

/// The probe's result for this process; the first call takes a few milliseconds.
pub fn kvm() -> &'static KvmReport {
    static REPORT: OnceLock<KvmReport> = OnceLock::new();
    REPORT.get_or_init(|| match measure() {
        Ok(rate) if rate >= MIN_RATE => KvmReport::Fast(rate),
        Ok(rate) => KvmReport::Emulating(rate),
        Err(e) => KvmReport::Unusable(chain(&e)),
    })
}

fn decide<'a>(
    request: Request,
    report: impl FnOnce() -> &'a KvmReport,
) -> Result<Choice, KvmUnusable> {
    let choice = |backend, reason, fell_back| {
        Ok(Choice {
            backend,
            reason,
            fell_back,
        })
    };
    if request == Request::Soft {
        return choice(Backend::Soft, "asked for".to_owned(), false);
    }
    let report = report();
    match (request, report) {
        (Request::Kvm, KvmReport::Unusable(_)) => Err(KvmUnusable {
            reason: report.to_string(),
        }),
        (Request::Kvm, _) => choice(Backend::Kvm, format!("asked for; {report}"), false),
        (_, KvmReport::Fast(_)) => choice(Backend::Kvm, report.to_string(), false),
        _ => choice(Backend::Soft, report.to_string(), true),
    }
}

/// Guest instructions per microsecond of this thread's processor time.
fn measure() -> Result<f64, Error> {
    let failed = |step| {
        move |source| Error::Backend {
            backend: Backend::Kvm,
            step,
            source,
        }
    };
    let memory = Arc::new(loop_guest().map_err(failed("preparing the probe's memory"))?);
    let vm = KvmVm::new(&memory)?;
    let mut vcpu = vm.vcpu(1, 0)?;
    let start = boot::initial_state(ENTRY);
    let mut state = vcpu.state()?;
    state.regs = start.regs;
    state.regs.rcx = ITERATIONS;
    start.apply(&mut state.sregs);
    vcpu.set_state(&state)?;
    let before = thread_time().map_err(failed("reading the thread's processor time"))?;
    let finished = vcpu.run_at_most(TIME_LIMIT)?;
    let after = thread_time().map_err(failed("reading the thread's processor time"))?;
    let left = if finished { 0 } else { vcpu.state()?.regs.rcx };
    let executed = ITERATIONS.saturating_sub(left) * 2;
    let nanoseconds = after.saturating_sub(before).as_nanos().max(1);
    Ok(executed as f64 * 1000.0 / nanoseconds as f64)
}

/// Where the loop is.
const CODE: u64 = layout::EXTENDED_MEMORY_START;
const ENTRY: CpuEntry = CpuEntry::Long {
    rip: CODE,
    zero_page: 0,
};

/// Memory with a loop that counts RCX down and then writes a port.
fn loop_guest() -> io::Result<GuestMemory> {
    let size = 2 << 20;
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), size)]).map_err(io::Error::other)?;
    // dec rcx; jnz -5; out DONE_PORT, al; hlt
    let code = [0x48, 0xff, 0xc9, 0x75, 0xfb, 0xe6, DONE_PORT, 0xf4];
    memory
        .write_slice(&code, GuestAddress(CODE))
        .map_err(io::Error::other)?;
    boot::entry::write_tables(&memory, ENTRY).map_err(io::Error::other)?;
    Ok(memory)
}

/// Processor time of the calling thread: unlike the wall clock it does not depend on who else is
/// busy.
fn thread_time() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Ok(Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_kvm_only_when_it_is_fast() {
        //
        let auto =
            |report: KvmReport| decide(Request::Auto, || Box::leak(Box::new(report))).unwrap();
        assert_eq!(auto(KvmReport::Fast(3000.0)).backend, Backend::Kvm);
        let slow = auto(KvmReport::Emulating(1.5));
        assert_eq!((slow.backend, slow.fell_back), (Backend::Soft, true));
        assert_eq!(
            slow.reason,
            "KVM only emulates: 1.5 M instr/s, below the threshold of 50"
        );
        assert_eq!(
            auto(KvmReport::Unusable("no".into())).backend,
            Backend::Soft
        );
    }

    #[test]
    fn kvm_by_name_is_kvm_or_an_error_with_the_step() {
        //
        let slow = decide(Request::Kvm, || &KvmReport::Emulating(1.5)).unwrap();
        assert_eq!((slow.backend, slow.fell_back), (Backend::Kvm, false));
        let report = KvmReport::Unusable("backend kvm: opening /dev/kvm failed: not found".into());
        let error = decide(Request::Kvm, || &report).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--vmm kvm: KVM is unusable: backend kvm: opening /dev/kvm failed: not found"
        );
    }

    #[test]
    fn soft_by_name_does_not_probe() {
        //
        let choice = decide(Request::Soft, || panic!("probed")).unwrap();
        assert_eq!(choice.backend, Backend::Soft);
    }

    #[test]
    fn the_probe_answers_on_any_host() {
        //
        println!("{}", kvm());
        assert!(std::ptr::eq(kvm(), kvm()), "probed once per process");
    }

    #[test]
    fn requests_parse() {
        //
        assert_eq!("kvm".parse(), Ok(Request::Kvm));
        let error = "qemu".parse::<Request>().unwrap_err();
        assert_eq!(error, "unknown backend `qemu` (valid: auto, kvm, soft)");
    }
}
