//! How much of the host a run may use: the pool that `--mem`, `--cpus` and `--cpu-overcommit`
//! mean (cli-and-config R-022..R-024, R-107).

use std::path::{Path, PathBuf};

use provium_lab::Pool;
use provium_lab::pool::FILE_OVERHEAD;
use provium_protocol::Amount;

use crate::args::PoolArgs;
use crate::problem::Problem;

/// Share of the host's memory that a run may use, in percent.
const MEMORY_SHARE: u64 = 80;

/// Limits of `--cpu-overcommit`.
const OVERCOMMIT: std::ops::RangeInclusive<f64> = 0.5..=8.0;

/// The pool that the flags mean on this machine.
pub(crate) fn pool(args: &PoolArgs) -> Result<Pool, Problem> {
    let memory_bytes = match args.mem {
        Some(bytes) if bytes < FILE_OVERHEAD => {
            let least = FILE_OVERHEAD >> 20;
            let text =
                format!("--mem: {bytes} bytes are less than the {least} MiB that a file needs");
            return Err(Problem::Usage(text));
        }
        Some(bytes) => bytes,
        None => (host_memory() / 100 * MEMORY_SHARE).max(FILE_OVERHEAD),
    };
    let cpus = overcommitted(args.cpus.unwrap_or_else(online_cpus), args.cpu_overcommit);
    Ok(Pool::new(Amount { memory_bytes, cpus }))
}

/// `-j` of a run whose pool has so many CPUs.
#[must_use]
pub(crate) fn default_jobs(pool: &Pool) -> usize {
    usize::try_from(pool.total().cpus).map_or(2, |cpus| cpus.max(2))
}

/// Memory that stays the host's own.
const RESERVE: u64 = 3 << 29;

/// What the host can spare now: what is available, less 1.5 GiB that stay its own.
#[must_use]
pub(crate) fn spare_memory() -> u64 {
    let available = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo(&text, "MemAvailable:"));
    available.unwrap_or(0).saturating_sub(RESERVE)
}

fn online_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1))
}

/// CPUs times overcommit, rounded down, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0.5 and 8 times a number of CPUs; `as` saturates"
)]
fn overcommitted(cpus: u32, factor: f64) -> u32 {
    let factor = factor.clamp(*OVERCOMMIT.start(), *OVERCOMMIT.end());
    ((f64::from(cpus) * factor) as u32).max(1)
}

/// Memory of the host, or of the control group around this process if that is less.
fn host_memory() -> u64 {
    let host = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo(&text, "MemTotal:"));
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    // A host that does not say how much memory it has is taken for a small one.
    host.into_iter().chain(group).min().unwrap_or(1 << 30)
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest memory limit of the group and all above it.
fn group_limit(groups: &str, mount: &Path) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (base, file) = match controllers {
            "" => (mount.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group: PathBuf = base.join(path.trim_start_matches('/'));
        let chain = group.ancestors().take_while(|dir| dir.starts_with(&base));
        let texts = chain.filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok());
        // `max` is no number, and no limit.
        limits.extend(texts.filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r107_cpus_are_rounded_down_and_never_none() {
        assert_eq!(overcommitted(3, 1.5), 4);
        assert_eq!(overcommitted(1, 0.5), 1);
        assert_eq!(overcommitted(2, 100.0), 16);
        assert_eq!(overcommitted(4, 0.0), 2);
    }

    #[test]
    fn r022_the_hosts_memory_is_read() {
        assert_eq!(
            meminfo("MemTotal:       24000000 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Some(24_576_000_000)
        );
        assert_eq!(meminfo("nothing", "MemTotal:"), None);
    }

    #[test]
    fn r022_the_lowest_group_limit_counts() {
        let mount = tempfile::tempdir().unwrap();
        let inner = mount.path().join("outer/inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit("0::/outer/inner\n", mount.path()), None);
        std::fs::write(mount.path().join("outer/memory.max"), "1000000\n").unwrap();
        assert_eq!(
            group_limit("0::/outer/inner\n", mount.path()),
            Some(1_000_000)
        );
        let old = mount.path().join("memory/a");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("memory.limit_in_bytes"), "500\n").unwrap();
        let groups = "4:cpu,memory:/a\n2:pids:/b\n0::/outer/inner\n";
        assert_eq!(group_limit(groups, mount.path()), Some(500));
    }
}
