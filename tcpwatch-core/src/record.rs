//! What the tracker concludes.

use std::collections::BTreeMap;

use super::{
    culprits::Culprit,
    finding::{Finding, Verdict},
    input::Transition,
    socket::Process,
    state::State,
    time::{Nanos, Timestamp},
    unseen::Unseen,
};

/// What comes out of an input, in order.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are transitions, which cost no allocation"
)]
pub enum Event {
    /// A state change; the owner is settled.
    Transition(Transition),
    /// A conclusion.
    Finding(Box<Finding>),
    /// Findings that have something in common, so far.
    Culprit(Box<Culprit>),
    /// Transitions are missing here.
    Lost(Lost),
    /// How many sockets there are, whenever the clock is marked, which is at least once a second, and after a
    /// scan of everything. It is no record: where marks stand is up to the source.
    Census(Census),
    /// The last record of a run.
    Summary(Box<Summary>),
}

/// One thing to show.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A state change; the owner is settled.
    Transition(&'a Transition),
    /// A conclusion.
    Finding(&'a Finding),
    /// Findings that have something in common, so far.
    Culprit(&'a Culprit),
    /// Transitions are missing here.
    Lost(Lost),
    /// The last record of a run.
    Summary(&'a Summary),
}

/// Transitions that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When we learnt of it.
    pub at: Timestamp,
    /// How many more; 0 if part of a recording is missing and it is not known.
    pub count: u64,
    /// How many in all: those of the output apart from all others.
    pub total: u64,
    /// Where they were lost.
    pub place: Place,
}

/// Where transitions were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between the kernel and us: nobody has seen them.
    Ring,
    /// Part of a recording is missing.
    Recording,
    /// Nobody took them: they were seen, and a recording has them, but they were not shown.
    Output,
}

impl Place {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Recording => "recording",
            Self::Output => "output",
        }
    }
}

/// How many sockets there are at one moment, as far as they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// When.
    pub at: Timestamp,
    /// Sockets tracked; `None` where not all their changes are shown.
    pub tracked: Option<u64>,
    /// Those in `CLOSE_WAIT`.
    pub close_wait: Option<u64>,
    /// Sockets that linger, or that have only just begun to: in `CLOSE_WAIT`, or dead with an fd.
    pub lingering: u64,
}

/// What happened in the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Nanos,
    /// Only findings were shown, so there are no other counts.
    pub findings_only: bool,
    /// Transitions shown.
    pub transitions: u64,
    /// Different sockets among them.
    pub sockets: u64,
    /// Transitions into each state.
    pub entered: BTreeMap<State, u64>,
    /// Sockets in each state at the end, as far as they were seen.
    pub now: BTreeMap<State, u64>,
    /// Findings opened, by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Findings opened that no pass could confirm.
    pub unconfirmed: u64,
    /// Findings that ended.
    pub ended: u64,
    /// Findings that turned out to be of connections in use.
    pub retracted: u64,
    /// Sockets that may have lingered for long enough, but whose age is not known well enough.
    pub undecided: u64,
    /// Findings opened, by owner: the first so many of them.
    pub owners: BTreeMap<Option<Process>, u64>,
    /// Findings opened of all other owners.
    pub other_owners: u64,
    /// Transitions lost.
    pub lost: u64,
    /// Transitions that were to be shown, but nobody took them.
    pub unshown: u64,
    /// Transitions shown whose socket's path has a gap.
    pub uncertain: u64,
    /// Sockets not tracked because the table was full.
    pub evicted: u64,
    /// Transitions that are not shown because nobody could tell whether they were a watched process's.
    pub unclaimed: u64,
    /// Transitions that turned out to be other processes', where only some are watched.
    pub others: u64,
    /// What the scans could not see.
    pub unseen: Vec<Unseen>,
}

impl Summary {
    /// Findings that stand: `--fail-on-leak` goes by them.
    pub fn leaks(&self) -> u64 {
        self.findings().saturating_sub(self.retracted)
    }

    /// Findings opened.
    pub fn findings(&self) -> u64 {
        self.verdicts.values().sum::<u64>() + self.unconfirmed
    }
}
