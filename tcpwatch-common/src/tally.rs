//! The `TALLY` map: counts that the kernel program keeps, so that they need no records.
//!
//! One value for each CPU, all of it `u64`: how often each pair of states was seen, then the
//! histograms. It is read in one call.

/// Pairs of states: `old << 4 | new`.
pub const PAIRS: usize = 256;

/// Buckets of a histogram. Bucket `b` has what took more than `2^(b - 1)` and at most `2^b` units
/// of `2^-20` s, so that boundaries are powers of two of a second; the last has all that took longer.
pub const BUCKETS: usize = 40;

/// Units of time in a second.
pub const UNITS_PER_SECOND_LOG2: u32 = 20;

/// Slots of a histogram: its buckets, then the sum in ns.
pub const HISTOGRAM_LEN: usize = BUCKETS + 1;

/// Where each histogram begins.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histogram {
    /// Time in `CLOSE_WAIT`, of those that left it.
    CloseWait = PAIRS,
    /// From birth to the end of what was a connection.
    Lifetime = PAIRS + HISTOGRAM_LEN,
}

/// Slots in all.
pub const TALLY_LEN: usize = PAIRS + 2 * HISTOGRAM_LEN;

/// The slot of a pair of states.
#[inline]
pub fn pair(old: u32, new: u32) -> usize {
    ((old & 15) << 4 | new & 15) as usize
}

/// The bucket of a span. Longer ones than 52 days are in the last.
#[inline]
pub fn bucket(span_ns: u64) -> usize {
    const LONGEST: u64 = 1 << 52;
    let span = if span_ns < LONGEST { span_ns } else { LONGEST };
    // 2^20 / 10^9 = 2^11 / 5^9, rounded up.
    let units = (span << 11).div_ceil(1_953_125);
    let bucket = log2_rounded_up(units);
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The lowest `n` with `value <= 2^n`. Steps instead of `leading_zeros`, for which the target has no
/// instruction; each is arithmetic and no branch, which keeps the verifier's work small.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is at most 64")]
fn log2_rounded_up(value: u64) -> usize {
    let mut rest = value.saturating_sub(1);
    let mut log = 0;
    let mut step = 32;
    while step > 0 {
        let shift = u64::from(rest >> step != 0) * step;
        rest >>= shift;
        log += shift;
        step /= 2;
    }
    (log + rest) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_with_its_boundary() {
        const SECOND: u64 = 1_000_000_000;
        let upper = |bucket: usize| ((1u128 << bucket) * u128::from(SECOND)) >> 20;
        for bucket_number in 1..BUCKETS - 1 {
            let end = u64::try_from(upper(bucket_number)).unwrap();
            assert_eq!(bucket(end), bucket_number, "{end} ns");
            assert_eq!(bucket(end + 1), bucket_number + 1, "{} ns", end + 1);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(SECOND), UNITS_PER_SECOND_LOG2 as usize);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn pairs_and_histograms_do_not_meet() {
        assert_eq!(pair(u32::MAX, u32::MAX), PAIRS - 1);
        assert_eq!(Histogram::Lifetime as usize + HISTOGRAM_LEN, TALLY_LEN);
    }
}
