//! What the kernel program takes for a transition, for who shows it while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::kernel::load::RunTime;

/// A number is not shown for longer than this many notes in which nothing was counted.
const STALE: u64 = 60;

/// Time for a transition of late. It is known only while the kernel counts it, which somebody else
/// decides (`kernel.bpf_stats_enabled`): counting has a cost of its own.
#[derive(Debug, Default)]
pub struct Meter {
    /// As read last.
    time: AtomicU64,
    transitions: AtomicU64,
    /// Of the last note in which something was counted; 0 if there is none,
    each: AtomicU64,
    /// and how many there were since.
    silent: AtomicU64,
}

impl Meter {
    /// Nanoseconds; `None` if it is not known.
    pub fn each(&self) -> Option<u64> {
        Some(self.each.load(Relaxed)).filter(|&each| each > 0)
    }

    /// Takes in what was used so far; to be called once a second.
    pub(super) fn note(&self, so_far: Option<RunTime>) {
        let so_far = so_far.unwrap_or_default();
        let before = self.transitions.swap(so_far.transitions, Relaxed);
        let time_before = self.time.swap(so_far.time.0, Relaxed);
        let transitions = so_far.transitions.saturating_sub(before);
        if let Some(each) = so_far.time.0.saturating_sub(time_before).checked_div(transitions) {
            self.each.store(each, Relaxed);
            self.silent.store(0, Relaxed);
        } else if self.silent.fetch_add(1, Relaxed) >= STALE {
            self.each.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Nanos;

    #[test]
    fn it_tells_what_was_counted_of_late() {
        let used = |ns, transitions| Some(RunTime { time: Nanos(ns), transitions });
        let meter = Meter::default();
        assert_eq!(meter.each(), None);
        meter.note(used(0, 0));
        assert_eq!(meter.each(), None);
        meter.note(used(2720, 10));
        assert_eq!(meter.each(), Some(272));
        meter.note(used(2720, 10));
        assert_eq!(meter.each(), Some(272), "nothing happened");
        (0..=STALE).for_each(|_| meter.note(used(2720, 10)));
        assert_eq!(meter.each(), None, "nobody counts any more");
        meter.note(None);
        assert_eq!(meter.each(), None);
    }
}
