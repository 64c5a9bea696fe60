//! The numbers that `ss -i` and `ss -o` show of a connection, for those who want them.

use super::{comm::Comm, time::Nanos};

/// What TCP keeps of a connection beyond what findings rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpDetails {
    /// Name of the congestion control.
    pub congestion: Comm,
    /// Name, with its unit, and value; `None` where this kernel or connection has none.
    pub numbers: Vec<(&'static str, Option<u64>)>,
    /// The timer that runs.
    pub timer: Option<Timer>,
}

/// A timer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// What it is for, in the words of `ss`: `on` (a retransmission), `persist`, `keepalive`.
    pub kind: &'static str,
    /// When it fires.
    pub expires_in: Nanos,
    /// How often it has fired without an answer.
    pub retries: u64,
}
