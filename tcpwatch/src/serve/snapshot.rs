//! What the model says at one moment: plain numbers and labels, ready to be written.

use crate::core::{finding::Verdict, time::Nanos};

/// The word for findings that no pass could confirm.
pub const UNCONFIRMED: &str = "unconfirmed";

/// The word for all that is beyond a limit.
pub const OTHER: &str = "other";

/// The word of a verdict, if there is one.
pub fn verdict_word(verdict: Option<Verdict>) -> &'static str {
    verdict.map_or(UNCONFIRMED, Verdict::word)
}

/// Everything, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What makes a finding.
    pub linger: Nanos,
    /// Sockets in each state, by the kernel's number of the state, for each network namespace.
    pub sockets: Vec<(String, [Option<u64>; 12])>,
    /// Findings that are open, by verdict.
    pub open: Vec<(&'static str, u64)>,
    /// Findings opened, by verdict.
    pub opened: Vec<(&'static str, u64)>,
    /// Findings that ended, by how.
    pub ended: Vec<(&'static str, u64)>,
    /// Culprits, what hurts most first.
    pub lingering: Vec<Lingering>,
    /// The processes of those.
    pub owners: Vec<Owner>,
    /// Transitions lost.
    pub lost: u64,
    /// How long looks took: upper ends in seconds, and how many of each.
    pub passes: Vec<(f64, u64)>,
    /// All together, in seconds.
    pub pass_seconds: f64,
    /// Looks that failed.
    pub pass_failures: u64,
    /// When one has last succeeded, in seconds since 1970.
    pub last_pass: Option<f64>,
    /// How the recording stands, if there is one.
    pub recording: Option<Recording>,
}

/// What a culprit is told by. A process that is started again is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Whose connections they are.
    pub owner: OwnerLabels,
    /// `client` or `server`; empty if it is not known.
    pub role: &'static str,
    /// Why they linger.
    pub verdict: &'static str,
    /// The remote end of clients, the local end of servers.
    pub service: String,
}

/// What a process is told by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerLabels {
    /// Its name; empty if nobody is known.
    pub process: String,
    /// Its container, if it is in one.
    pub container: String,
    /// Uid of its Kubernetes pod, if it is in one.
    pub pod: String,
    /// What Kubernetes calls its container, if that is known.
    pub container_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod.
    pub pod_name: String,
}

/// Connections that linger and have something in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lingering {
    /// What they have in common.
    pub labels: Labels,
    /// How many.
    pub count: u64,
    /// The oldest.
    pub oldest: Nanos,
    /// More in a second.
    pub growth: Option<f64>,
    /// When descriptors are used up.
    pub exhausted_in: Option<Nanos>,
}

/// Descriptors of a process whose connections linger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which.
    pub labels: OwnerLabels,
    /// In use.
    pub fds: u64,
    /// At most.
    pub limit: u64,
}

/// How a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Bytes written.
    pub bytes: u64,
    /// Transitions that are not in it.
    pub missing: u64,
    /// It cannot be written at present.
    pub failing: bool,
}
