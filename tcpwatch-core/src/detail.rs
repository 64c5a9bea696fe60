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

/// Names of the numbers, in the order in which they are shown.
pub const NAMES: [&str; 26] = [
    "mss",
    "pmtu",
    "rcv_mss",
    "advmss",
    "cwnd",
    "bytes_sent",
    "bytes_retrans",
    "segs_out",
    "segs_in",
    "data_segs_out",
    "data_segs_in",
    "delivered",
    "lost",
    "sacked",
    "retrans_out",
    "reordering",
    "rcv_space",
    "rcv_ssthresh",
    "rcv_wnd",
    "pacing_rate",
    "backoff",
    "ssthresh",
    "rto_ms",
    "rttvar_us",
    "rcv_rtt_us",
    "min_rtt_us",
];

/// The name that these bytes spell, if it is one of [`NAMES`].
pub fn name(bytes: &[u8]) -> Option<&'static str> {
    NAMES.into_iter().find(|name| name.as_bytes() == bytes)
}

/// The kind of timer that these bytes spell.
pub fn timer_kind(bytes: &[u8]) -> Option<&'static str> {
    ["on", "persist", "keepalive"].into_iter().find(|kind| kind.as_bytes() == bytes)
}
