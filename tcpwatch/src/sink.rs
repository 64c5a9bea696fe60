//! Sinks: one file per format. Each owns its writer; nothing upstream asks which it is.

pub mod csv;
pub mod culprit;
pub mod fan;
pub mod json;
pub mod text;

use std::io;

use jiff::{Timestamp as Wall, tz::TimeZone};

use crate::core::{
    record::{Census, Record},
    time::{ClockMark, Timestamp},
};

/// Takes records and shows them.
///
/// `record` is called in the order of the tracker's events, from one thread. An error ends the run; after
/// it nothing more is called. `flush` is called when nothing more is at hand for now.
pub trait Sink {
    /// Shows one record. `clock` places its time in wall time.
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()>;

    /// Is told how many sockets there are, whenever the clock is marked, which is at least once a
    /// second, and after a pass over everything. It is no record: where marks stand is up to the source.
    fn census(&mut self, _clock: &ClockMark, _census: &Census) -> io::Result<()> {
        Ok(())
    }

    /// Hands everything on.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
