//! Sinks: one file per format. Each owns its writer; nothing upstream asks which it is.

pub mod csv;
pub mod culprit;
pub mod fan;
pub mod json;
pub mod text;

use jiff::{Timestamp as Wall, tz::TimeZone};

use crate::core::time::{ClockMark, Timestamp};

/// A moment as RFC 3339 in UTC with nanoseconds.
fn rfc3339(clock: &ClockMark, at: Timestamp) -> String {
    utc(clock.wall_ns(at))
}

/// Wall time, ns since 1970, as RFC 3339 in UTC with nanoseconds.
pub(crate) fn utc(real_ns: u64) -> String {
    let wall = moment(real_ns).to_zoned(TimeZone::UTC);
    wall.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

fn wall(clock: &ClockMark, at: Timestamp) -> Wall {
    moment(clock.wall_ns(at))
}

/// Wall time, ns since 1970.
pub(crate) fn moment(real_ns: u64) -> Wall {
    Wall::from_nanosecond(i128::from(real_ns)).unwrap_or(Wall::UNIX_EPOCH)
}
