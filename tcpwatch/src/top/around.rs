//! What the screen shows beside the model: where it runs, what it costs, what was said.

use jiff::tz::TimeZone;

use super::view::Look;
use crate::core::{time::Nanos, unseen::Unseen};

/// Everything around a snapshot.
#[derive(Clone, Debug)]
pub struct Around<'a> {
    /// Colours or none.
    pub look: Look,
    /// Of the times that are shown.
    pub zone: TimeZone,
    /// Whose sockets they are.
    pub host: &'a str,
    /// What the filters of the command line leave; empty if that is everything.
    pub scope: &'a str,
    /// What scans do not see.
    pub unseen: Option<Unseen>,
    /// What lingers for this long is a finding.
    pub linger: Nanos,
    /// What watching costs, where that is known.
    pub costs: Costs,
    /// The recording that is made beside it.
    pub tape: Option<Tape>,
    /// How far a recording has been played.
    pub play: Option<&'a Play>,
    /// What was said, the last being the latest.
    pub messages: &'a [String],
    /// What is to be seen now.
    pub note: Option<Note<'a>>,
}

/// What watching costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Time of the kernel programs for a transition, if the kernel counts it.
    pub kernel_ns: Option<u64>,
    /// Of one CPU, per thousand, in user space.
    pub agent: Option<u64>,
}

/// How a recording that is made stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tape {
    /// Bytes written.
    pub bytes: u64,
    /// It cannot be written at present.
    pub failing: bool,
}

/// A line that is shown for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// What it says.
    pub text: &'a str,
    /// It says that something went wrong.
    pub bad: bool,
}

/// Where the player is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Playing {
    /// Time goes on.
    #[default]
    On,
    /// It stands still.
    Waiting,
    /// On its way to another place.
    Seeking,
    /// Nothing more was recorded.
    Ended,
}

/// A recording that is played.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Play {
    /// Wall times of its beginning and end.
    pub span: (u64, u64),
    /// Wall time of what is shown.
    pub position: u64,
    /// How it goes on.
    pub playing: Playing,
    /// So many times as fast as it happened.
    pub speed: f64,
    /// What all of it holds, once that is known.
    pub survey: Option<Survey>,
}

/// A recording in so many pieces of the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Wall time at which the first piece begins.
    pub from: u64,
    /// Length of each, ns.
    pub width: u64,
    /// Findings open at most,
    pub open: Vec<u64>,
    /// and whether something is missing there.
    pub gaps: Vec<bool>,
}
