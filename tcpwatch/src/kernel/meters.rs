//! What the kernel program counts, and what it costs: numbers that anybody may read at any time,
//! from any thread, while the run goes on.

use std::{fs, os::fd::AsRawFd as _, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use tcpwatch_common::tally::{
    BUCKETS, HISTOGRAM_LEN, Histogram, TALLY_LEN, UNITS_PER_SECOND_LOG2, pair,
};

use crate::core::state::State;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Reads what the kernel program counts.
pub struct Meters {
    tally: PerCpuArray<MapData, [u64; TALLY_LEN]>,
    programs: Vec<(&'static str, OwnedFd)>,
}

/// What was counted so far, on all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; TALLY_LEN]);

/// How long something took, each time.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Upper ends in seconds, and how many took no longer than that and longer than the one before;
    /// the last end is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// All together, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

/// What a program has cost, as the kernel measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The program.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// How long, in all.
    pub ns: u64,
}

impl Meters {
    pub(super) fn new(
        tally: PerCpuArray<MapData, [u64; TALLY_LEN]>,
        programs: Vec<(&'static str, OwnedFd)>,
    ) -> Self {
        Self { tally, programs }
    }

    /// All counts.
    pub fn tally(&self) -> Result<Tally> {
        let of_cpus = self.tally.get(&0, 0).context("read what the kernel program counted")?;
        let mut sum = [0_u64; TALLY_LEN];
        for of_cpu in of_cpus.iter() {
            for (sum, count) in sum.iter_mut().zip(of_cpu) {
                *sum = sum.wrapping_add(*count);
            }
        }
        Ok(Tally(sum))
    }

    /// What each program has cost; nothing unless `kernel.bpf_stats_enabled` has the kernel measure it.
    pub fn costs(&self) -> Vec<Cost> {
        let measured = fs::read_to_string(STATS).is_ok_and(|text| text.trim() == "1");
        let programs = self.programs.iter().filter(|_| measured);
        programs.filter_map(|(name, fd)| cost(name, fd.as_raw_fd())).collect()
    }
}

fn cost(program: &'static str, fd: i32) -> Option<Cost> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    };
    Some(Cost { program, runs: field("run_cnt:")?, ns: field("run_time_ns:")? })
}

impl Default for Tally {
    fn default() -> Self {
        Self([0; TALLY_LEN])
    }
}

impl Tally {
    /// Transitions from each state to each other; those that never happened are left out.
    pub fn transitions(&self) -> impl Iterator<Item = (State, State, u64)> {
        let pairs = State::ALL.into_iter().flat_map(|old| State::ALL.map(|new| (old, new)));
        pairs
            .map(|(old, new)| (old, new, self.0[pair(old.number().into(), new.number().into())]))
            .filter(|&(_, _, count)| count > 0)
    }

    /// A histogram, in seconds. Its finest buckets are too fine to be told apart by anybody, and are
    /// taken together.
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    pub fn spread(&self, histogram: Histogram) -> Spread {
        const FINEST: usize = 6; // 61 us
        const COARSEST: usize = 37; // 36 h
        let slots = &self.0[histogram as usize..][..HISTOGRAM_LEN];
        let units = f64::from(1 << UNITS_PER_SECOND_LOG2);
        let mut buckets = vec![(0.0, 0)];
        for (number, &count) in slots[..BUCKETS].iter().enumerate() {
            if number > FINEST && number <= COARSEST + 1 {
                buckets.push((0.0, 0));
            }
            let Some(last) = buckets.last_mut() else { continue };
            let end = (number as f64).exp2() / units;
            *last = (if number > COARSEST { f64::INFINITY } else { end }, last.1 + count);
        }
        let count = slots[..BUCKETS].iter().sum();
        Spread { buckets, sum: slots[BUCKETS] as f64 / 1e9, count }
    }

    /// The counts in the order of the map, for tests.
    pub fn from_slots(slots: [u64; TALLY_LEN]) -> Self {
        Self(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_in_seconds() {
        let mut slots = [0; TALLY_LEN];
        let first = Histogram::CloseWait as usize;
        (slots[first], slots[first + 6], slots[first + 7]) = (1, 2, 3);
        (slots[first + 20], slots[first + 39]) = (4, 5);
        slots[first + BUCKETS] = 2_500_000_000;
        let spread = Tally(slots).spread(Histogram::CloseWait);
        assert!((spread.sum - 2.5).abs() < 1e-9);
        assert_eq!(spread.count, 15);
        let find = |end: f64| spread.buckets.iter().find(|b| (b.0 - end).abs() < 1e-9).unwrap().1;
        assert_eq!(find(1.0 / 16384.0), 3, "what is finer is in it");
        assert_eq!(find(1.0 / 8192.0), 3);
        assert_eq!(find(1.0), 4);
        assert_eq!(spread.buckets.last(), Some(&(f64::INFINITY, 5)));
        assert!(spread.buckets.is_sorted_by(|a, b| a.0 < b.0));
    }
}
