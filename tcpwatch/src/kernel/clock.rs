//! The only place that reads clocks.

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use crate::core::time::{ClockMark, Nanos, Timestamp};

const NS: u64 = 1_000_000_000;
/// The three clocks are read this many times; the reading that took the least time is kept.
const TRIES: u32 = 3;

fn read(clock: ClockId) -> u64 {
    nanos(clock_gettime(clock))
}

fn nanos(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * NS + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// How long a jiffy is. That is how coarse the coarse clocks are (`kernel/time/posix-timers.c`:
/// `posix_get_coarse_res`); nothing else tells it to a program without privilege.
pub fn jiffy() -> Nanos {
    Nanos(nanos(clock_getres(ClockId::MonotonicCoarse)))
}

/// `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` reads it.
pub fn now() -> Timestamp {
    Timestamp(read(ClockId::Monotonic))
}

/// Whether this is a time namespace whose clocks are not the kernel's own (`time_namespaces(7)`).
pub fn is_shifted() -> bool {
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    offsets.lines().any(|line| line.split_whitespace().skip(1).any(|number| number != "0"))
}

/// CPU time that this thread has used.
pub fn used() -> Nanos {
    Nanos(read(ClockId::ThreadCPUTime))
}

/// CPU time that this process has used, in all its threads.
pub fn used_by_process() -> Nanos {
    Nanos(read(ClockId::ProcessCPUTime))
}

/// All three clocks, as close together as they can be read.
pub fn mark() -> ClockMark {
    let mut best = ClockMark::default();
    let mut narrowest = u64::MAX;
    for _ in 0..TRIES {
        let before = read(ClockId::Monotonic);
        let real_ns = read(ClockId::Realtime);
        let boot = read(ClockId::Boottime);
        let after = read(ClockId::Monotonic);
        if after - before < narrowest {
            narrowest = after - before;
            let mono = Timestamp(before + (after - before) / 2);
            best = ClockMark { mono, boot: Timestamp(boot), real_ns };
        }
    }
    best
}
