//! How durations are spread, in steps that people count in.

use super::durations::Durations;
use crate::{core::time::Nanos, report::model};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Where each step begins: about a third of a power of ten apart.
const STEPS: [u64; 35] = [
    0,
    US,
    2 * US,
    5 * US,
    10 * US,
    20 * US,
    50 * US,
    100 * US,
    200 * US,
    500 * US,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    7 * DAY,
];

/// Durations of many groups.
#[derive(Debug)]
pub(super) struct Spread {
    all: Durations,
    counts: [u64; STEPS.len()],
}

impl Spread {
    /// Of groups whose durations these are.
    pub(super) fn of<'a>(groups: impl Iterator<Item = &'a Durations>) -> Self {
        let mut spread = Self { all: Durations::default(), counts: [0; STEPS.len()] };
        for group in groups {
            spread.all.absorb(group);
            for (ns, count) in group.counts() {
                spread.counts[step(ns)] += count;
            }
        }
        spread
    }

    /// What they amount to, beside those that are not over, if those are known.
    pub(super) fn report(&self, still: Option<impl Iterator<Item = Nanos>>) -> model::Spread {
        let still = still.map(|spans| {
            let mut counts = [0; STEPS.len()];
            spans.for_each(|span| counts[step(span.0)] += 1);
            counts
        });
        let step_of = |number: usize| model::Step {
            from_ns: STEPS[number],
            to_ns: STEPS.get(number + 1).copied(),
            count: self.counts[number],
            still: still.map(|counts| counts[number]),
        };
        let mut steps: Vec<_> = (0..STEPS.len()).map(step_of).collect();
        let is_used = |step: &model::Step| step.count > 0 || step.still > Some(0);
        steps.truncate(steps.iter().rposition(is_used).map_or(0, |last| last + 1));
        steps.drain(..steps.iter().position(is_used).unwrap_or(0));
        model::Spread { all: self.all.report(), steps }
    }
}

/// The number of the step that a duration is in.
fn step(ns: u64) -> usize {
    STEPS.partition_point(|&begins| begins <= ns).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_one_step() {
        let mut group = Durations::default();
        for ns in [0, 999, 3_000, 1_999_999_999, 2_000_000_000, u64::MAX] {
            group.add(Nanos(ns));
        }
        let spread = Spread::of([&group].into_iter());
        let report = spread.report(Some([Nanos(7 * SECOND)].into_iter()));
        assert_eq!(report.steps.iter().map(|step| step.count).sum::<u64>(), 6);
        assert_eq!(report.steps.iter().filter_map(|step| step.still).sum::<u64>(), 1);
        let at = |from| report.steps.iter().find(|step| step.from_ns == from).unwrap();
        assert_eq!((at(0).count, at(2 * US).count, at(5 * SECOND).still), (2, 1, Some(1)));
        assert_eq!((at(SECOND).count, at(2 * SECOND).count), (1, 1));
        assert_eq!(report.steps.last().unwrap().to_ns, None);
    }

    #[test]
    fn many_are_counted_as_few() {
        let mut group = Durations::default();
        (0..10_000).for_each(|_| group.add(Nanos(3 * MS)));
        let report = Spread::of([&group].into_iter()).report(None::<std::iter::Empty<Nanos>>);
        let step = model::Step { from_ns: 2 * MS, to_ns: Some(5 * MS), count: 10_000, still: None };
        assert_eq!(report.steps, [step]);
    }
}
