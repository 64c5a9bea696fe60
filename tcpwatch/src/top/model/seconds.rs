//! What happened in the last minutes, by the second.

use std::collections::VecDeque;

use crate::core::time::{Nanos, Timestamp};

/// Seconds that are kept.
const KEPT: u64 = 600;
/// Over how many seconds a rate is taken, so that it can be read.
const CALM: u64 = 5;
/// A number stands until the next comes, but no longer than this: a pass may take that long.
const STANDS: u64 = 15;

/// A number for each second that has one.
#[derive(Clone, Debug, Default)]
pub struct Seconds {
    samples: VecDeque<(u64, u64)>,
}

fn second(at: Timestamp) -> u64 {
    at.0 / Nanos::SECOND.0
}

impl Seconds {
    /// Adds to the number of a second. What comes late counts for the latest.
    pub fn add(&mut self, at: Timestamp, number: u64) {
        *self.of(at) += number;
    }

    /// Sets the number of a second to the most that it was.
    pub fn at_most(&mut self, at: Timestamp, number: u64) {
        let slot = self.of(at);
        *slot = number.max(*slot);
    }

    fn of(&mut self, at: Timestamp) -> &mut u64 {
        let second = second(at);
        if self.samples.back().is_none_or(|&(last, _)| last < second) {
            self.samples.push_back((second, 0));
            while self.samples.front().is_some_and(|&(first, _)| first + KEPT < second) {
                self.samples.pop_front();
            }
        }
        let last = self.samples.len() - 1;
        &mut self.samples[last].1
    }

    /// Per second, over the last seconds that are complete; `None` before there is one.
    pub fn rate(&self, now: Timestamp, begun: Timestamp) -> Option<u64> {
        let now = second(now);
        let span = CALM.min(now.checked_sub(second(begun))?);
        let recent = self.samples.iter().rev().take_while(|&&(at, _)| at + span >= now);
        let sum: u64 = recent.filter(|&&(at, _)| at < now).map(|&(_, number)| number).sum();
        (span > 0).then(|| sum.div_ceil(span))
    }

    /// The last `span` seconds in so many columns, the most of each; `None` where nothing is known. The
    /// borders of columns do not move with time, so that what is drawn does not flicker.
    pub fn columns(&self, now: Timestamp, span: u64, columns: usize) -> Vec<Option<u64>> {
        let count = columns.max(1) as u64;
        let width = span.div_ceil(count).max(1);
        let last = second(now) / width;
        let mut all = vec![None; columns];
        let mut note = |column: u64, number: u64| {
            let ago = last.checked_sub(column).and_then(|ago| usize::try_from(ago).ok());
            let place = ago.and_then(|ago| columns.checked_sub(ago + 1));
            if let Some(slot) = place.and_then(|place| all.get_mut(place)) {
                *slot = Some(slot.map_or(number, |known: u64| known.max(number)));
            }
        };
        let mut before: Option<(u64, u64)> = None;
        for &(at, number) in &self.samples {
            if let Some((then, stood)) = before.filter(|&(then, _)| at - then <= STANDS) {
                (then / width + 1..at / width).for_each(|column| note(column, stood));
            }
            note(at / width, number);
            before = Some((at, number));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn a_rate_is_of_the_last_whole_seconds() {
        let mut seconds = Seconds::default();
        assert_eq!(seconds.rate(at(900), at(0)), None);
        for ms in 0..8000 {
            seconds.add(at(ms), 3);
        }
        assert_eq!(seconds.rate(at(1500), at(0)), Some(3000));
        assert_eq!(seconds.rate(at(7999), at(0)), Some(3000));
        assert_eq!(seconds.rate(at(60_000), at(0)), Some(0));
    }

    #[test]
    fn columns_hold_the_most_and_tell_what_is_not_known_from_none() {
        let mut seconds = Seconds::default();
        for (ms, number) in [(10_000, 4), (11_000, 9), (12_500, 2), (12_900, 1), (19_000, 0)] {
            seconds.at_most(at(ms), number);
        }
        // From 12 on it stands until the next.
        assert_eq!(
            seconds.columns(at(19_500), 10, 5),
            [Some(9), Some(2), Some(2), Some(2), Some(0)]
        );
        seconds.at_most(at(40_000), 7);
        assert_eq!(seconds.columns(at(40_500), 40, 4), [Some(9), None, None, Some(7)]);
        assert_eq!(seconds.columns(at(19_500), 10, 0), []);
    }

    #[test]
    fn what_comes_late_counts_for_the_latest_and_the_past_is_forgotten() {
        let mut seconds = Seconds::default();
        seconds.add(at(5000), 1);
        seconds.add(at(4999), 1);
        assert_eq!(seconds.samples, [(5, 2)]);
        seconds.add(at(1_000_000), 1);
        assert_eq!(seconds.samples, [(1000, 1)]);
    }
}
