//! How long things took.

use serde::Serialize;

/// Durations of many connections, accurate to 1 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// Half are shorter.
    pub p50: Quantile,
    /// One in ten is longer.
    pub p90: Quantile,
    /// One in a hundred is longer.
    pub p99: Quantile,
    /// The longest.
    pub max_ns: u64,
}

/// A quantile, and where it would be found if the same were recorded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantile {
    /// As measured.
    pub ns: u64,
    /// It is not lower by chance (three standard deviations of its rank); `null` if there are too
    /// few to say.
    pub low_ns: Option<u64>,
    /// It is not higher by chance.
    pub high_ns: Option<u64>,
}

/// How long all connections took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spreads {
    /// From birth to `CLOSE`, of those that were established and seen from birth.
    pub lifetime: Spread,
    /// Time in `CLOSE_WAIT`.
    pub close_wait: Spread,
}

/// How durations are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// All of them; `null` if there are none.
    pub all: Option<Durations>,
    /// From the shortest to the longest, in steps that grow with them.
    pub steps: Vec<Step>,
}

/// How many durations are of about one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Not shorter than this,
    pub from_ns: u64,
    /// and shorter than this; `null` for the last step there is.
    pub to_ns: Option<u64>,
    /// How many.
    pub count: u64,
    /// How many more have taken so long at the end and are not over; `null` if that is not known.
    pub still: Option<u64>,
}
