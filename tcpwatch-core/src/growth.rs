//! Whether a group of findings becomes more, and when that uses up what its process may have.
//!
//! A steady pool has about as many at the end of a while as at its beginning; what comes and goes by
//! chance must be exceeded by far before it is called growth.

use std::collections::VecDeque;

use super::{
    process::ProcessFacts,
    time::{Nanos, Timestamp},
};

/// How fast a group has grown, and over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// More at the end than at the beginning.
    pub gained: u64,
    /// Of this time.
    pub over: Nanos,
}

impl Growth {
    /// Thousandths of a socket per minute.
    pub fn milli_per_minute(self) -> u64 {
        const MINUTE: u128 = 60 * 1_000_000_000 * 1000;
        let rate = u128::from(self.gained) * MINUTE / u128::from(self.over.0.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// When a process has used up its descriptors: its open ones and its limit as of the last look, and
/// what it gains per minute, in thousandths.
pub fn reaches_limit_in(facts: &ProcessFacts, milli_per_minute: u64) -> Option<Nanos> {
    let left = facts.fd_limit?.checked_sub(facts.fds?)?;
    let milli_minutes = u128::from(left) * 1_000_000 / u128::from(milli_per_minute.max(1));
    Some(Nanos(u64::try_from(milli_minutes * 60_000_000).unwrap_or(u64::MAX)))
}

/// How many were open at a moment, and how many had come by then.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    count: usize,
    come: usize,
}

/// How many there were, and when.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// How many have come in all.
    come: usize,
}

/// Growth is judged over the last of these times that shows it, or over all the time that the
/// group was watched,
const WINDOWS: [Nanos; 3] =
    [Nanos(60_000_000_000), Nanos(600_000_000_000), Nanos(3_600_000_000_000)];
/// and not before it was watched for this long.
const SHORTEST_WINDOW: Nanos = Nanos(10_000_000_000);
/// Samples are at least this far apart.
const SAMPLE_EVERY: Nanos = Nanos::SECOND;
/// Samples kept; beyond it every second one is forgotten.
const MOST_SAMPLES: usize = 1024;
/// In so many parts of the time
const PARTS: u64 = 6;
/// a group that grows has risen in at least so many: one burst is not growth.
const RISING_PARTS: usize = 4;
/// What is gained must be this many times what chance makes of as many comings and goings: their
/// square root.
const BEYOND_CHANCE: usize = 4;

impl History {
    /// Notes how many there are now, and how many of them have just come.
    pub fn note(&mut self, at: Timestamp, count: usize, come: usize) {
        self.come += come;
        let come = self.come;
        match self.samples.back_mut() {
            Some(last) if at.since(last.at) < SAMPLE_EVERY => {
                (last.count, last.come) = (count, come);
            }
            _ => self.samples.push_back(Sample { at, count, come }),
        }
        let longest = WINDOWS[WINDOWS.len() - 1];
        while self.samples.len() > 2 && at.since(self.samples[1].at) > longest {
            self.samples.pop_front();
        }
        if self.samples.len() > MOST_SAMPLES {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// How fast it grows now; `None` if it does not, or has not been watched for long enough.
    pub fn growth(&self, now: Timestamp) -> Option<Growth> {
        let watched = now.since(self.samples.front()?.at);
        WINDOWS
            .into_iter()
            .filter(|&window| window < watched)
            .chain([watched])
            .find_map(|window| self.growth_over(window, now))
    }

    /// How it was at a moment.
    fn at(&self, at: Timestamp) -> Sample {
        let after = self.samples.partition_point(|sample| sample.at <= at);
        let before = after.checked_sub(1).map(|index| self.samples[index]);
        before.unwrap_or(Sample { at, count: 0, come: 0 })
    }

    fn growth_over(&self, over: Nanos, now: Timestamp) -> Option<Growth> {
        if over < SHORTEST_WINDOW {
            return None;
        }
        let samples: Vec<Sample> =
            (0..=PARTS).map(|part| self.at(now - Nanos(over.0 / PARTS * (PARTS - part)))).collect();
        let parts = || samples.windows(2).map(|pair| (pair[0], pair[1]));
        let rising = parts().filter(|(before, after)| before.count < after.count).count();
        // The part that gained most is left out: a burst must not pass for growth, nor what was
        // there before anybody looked.
        let (before, after) =
            parts().max_by_key(|(before, after)| after.count.saturating_sub(before.count))?;
        let (first, last) = (samples.first()?, samples.last()?);
        let gained = (last.count + before.count).checked_sub(first.count + after.count)?;
        let come = (last.come - first.come) - (after.come - before.come);
        let gone = come.checked_sub(gained)?;
        // Both sides are those of the whole time, as the parts that are left tell.
        let whole = |number: usize| number * (samples.len() - 1) / (samples.len() - 2);
        let beyond_chance =
            whole(gained).pow(2) > BEYOND_CHANCE * BEYOND_CHANCE * whole(come + gone);
        let over = Nanos(over.0 / PARTS * (PARTS - 1));
        (rising >= RISING_PARTS && beyond_chance)
            .then(|| Growth { gained: u64::try_from(gained).unwrap_or(u64::MAX), over })
    }
}
