//! The part of a recording that is asked for.

use std::{cell::Cell, io};

use crate::{
    core::{
        record::{Census, Record},
        time::ClockMark,
    },
    sink::Sink,
};

/// Keeps from a sink what was before the part that is asked for.
pub(super) struct Window<'a> {
    pub(super) sink: &'a mut dyn Sink,
    pub(super) muted: &'a Cell<bool>,
}

impl Sink for Window<'_> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if self.muted.get() { Ok(()) } else { self.sink.record(clock, record) }
    }

    fn census(&mut self, clock: &ClockMark, census: &Census) -> io::Result<()> {
        if self.muted.get() { Ok(()) } else { self.sink.census(clock, census) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
