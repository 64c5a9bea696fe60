//! What the kernel program and the agent agree on.
//!
//! Everything that crosses the kernel boundary is declared here, once: the layout of the
//! records, the names of maps and globals, the kernel struct fields whose offsets the agent
//! looks up in BTF, and the filter settings. Only integers cross; there is no `bool`, `Option`
//! or `enum` in a record, because a bad byte in one of those is undefined behaviour.

#![no_std]

pub mod change;
mod detail;
mod field;
mod raw;
pub mod select;
mod setting;
pub mod tally;

pub use detail::{DETAILS, DETAILS_LEN, UNKNOWN};
pub use field::{FIELD_COUNT, FIELDS, Field, FieldSpec, MISSING, Need};
pub use raw::{COMM_LEN, RawObserved, RawSocket, RawTransition, flag, how, look, opened};
pub use setting::{
    COUNTER_COUNT, Counter, MOST_DETAILED, MOST_EMITTED, MOST_QUEUED, PASS_SETTING_COUNT,
    PassSetting, SETTING_COUNT, STEP_BYTES, Setting, filter,
};

/// Names of the maps and globals in the kernel object.
pub mod name {
    /// Ring buffer of [`RawTransition`](crate::RawTransition).
    pub const EVENTS: &str = "EVENTS";
    /// Socket storage: the kernel program's memory of each socket.
    pub const SOCKETS: &str = "SOCKETS";
    /// Per-CPU counters, indexed by [`Counter`](crate::Counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU socket id allocator, one `u64` per CPU.
    pub const NEXT_ID: &str = "NEXT_ID";
    /// Per-CPU counts of all transitions, laid out as [`tally`](crate::tally) says.
    pub const TALLY: &str = "TALLY";
    /// Watched process ids (hash, `u32` to `u8`).
    pub const PIDS: &str = "PIDS";
    /// Watched local ports: 65,536 bits in `u64` words.
    pub const LOCAL_PORTS: &str = "LOCAL_PORTS";
    /// Watched remote ports: 65,536 bits in `u64` words.
    pub const REMOTE_PORTS: &str = "REMOTE_PORTS";
    /// Watched network namespaces by inode (hash, `u32` to `u8`).
    pub const NETNS: &str = "NETNS";
    /// What an iterator pass emits, indexed by [`PassSetting`](crate::PassSetting).
    pub const PASS: &str = "PASS";
    /// `[u32; FIELD_COUNT]` in `.rodata`: kernel struct offsets.
    pub const OFFSETS: &str = "OFFSETS";
    /// `[u32; SETTING_COUNT]` in `.rodata`: load-time settings.
    pub const SETTINGS: &str = "SETTINGS";
    /// Program on `sock:inet_sock_set_state`.
    pub const PROG_TRANSITION: &str = "inet_sock_set_state";
    /// The same again, for changes that interrupt the first.
    pub const PROG_SECOND: &str = "second_chance";
    /// And again, for kernels that preempt one of them.
    pub const PROG_LAST: &str = "last_chance";
    /// Does nothing, on the same tracepoint: what the bench measures against.
    pub const PROG_EMPTY: &str = "empty";
    /// Program on `sched:sched_process_fork`: children of followed processes are followed.
    pub const PROG_FORK: &str = "fork";
    /// Iterator over every (process, fd).
    pub const PROG_TASK_FILE: &str = "task_file";
    /// Iterator over every socket that has storage.
    pub const PROG_STORAGE: &str = "storage";
    /// Iterator over the TCP sockets of one network namespace.
    pub const PROG_TCP: &str = "tcp";
    /// `iter/tcp` that yields cookies alone.
    pub const PROG_COOKIES: &str = "cookies";
    /// Exact acceptor on kernels before 6.10, where `inet_csk_accept` has four parameters.
    pub const PROG_ACCEPT4: &str = "accept4";
    /// Exact acceptor since 6.10, where `inet_csk_accept` has two parameters.
    pub const PROG_ACCEPT2: &str = "accept2";
}

/// Linux TCP states as numbers (`include/net/tcp_states.h`).
pub mod state {
    /// Connection is open.
    pub const ESTABLISHED: u32 = 1;
    /// Active open, SYN sent.
    pub const SYN_SENT: u32 = 2;
    /// Passive open, handshake done but not yet processed.
    pub const SYN_RECV: u32 = 3;
    /// We closed first; our FIN is not acknowledged yet.
    pub const FIN_WAIT1: u32 = 4;
    /// We closed first; the peer's FIN is outstanding.
    pub const FIN_WAIT2: u32 = 5;
    /// Closed by us, waiting for stray segments.
    pub const TIME_WAIT: u32 = 6;
    /// No connection.
    pub const CLOSE: u32 = 7;
    /// The peer closed; we have not.
    pub const CLOSE_WAIT: u32 = 8;
    /// Both closed; our FIN is not acknowledged yet.
    pub const LAST_ACK: u32 = 9;
    /// Waiting for connections.
    pub const LISTEN: u32 = 10;
    /// Both closed at the same time.
    pub const CLOSING: u32 = 11;
}
