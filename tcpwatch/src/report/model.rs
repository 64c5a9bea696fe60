//! The report as plain data.
//!
//! Serialised it is the JSON of `tcpwatch report --json`: one object, whose fields are only ever
//! added. Durations end in `_ns`, moments are RFC 3339 in UTC with nanoseconds, `mono_ns` is
//! `CLOCK_MONOTONIC`. What is not known is `null`, never 0. Process names are escaped as in the
//! JSON lines of `sink/json.rs`, and words have the meanings that they have there.

mod durations;
mod listed;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

pub use self::{
    durations::{Durations, Quantile, Spread, Spreads, Step},
    listed::Listed,
};
use crate::{
    core::{comm, unseen::Unseen},
    sink,
};

/// Counts by word: states under the kernel's names, verdicts and causes under those users see.
pub type CountsByWord = BTreeMap<&'static str, u64>;

/// Wall time, ns since 1970. RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&sink::utc(self.0))
    }
}

fn words<S: Serializer>(unseen: &[Unseen], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(unseen.iter().map(|unseen| unseen.word()))
}

/// Everything there is to say about a recording.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always `report`.
    pub r#type: &'static str,
    /// The threshold: what lingered for so long is a finding.
    pub linger_ns: u64,
    /// When it begins and ends, and how long it is. The duration is of `CLOCK_MONOTONIC`: it leaves
    /// out the time in which the machine slept.
    pub from: Wall,
    /// Its end.
    pub to: Wall,
    /// Its beginning on the monotonic clock.
    pub from_mono_ns: u64,
    /// How long it is.
    pub duration_ns: u64,
    /// What happened in all.
    pub totals: Totals,
    /// How fast.
    pub rates: Rates,
    /// Transitions that never reached us.
    pub gaps: Gaps,
    /// Kinds of sockets that the run could not see.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "words")]
    pub unseen: Vec<Unseen>,
    /// What of the recording is missing: damaged or torn files.
    pub incomplete: Incomplete,
    /// What happened when.
    pub timeline: Timeline,
    /// Groups of findings, what hurts most first.
    pub culprits: Vec<Culprit>,
    /// How long all connections took; `null` if only findings were recorded.
    pub spreads: Option<Spreads>,
    /// Connections by process and service, those with the most first.
    pub groups: Vec<Group>,
}

/// Counts of the whole recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Only what findings need was recorded: what concerns transitions is not known.
    pub findings_only: bool,
    /// Transitions.
    pub transitions: u64,
    /// Different sockets among them; `null` if the recording has no end.
    pub sockets: Option<u64>,
    /// Connections opened: `SYN_SENT` and `SYN_RECV` entered.
    pub opened: u64,
    /// Connections that became `CLOSE`, failed ones included.
    pub closed: u64,
    /// Those that were never established: closed in `SYN_SENT` or `SYN_RECV`.
    pub failed: u64,
    /// Transitions into each state.
    pub entered: CountsByWord,
    /// Sockets in each state at the end, as far as they were seen.
    pub now: CountsByWord,
    /// Findings opened, or open when what is reported begins.
    pub findings: u64,
    /// Those among them that lingered before that.
    pub before: u64,
    /// Findings that ended.
    pub ended: u64,
    /// Those among them that turned out to be of connections in use: no leaks.
    pub retracted: u64,
    /// Findings opened by verdict; `unconfirmed` where no pass could confirm it.
    pub verdicts: CountsByWord,
    /// Sockets that may have lingered for long enough, but whose age is not known well enough.
    pub undecided: u64,
    /// Transitions whose socket's path has a gap.
    pub uncertain: u64,
    /// Sockets whose state could not be tracked because there were too many.
    pub evicted: u64,
    /// Transitions that are not shown because nobody could tell whether they were a watched process's.
    pub unclaimed: u64,
    /// Sockets in `CLOSE_WAIT` that the report could not follow because there were too many: their
    /// groups show too few in `close_wait_now`.
    pub not_followed: u64,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Transitions, on average.
    pub transitions_mean: f64,
    /// In the second with the most.
    pub transitions_peak: u64,
    /// Connections opened, on average.
    pub opened_mean: f64,
    /// In the second with the most.
    pub opened_peak: u64,
}

/// Where transitions were lost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gaps {
    /// Transitions lost.
    pub lost: u64,
    /// How often some were.
    pub count: u64,
    /// Those among them of which it is not known how many were lost.
    pub unknown: u64,
    /// The first gaps.
    pub first: Vec<Gap>,
}

/// Transitions lost at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// When it was learnt.
    pub ts: Wall,
    /// The same on the monotonic clock.
    pub mono_ns: u64,
    /// How many; `null` if that is not known.
    pub lost: Option<u64>,
}

/// What is missing in the files, as sentences. What others named is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    /// The first sentences.
    pub notes: Vec<String>,
    /// How many more there are.
    pub more: u64,
}

impl Incomplete {
    const MOST_NOTES: usize = 100;

    /// Notes that something is missing.
    pub fn note(&mut self, missing: &str) {
        if self.notes.len() < Self::MOST_NOTES {
            self.notes.push(comm::tame(missing));
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }
}

/// What happened when.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// Width of a bucket.
    pub width_ns: u64,
    /// The numbers of sockets in each state are what was seen and may be wrong: some transitions
    /// were lost or hidden by a filter.
    pub states_uncertain: bool,
    /// Buckets without gaps, from the beginning to the end.
    pub buckets: Vec<Bucket>,
}

/// A part of the time line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// When it begins.
    pub ts: Wall,
    /// The same on the monotonic clock. The first may begin before the recording.
    pub mono_ns: u64,
    /// Transitions.
    pub transitions: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Transitions lost, as learnt by then.
    pub lost: u64,
    /// How often some were.
    pub gaps: u64,
    /// Findings opened; in the first also those that were open when it began.
    pub findings: u64,
    /// Findings open at its end.
    pub open: u64,
    /// The most sockets in `ESTABLISHED` at once.
    pub established_max: u64,
    /// The most sockets in `CLOSE_WAIT` at once.
    pub close_wait_max: u64,
    /// Sockets in each state at its end, as far as they were seen.
    pub states: CountsByWord,
}

/// Connections of processes of one name, in one role, with one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Name of the processes; `null` if nobody knows whose they are.
    pub comm: Option<String>,
    /// `client` or `server`; `null` if nobody saw who connected.
    pub role: Option<&'static str>,
    /// The remote end of clients (`10.0.0.9:5432`), the port of servers (`:80`); `other` for those
    /// groups that were too many to be kept apart.
    pub end: String,
    /// For `other`: how often a group was added to it.
    pub folded: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Those among them that were never established.
    pub failed: u64,
    /// From birth to `CLOSE`, of those that were established and seen from birth.
    pub lifetime: Option<Durations>,
    /// Time in `CLOSE_WAIT`, of those that have left it: also of those that never lingered.
    pub close_wait: Option<Durations>,
    /// How many are in `CLOSE_WAIT` at the end: those that were seen to enter it, and those from
    /// before that are findings.
    pub close_wait_now: u64,
    /// For how long the oldest of those has been in it.
    pub close_wait_now_oldest_ns: Option<u64>,
    /// Bytes that closed connections had received,
    pub bytes_received: u64,
    /// and that their peers had acknowledged.
    pub bytes_acked: u64,
}

/// Findings that share owner, verdict, role and service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// All findings beyond the culprits that are kept apart; then nothing else is known of them.
    pub other: bool,
    /// Whose sockets they are.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Why they linger; `null` if no pass could confirm it.
    pub verdict: Option<&'static str>,
    /// `client` or `server`.
    pub role: Option<&'static str>,
    /// The remote end of clients, the local end of servers.
    pub end: Option<String>,
    /// Findings opened, or open when what is reported begins. One whose verdict or owner turned out
    /// to be another counts there.
    pub opened: u64,
    /// Those among them that lingered before what is reported begins, as far as that is known.
    pub before: u64,
    /// Open at the end.
    pub open: u64,
    /// How the others ended.
    pub endings: Vec<Ending>,
    /// The longest time that one lingered,
    pub longest_ns: u64,
    /// or longer.
    pub longest_at_least: bool,
    /// When the first was opened: for one from before, when it was told.
    pub first: Option<Wall>,
    /// When the last was opened.
    pub last: Option<Wall>,
    /// Open findings at the end of each bucket of the time line.
    pub open_by_bucket: Vec<u64>,
    /// Sockets that linger at the end of each bucket, from when they began to, though they were
    /// found later.
    pub lingering_by_bucket: Vec<u64>,
    /// How fast it grew when that was last seen; `null` if that was never seen.
    pub growth: Option<Growth>,
    /// Its oldest, as it was last seen.
    pub example: Option<Example>,
}

/// Findings that ended in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// How, in the words of `ended.how` of a finding.
    pub how: &'static str,
    /// How many.
    pub count: u64,
    /// Who ended them, if it was always the same process.
    pub by: Option<String>,
}

/// How fast a culprit grew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// Findings more per minute.
    pub per_minute: f64,
    /// Over this time,
    pub over_ns: u64,
    /// which ended here.
    pub ts: Wall,
    /// It still grew when the recording ended.
    pub at_end: bool,
    /// When its process would then run out of descriptors.
    pub reaches_limit_in_ns: Option<u64>,
    /// Descriptors the process may have.
    pub fd_limit: Option<u64>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Our id of its socket.
    pub socket: Option<u64>,
    /// Its local end.
    pub local: String,
    /// Its remote end.
    pub remote: String,
    /// When it was seen so.
    pub ts: Wall,
    /// For how long it had lingered then.
    pub linger_ns: u64,
    /// What to know of it, in a sentence.
    pub summary: String,
    /// What else was seen.
    pub evidence: String,
}

impl Report {
    /// Notes that something of the recording is missing, as a sentence says.
    pub fn note(&mut self, missing: &str) {
        self.incomplete.note(missing);
        self.timeline.states_uncertain = true;
    }
}

impl Group {
    /// Name of its processes.
    pub fn name(&self) -> Option<&str> {
        self.comm.as_deref()
    }
}

impl Culprit {
    /// Findings that stand: without those that turned out to be in use.
    pub fn leaks(&self) -> u64 {
        let in_use = |ending: &&Ending| ending.how == "in-use";
        let retracted: u64 = self.endings.iter().filter(in_use).map(|ending| ending.count).sum();
        self.opened.saturating_sub(retracted)
    }
}
