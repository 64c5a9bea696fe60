//! What chance may make of two counts, or of two quantiles.

use super::Change;
use crate::report::model::Quantile;

/// Standard deviations between two counts that chance does not make.
const BEYOND_CHANCE: f64 = 4.0;
/// What A must have had at B's rate for nothing to be more than chance: one in a thousand.
const NEVER_NOTHING: f64 = 7.0;
/// Durations that differ by less than this are the same for all purposes.
const WORTH_TELLING: f64 = 1.1;

/// How often something was counted in a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) count: u64,
    ns: u64,
}

#[expect(clippy::cast_precision_loss, reason = "counts are compared with their square roots")]
impl Sample {
    pub(super) fn new(count: u64, ns: u64) -> Self {
        Self { count, ns: ns.max(1) }
    }

    pub(super) fn per_minute(self) -> f64 {
        self.count as f64 * 60e9 / self.ns as f64
    }

    /// What was to be expected of it in another's time.
    fn in_the_time_of(self, other: Self) -> f64 {
        self.count as f64 * other.ns as f64 / self.ns as f64
    }
}

/// Whether two counts differ by more than chance. Events are taken to be independent.
#[expect(clippy::cast_precision_loss, reason = "counts are compared with their square roots")]
pub(super) fn counts(a: Sample, b: Sample) -> Change {
    let (ta, tb) = (a.ns as f64, b.ns as f64);
    let (x, y) = (a.count as f64, b.count as f64);
    let difference = y / tb - x / ta;
    let deviation = (x / ta / ta + y / tb / tb).sqrt();
    match (a.count, b.count) {
        (0, 0) => Change::Same,
        (0, _) if b.in_the_time_of(a) >= NEVER_NOTHING => Change::More,
        (_, 0) if a.in_the_time_of(b) >= NEVER_NOTHING => Change::Less,
        (0, _) | (_, 0) => Change::Unclear,
        _ if difference >= BEYOND_CHANCE * deviation => Change::More,
        _ if difference <= -BEYOND_CHANCE * deviation => Change::Less,
        _ if doubling_shows(x.min(a.in_the_time_of(b))) => Change::Same,
        _ => Change::Unclear,
    }
}

/// Whether twice as many would be more than chance.
fn doubling_shows(count: f64) -> bool {
    count >= BEYOND_CHANCE * (3.0 * count).sqrt()
}

/// Whether two quantiles differ by more than chance, and by enough to matter.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
pub(super) fn durations(a: Quantile, b: Quantile) -> Change {
    let ratio = (b.ns.max(1) as f64) / (a.ns.max(1) as f64);
    let above = |low: Option<u64>, high: Option<u64>| low.zip(high).map(|(low, high)| low > high);
    match (above(b.low_ns, a.high_ns), above(a.low_ns, b.high_ns)) {
        (Some(true), _) if ratio >= WORTH_TELLING => Change::More,
        (_, Some(true)) if ratio <= 1.0 / WORTH_TELLING => Change::Less,
        (Some(_), Some(_)) => Change::Same,
        _ => Change::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn of(a: (u64, u64), b: (u64, u64)) -> Change {
        counts(Sample::new(a.0, a.1 * MINUTE), Sample::new(b.0, b.1 * MINUTE))
    }

    #[test]
    fn counts_differ_beyond_chance_or_not_at_all() {
        assert_eq!(of((100, 10), (1000, 100)), Change::Same, "ten per minute in both");
        assert_eq!(of((100, 10), (200, 10)), Change::More);
        assert_eq!(of((200, 10), (100, 10)), Change::Less);
        assert_eq!(of((100, 10), (120, 10)), Change::Same);
        assert_eq!(of((3, 10), (6, 10)), Change::Unclear, "three and six are both chance");
        assert_eq!(of((0, 10), (3, 10)), Change::Unclear);
        assert_eq!(of((0, 10), (8, 10)), Change::More);
        assert_eq!(of((0, 1), (8, 100)), Change::Unclear, "A was too short to see one");
        assert_eq!(of((8, 10), (0, 10)), Change::Less);
        assert_eq!(of((0, 10), (0, 10)), Change::Same);
    }

    #[test]
    fn durations_differ_when_their_ranks_cannot_have() {
        let quantile = |low, ns, high| Quantile { ns, low_ns: low, high_ns: high };
        let short = quantile(Some(90), 100, Some(110));
        let long = quantile(Some(190), 200, Some(210));
        let vague = quantile(None, 200, None);
        assert_eq!(durations(short, long), Change::More);
        assert_eq!(durations(long, short), Change::Less);
        assert_eq!(durations(short, short), Change::Same);
        assert_eq!(durations(short, vague), Change::Unclear);
        let hardly = quantile(Some(1040), 1050, Some(1060));
        let exact = quantile(Some(999), 1000, Some(1001));
        assert_eq!(durations(exact, hardly), Change::Same, "5 % are the same for all purposes");
    }
}
