//! A difference as plain data, with the conventions of `report/model.rs`.

use serde::{Serialize, Serializer};

use crate::report::model::Wall;

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// B has it, A has not.
    New,
    /// More of it, or longer.
    More,
    /// Less of it, or shorter.
    Less,
    /// A has it, B has not.
    Gone,
    /// Chance may have made what difference there is.
    Same,
    /// There is too little of it to tell.
    Unclear,
}

impl Change {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::More => "more",
            Self::Less => "less",
            Self::Gone => "gone",
            Self::Same => "same",
            Self::Unclear => "unclear",
        }
    }

    /// Whether anything changed.
    pub fn is_one(self) -> bool {
        !matches!(self, Self::Same | Self::Unclear)
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What changed from A to B.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Always `diff`.
    pub r#type: &'static str,
    /// B has culprits that A has not, or more of them: `--fail-on-leak` goes by it.
    pub worse: bool,
    /// The recording before.
    pub a: Side,
    /// The recording after.
    pub b: Side,
    /// Counts of the whole recordings.
    pub rates: Vec<RateChange>,
    /// Culprits of either, those that got worse first.
    pub culprits: Vec<CulpritChange>,
    /// Groups of connections of either, those with the most first.
    pub groups: Vec<GroupChange>,
}

/// One of the two recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// When it begins.
    pub from: Wall,
    /// How long it is.
    pub duration_ns: u64,
    /// What lingered for so long is a finding.
    pub linger_ns: u64,
    /// Findings opened.
    pub findings: u64,
    /// Those among them that lingered before the recording began.
    pub before: u64,
    /// Transitions lost: its counts are lower bounds.
    pub lost: u64,
    /// Nothing of it is missing: nothing was lost, and no file is damaged.
    pub whole: bool,
    /// Only what findings need was recorded.
    pub findings_only: bool,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateChange {
    /// What: `transitions`, `opened`, `closed`, `failed` or `findings`, without those from before.
    pub what: &'static str,
    /// Of how many in A and in B.
    pub a: u64,
    /// In B.
    pub b: u64,
    /// Per minute of A.
    pub a_per_minute: f64,
    /// Per minute of B.
    pub b_per_minute: f64,
    /// What became of it.
    pub change: Change,
}

/// Findings of processes of one name, in one role, with one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CulpritChange {
    /// What became of them.
    pub change: Change,
    /// Chance hardly made that, nor does it show only in findings from before. What is new counts
    /// as worse in any case.
    pub certain: bool,
    /// Name of the processes.
    pub comm: Option<String>,
    /// `client` or `server`.
    pub role: Option<String>,
    /// The remote end of clients, the port of servers.
    pub end: String,
    /// In A.
    pub a: Leaks,
    /// In B.
    pub b: Leaks,
    /// An example of B, or else of A, in a sentence.
    pub summary: Option<String>,
}

/// The findings of one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Leaks {
    /// Findings, without those that turned out to be in use.
    pub count: u64,
    /// Those among them that lingered before the recording began: not a matter of its length.
    pub before: u64,
    /// The others, per minute in which one that began could become a finding.
    pub per_minute: f64,
    /// Open at the end.
    pub open: u64,
    /// The longest that one lingered, or at least.
    pub longest_ns: u64,
    /// Why they lingered.
    pub verdicts: Vec<&'static str>,
}

/// Connections of processes of one name, in one role, with one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupChange {
    /// Name of the processes.
    pub comm: Option<String>,
    /// `client` or `server`.
    pub role: Option<&'static str>,
    /// The remote end of clients, the port of servers.
    pub end: String,
    /// Connections opened.
    pub opened: RateChange,
    /// Half of the connections lived shorter.
    pub lifetime_p50: DurationChange,
    /// One in a hundred lived longer.
    pub lifetime_p99: DurationChange,
    /// Half were in `CLOSE_WAIT` for less.
    pub close_wait_p50: DurationChange,
    /// One in a hundred was in `CLOSE_WAIT` for longer.
    pub close_wait_p99: DurationChange,
}

/// A duration on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DurationChange {
    /// In A; `null` if there are none.
    pub a_ns: Option<u64>,
    /// In B.
    pub b_ns: Option<u64>,
    /// What became of it.
    pub change: Change,
}

impl GroupChange {
    /// The durations, with what they are.
    pub fn durations(&self) -> [(&'static str, DurationChange); 4] {
        [
            ("lifetime p50", self.lifetime_p50),
            ("lifetime p99", self.lifetime_p99),
            ("CLOSE_WAIT p50", self.close_wait_p50),
            ("CLOSE_WAIT p99", self.close_wait_p99),
        ]
    }

    /// Whether anything changed.
    pub fn is_one(&self) -> bool {
        self.opened.change.is_one() || self.durations().iter().any(|(_, of)| of.change.is_one())
    }
}

impl Leaks {
    /// Those that began in the recording.
    pub(super) fn began(&self) -> u64 {
        self.count.saturating_sub(self.before)
    }
}
