//! Durations of many connections in little memory.
//!
//! Most groups are small, so a histogram is made only of those that are not. It is filled in
//! batches: with thousands of groups none is in the cache when it is needed, and one visit for
//! many values costs what one visit for one does.

use hdrhistogram::Histogram;

use crate::{
    core::time::Nanos,
    report::model::{self, Quantile},
};

/// Values kept as they are, until there are more.
const FEW: usize = 64;
/// The histogram counts µs, up to about twelve days, to two digits.
const LONGEST_US: u64 = 1 << 40;
const DIGITS: u8 = 2;
/// Standard deviations of a rank that chance does not exceed,
const BEYOND_CHANCE: f64 = 3.0;
/// if there are enough for ranks to have a deviation: 101 for the 99th of 100, 4 for the median.
const SMALLEST_VARIANCE: f64 = 0.99;

/// Counts durations.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations {
    max: Nanos,
    /// Those that are not in the histogram, µs.
    recent: Vec<u64>,
    histogram: Option<Box<Histogram<u32>>>,
}

impl Durations {
    /// Counts one.
    pub(super) fn add(&mut self, span: Nanos) {
        self.max = self.max.max(span);
        self.add_us((span.0 / 1000).min(LONGEST_US));
    }

    fn add_us(&mut self, us: u64) {
        if self.recent.len() >= FEW {
            self.count_recent();
        }
        self.recent.push(us);
    }

    /// Moves them to the histogram. It grows by itself, and two digits are valid, so none is
    /// refused.
    fn count_recent(&mut self) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(DIGITS).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.histogram {
            for us in self.recent.drain(..) {
                let _ = histogram.record(us);
            }
        }
    }

    /// Adds those of another.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.max = self.max.max(other.max);
        match (&mut self.histogram, &other.histogram) {
            (Some(ours), Some(theirs)) => {
                let _ = ours.add(&**theirs);
            }
            (ours, Some(theirs)) => *ours = Some(theirs.clone()),
            (_, None) => {}
        }
        other.recent.iter().for_each(|&us| self.add_us(us));
    }

    /// Every value and how often it was counted, ns; what is in the histogram to 1 %.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let histogram = self.histogram.iter().flat_map(|histogram| {
            histogram.iter_recorded().map(|step| {
                let us = histogram.median_equivalent(step.value_iterated_to());
                (us, step.count_at_value().into())
            })
        });
        let counts = histogram.chain(self.recent.iter().map(|&us| (us, 1)));
        counts.map(|(us, count)| (us.saturating_mul(1000).min(self.max.0), count))
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len()) + self.recent.len() as u64
    }

    /// What they amount to; `None` if there are none.
    pub(super) fn report(&self) -> Option<model::Durations> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let mut all = self.clone();
        if all.histogram.is_some() {
            all.count_recent();
        } else {
            all.recent.sort_unstable();
        }
        let at_rank = |rank: u64| {
            let exact = || all.recent.get(usize::try_from(rank - 1).unwrap_or(0)).copied();
            let us = match &all.histogram {
                Some(histogram) => histogram.value_at_quantile(share(rank, count)),
                None => exact().unwrap_or(0),
            };
            // The longest is known to the nanosecond.
            us.saturating_mul(1000).min(self.max.0)
        };
        let quantile = |q: f64| {
            let (rank, low, high) = ranks(count, q);
            Quantile { ns: at_rank(rank), low_ns: low.map(at_rank), high_ns: high.map(at_rank) }
        };
        Some(model::Durations {
            count,
            p50: quantile(0.50),
            p90: quantile(0.90),
            p99: quantile(0.99),
            max_ns: self.max.0,
        })
    }
}

/// The rank of a quantile, and the ranks between which chance would put it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "ranks are between 1 and the count"
)]
fn ranks(count: u64, q: f64) -> (u64, Option<u64>, Option<u64>) {
    let n = count as f64;
    let rank = (n * q).ceil().clamp(1.0, n);
    let variance = n * q * (1.0 - q);
    let spread = BEYOND_CHANCE * variance.sqrt();
    let (low, high) = ((n * q - spread).floor(), (n * q + spread).ceil() + 1.0);
    let within = |rank: f64| {
        (variance >= SMALLEST_VARIANCE && rank >= 1.0 && rank <= n).then_some(rank as u64)
    };
    (rank as u64, within(low), within(high))
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(rank: u64, count: u64) -> f64 {
    // Half a rank lower, so that rounding does not lead to the next value.
    (rank as f64 - 0.5) / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = u64>) -> Durations {
        let mut durations = Durations::default();
        values.for_each(|ms| durations.add(Nanos(ms * 1_000_000)));
        durations
    }

    #[test]
    fn few_values_are_kept_as_they_are() {
        let report = of((1..=50).rev()).report().unwrap();
        assert_eq!((report.count, report.p50.ns, report.p99.ns), (50, 25_000_000, 50_000_000));
        assert_eq!(report.p99.high_ns, None, "of 50 nobody knows the 99th of 100");
        assert!(report.p50.low_ns.unwrap() < 25_000_000);
    }

    #[test]
    fn many_values_are_right_to_one_in_a_hundred() {
        let report = of(1..=100_000).report().unwrap();
        for (ns, want) in [(report.p50.ns, 50e9), (report.p90.ns, 90e9), (report.p99.ns, 99e9)] {
            #[expect(clippy::cast_precision_loss, reason = "a test")]
            let error = (ns as f64 / want - 1.0).abs();
            assert!(error <= 0.01, "{ns} is not {want}");
        }
        assert_eq!(report.max_ns, 100_000_000_000);
        assert!(report.p99.low_ns.unwrap() <= report.p99.ns);
        assert!(report.p99.high_ns.unwrap() >= report.p99.ns);
    }

    #[test]
    fn adding_two_loses_nothing() {
        for (a, b) in [(3, 5), (3, 5000), (5000, 3), (5000, 6000), (60, 60)] {
            let mut sum = of(1..=a);
            sum.absorb(&of(1..=b));
            assert_eq!(sum.count(), a + b);
            assert_eq!(sum.report().unwrap().max_ns, a.max(b) * 1_000_000);
        }
    }

    #[test]
    fn the_longest_span_there_is_is_counted() {
        let mut durations = Durations::default();
        (0..100).for_each(|_| durations.add(Nanos(u64::MAX)));
        assert_eq!(durations.report().unwrap().count, 100);
    }
}
