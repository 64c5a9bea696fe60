//! Findings one by one, as many as a list takes.

use crate::core::time::{Nanos, Timestamp};

/// One finding. Moments are of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The place of its culprit among those of the report.
    pub culprit: usize,
    /// Our id of its socket.
    pub socket: Option<u64>,
    /// Whose it is: `api[4242]`.
    pub owner: Option<String>,
    /// Who holds it: `api[4242] fd 17, worker[4243] fd 17`; for what nobody accepted, the listener.
    pub holders: Option<String>,
    /// `client` or `server`.
    pub role: Option<&'static str>,
    /// Its local end.
    pub local: String,
    /// Its remote end.
    pub remote: String,
    /// Name of its network namespace.
    pub netns: Option<String>,
    /// Why it lingers; `None` if no pass could confirm it.
    pub verdict: Option<&'static str>,
    /// The connection was born; `None` if before anybody looked.
    pub born: Option<Timestamp>,
    /// It began to linger,
    pub since: Timestamp,
    /// or earlier.
    pub at_least: bool,
    /// It was told; `None` if it was open already when what is reported began.
    pub found: Option<Timestamp>,
    /// The connection was gone, and the fd stayed.
    pub died: Option<Timestamp>,
    /// It ceased to linger; `None` if it had not at the end, or if that was not seen.
    pub until: Option<Timestamp>,
    /// For how long it had lingered by then, or by the end.
    pub linger: Nanos,
    /// It was open at the end.
    pub open: bool,
    /// How it ended, in the words of `ended.how` of a finding.
    pub how: Option<&'static str>,
    /// How it ended, in a sentence.
    pub ended: Option<String>,
    /// What to know of it, in a sentence,
    pub summary: String,
    /// what else was seen,
    pub evidence: String,
    /// and when.
    pub seen: Timestamp,
}
