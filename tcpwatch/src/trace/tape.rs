//! What keeps inputs before the tracker takes them.

use crate::core::{
    input::Input,
    time::{ClockMark, Timestamp},
};

/// What a tape needs from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A pass over everything, so that one can begin to read there.
    Snapshot,
    /// A new file, which begins with everything that is known.
    File,
}

/// Keeps inputs, in the order in which the tracker takes them.
///
/// It cannot fail: what goes wrong with a recording is no reason to end the run that it is made of.
/// It says so itself.
pub trait Tape {
    /// Keeps one input, before the tracker does anything with it.
    fn keep(&mut self, input: &Input);

    /// Nothing more is at hand for now.
    fn flush(&mut self, now: Timestamp);

    /// What it needs.
    fn due(&mut self, now: Timestamp) -> Due;

    /// Goes on in another file; everything that is known follows.
    fn begin_file(&mut self, clock: &ClockMark);
}
