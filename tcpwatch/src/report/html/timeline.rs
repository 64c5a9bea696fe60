//! The time line as a page draws it: a list for each count, and changes where there are few.

use serde::Serialize;

use super::data::Micros;
use crate::{
    core::time::Timestamp,
    report::model::{Bucket, Report},
};

/// Counts, one for each bucket.
#[derive(Serialize)]
pub(super) struct Timeline {
    /// When the first bucket begins,
    first: Micros,
    /// and how wide each is, µs.
    width: f64,
    buckets: usize,
    opened: Vec<u64>,
    closed: Vec<u64>,
    /// The most in this state at once.
    close_wait: Changes,
    established: Changes,
    /// Numbers of sockets are what was seen.
    uncertain: bool,
    /// Buckets in which something was lost: their numbers, and how much; 0 is not known.
    gaps: Vec<(usize, u64)>,
}

/// A count that seldom changes: the bucket, and the count from there on. It begins with 0.
#[derive(Serialize)]
pub(super) struct Changes(Vec<(usize, u64)>);

impl Changes {
    /// Of these counts.
    pub(super) fn of(counts: impl Iterator<Item = u64>) -> Self {
        let mut changes = Vec::new();
        let mut last = 0;
        for (number, count) in counts.enumerate() {
            if count != last {
                changes.push((number, count));
                last = count;
            }
        }
        Self(changes)
    }
}

impl Timeline {
    #[expect(clippy::cast_precision_loss, reason = "a width of at most some days")]
    pub(super) fn new(report: &Report) -> Self {
        let line = &report.timeline;
        let of = |count: fn(&Bucket) -> u64| line.buckets.iter().map(count);
        let first = line.buckets.first().map_or(report.from_mono_ns, |bucket| bucket.mono_ns);
        Self {
            first: Micros::since(report.from_mono_ns, Timestamp(first)),
            width: line.width_ns as f64 / 1000.0,
            buckets: line.buckets.len(),
            opened: of(|bucket| bucket.opened).collect(),
            closed: of(|bucket| bucket.closed).collect(),
            close_wait: Changes::of(of(|bucket| bucket.close_wait_max)),
            established: Changes::of(of(|bucket| bucket.established_max)),
            uncertain: line.states_uncertain,
            gaps: line
                .buckets
                .iter()
                .enumerate()
                .filter(|(_, bucket)| bucket.gaps > 0)
                .map(|(number, bucket)| (number, bucket.lost))
                .collect(),
        }
    }
}

/// Where wall time differs from the time that has passed: from this moment on, by so many µs. The
/// clock was set, or the machine slept.
pub(super) fn clock(report: &Report) -> Vec<(Micros, i64)> {
    let mut clock: Vec<(Micros, i64)> = Vec::new();
    for bucket in &report.timeline.buckets {
        let at = Micros::since(report.from_mono_ns, Timestamp(bucket.mono_ns));
        let wall = i64::try_from(bucket.ts.0 / 1000).unwrap_or(i64::MAX);
        let begin = i64::try_from(report.from.0 / 1000).unwrap_or(i64::MAX);
        let ahead = wall.saturating_sub(begin).saturating_sub(at.0);
        if clock.last().map_or(ahead != 0, |&(_, last)| last != ahead) {
            clock.push((at, ahead));
        }
    }
    clock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_where_a_count_is_another() {
        assert_eq!(Changes::of([0, 0, 3, 3, 0].into_iter()).0, [(2, 3), (4, 0)]);
        assert_eq!(Changes::of([1, 1].into_iter()).0, [(0, 1)]);
    }
}
