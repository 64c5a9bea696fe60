//! Time as inputs carry it.

use std::ops::{Add, Sub};

/// Nanoseconds of `CLOCK_MONOTONIC`. Thresholds and durations are computed on it, because it
/// stands still while the machine sleeps and never jumps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `self - earlier`, or zero if the two crossed.
    pub fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// `None` for the kernel's "unknown", 0.
    pub fn known(ns: u64) -> Option<Self> {
        (ns != 0).then_some(Self(ns))
    }
}

impl Add<Nanos> for Timestamp {
    type Output = Self;
    fn add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Nanos> for Timestamp {
    type Output = Self;
    fn sub(self, span: Nanos) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);

    /// In milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn milliseconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Twice as long, or the longest.
    #[must_use]
    pub fn doubled(self) -> Self {
        Self(self.0.saturating_mul(2))
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl std::fmt::Display for Nanos {
    /// Two units at most, the way a person says it: `850ms`, `30s`, `4m12s`, `2h05m`, `3d04h`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0 / 1_000_000;
        let (secs, mins, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
        match () {
            () if secs == 0 => write!(f, "{ms}ms"),
            () if secs < 10 && ms % 1000 >= 100 => write!(f, "{secs}.{}s", ms % 1000 / 100),
            () if mins == 0 => write!(f, "{secs}s"),
            () if hours == 0 => write!(f, "{mins}m{:02}s", secs % 60),
            () if days == 0 => write!(f, "{hours}h{:02}m", mins % 60),
            () => write!(f, "{days}d{:02}h", hours % 24),
        }
    }
}

/// The three clocks read together, so that a recording can be placed in wall time later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMark {
    /// `CLOCK_MONOTONIC`.
    pub mono: Timestamp,
    /// `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
    pub boot: Timestamp,
    /// `CLOCK_REALTIME`, ns since 1970.
    pub real_ns: u64,
}

impl ClockMark {
    /// Wall time of a moment, ns since 1970, as this mark places it.
    pub fn wall_ns(&self, at: Timestamp) -> u64 {
        if at >= self.mono {
            self.real_ns.saturating_add(at.0 - self.mono.0)
        } else {
            self.real_ns.saturating_sub(self.mono.0 - at.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_like_a_person_says_them() {
        let cases = [
            (0, "0ms"),
            (850_000_000, "850ms"),
            (1_000_000_000, "1s"),
            (2_340_000_000, "2.3s"),
            (30_000_000_000, "30s"),
            (252_000_000_000, "4m12s"),
            (7_500_000_000_000, "2h05m"),
            (273_600_000_000_000, "3d04h"),
        ];
        for (ns, text) in cases {
            assert_eq!(Nanos(ns).to_string(), text);
        }
    }

    #[test]
    fn wall_time_is_placed_on_both_sides_of_a_mark() {
        let mark = ClockMark { mono: Timestamp(1_000), boot: Timestamp(1_000), real_ns: 50_000 };
        assert_eq!(mark.wall_ns(Timestamp(1_500)), 50_500);
        assert_eq!(mark.wall_ns(Timestamp(400)), 49_400);
    }
}
