//! How often the command may run: a leak can make thousands of findings a minute.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::core::{
    culprits::Key,
    finding::Status,
    time::{Nanos, Timestamp},
};

/// So many may run at once before the rate limits them.
const BURST: u64 = 10;
/// Culprits that are remembered.
const MOST_CULPRITS: usize = 4096;

/// At most so many in a time, and at most one in a longer time for one culprit.
#[derive(Debug)]
pub(super) struct Limits {
    /// The time between two, at the limit.
    apart: Nanos,
    again: Nanos,
    /// When the last would have been if they had always been apart.
    paced: Timestamp,
    last: FxHashMap<(Key, &'static str), Timestamp>,
    held_back: u64,
}

impl Limits {
    pub(super) fn new(per_minute: u32, again: Duration) -> Self {
        Self {
            apart: Nanos(60 * Nanos::SECOND.0 / u64::from(per_minute.max(1))),
            again: again.into(),
            paced: Timestamp::default(),
            last: FxHashMap::default(),
            held_back: 0,
        }
    }

    /// How many were held back since the last that was not; `None` if this one is.
    pub(super) fn admit(&mut self, culprit: Key, status: Status, now: Timestamp) -> Option<u64> {
        let key = (culprit, status.word());
        let again = self.again;
        let recent = |last: Timestamp| now.since(last) < again;
        let told = self.last.get(&key).is_some_and(|&last| recent(last));
        let paced = self.paced.max(now);
        let too_many = paced.since(now).0 > self.apart.0.saturating_mul(BURST - 1);
        if told || too_many {
            self.held_back += 1;
            return None;
        }
        self.paced = paced + self.apart;
        if self.last.len() >= MOST_CULPRITS {
            self.last.retain(|_, last| recent(*last));
        }
        if self.last.len() >= MOST_CULPRITS
            && let Some((&oldest, _)) = self.last.iter().min_by_key(|(_, last)| **last)
        {
            self.last.remove(&oldest);
        }
        self.last.insert(key, now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        let end = ([10, 0, 0, 1], port).into();
        Key { owner: None, verdict: None, client: Some(true), end }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp(3_600 * Nanos::SECOND.0 + ms * 1_000_000)
    }

    const NEW: Status = Status::Open;

    #[test]
    fn one_culprit_is_told_once_in_a_while() {
        let mut limits = Limits::new(60, Duration::from_mins(10));
        assert_eq!(limits.admit(key(1), NEW, at(0)), Some(0));
        for ms in 1..100 {
            assert_eq!(limits.admit(key(1), NEW, at(ms)), None);
        }
        assert_eq!(limits.admit(key(2), NEW, at(100)), Some(99), "the next is told of the others");
        assert_eq!(limits.admit(key(1), Status::Ended, at(101)), Some(0), "its end is other news");
        assert_eq!(limits.admit(key(1), NEW, at(600_000)), Some(0));
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let mut limits = Limits::new(60, Duration::ZERO);
        let mut admitted = |ms| limits.admit(key(1), NEW, at(ms)).is_some();
        let first: Vec<_> = (0..100).filter(|&ms| admitted(ms)).collect();
        assert_eq!(first.len(), 10, "a burst");
        let later: Vec<_> = (100..10_000).filter(|&ms| admitted(ms)).collect();
        assert_eq!(later.len(), 9, "one a second: {later:?}");
        let after_a_rest: Vec<_> = (0..100).filter(|_| admitted(60_000)).collect();
        assert_eq!(after_a_rest.len(), 10, "and again");
    }

    #[test]
    fn culprits_without_end_take_bounded_memory() {
        let mut limits = Limits::new(60_000, Duration::from_hours(24));
        for port in 1..=20_000 {
            let now = at(u64::from(port) * 10);
            assert!(limits.admit(key(port), NEW, now).is_some());
            assert!(limits.last.len() <= MOST_CULPRITS);
        }
        assert!(limits.admit(key(20_000), NEW, at(200_001)).is_none(), "the latest is remembered");
    }
}
