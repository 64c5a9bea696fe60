//! What the agent itself uses, under the names that every Prometheus client library has.

use procfs::{
    WithCurrentSystemInfo as _,
    process::{LimitValue, Process},
};

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// When it was started, in seconds since 1970.
    pub started: f64,
    /// Descriptors in use.
    pub open_fds: u64,
    /// Descriptors that it may have; `None` if there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// Of this process; `None` where there is no `/proc`.
#[expect(clippy::cast_precision_loss, reason = "seconds")]
pub(super) fn usage() -> Option<Usage> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    let booted = procfs::boot_time_secs().ok()? as f64;
    let limit = process.limits().ok()?.max_open_files.soft_limit;
    Some(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        started: booted + stat.starttime as f64 / ticks,
        open_fds: process.fd_count().ok()?.try_into().ok()?,
        max_fds: match limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        },
        threads: u64::try_from(stat.num_threads).ok()?,
    })
}
