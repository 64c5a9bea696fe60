//! Load-time settings, pass settings and counters: small arrays of integers with named slots.

use crate::{DETAILS_LEN, RawObserved};

/// Slots of the `SETTINGS` global, a `[u32; SETTING_COUNT]` in `.rodata`.
///
/// They are constants to the verifier, so code behind a filter that is off is removed.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Bits of [`filter`].
    Filters,
    /// Emit only transitions from or to a state whose bit `1 << state` is set.
    States,
    /// How many CPUs allocate socket ids.
    Cpus,
    /// Wake the agent when more than this many bytes wait in the ring.
    WakeAbove,
    /// 1: one look and no more. Nothing is remembered of a socket, and its cookie is its id.
    LookOnly,
    /// The children of this process, and theirs, join `PIDS`; 0 if nobody's do.
    FollowFrom,
    /// 1: looks at connections in `CLOSE_WAIT` carry everything that `ss -i` shows.
    Details,
    /// 1: every transition is counted in `TALLY`, also those that are not emitted.
    Tally,
    /// 1: connections in an accept queue are emitted with their listener, as nothing walks the storage.
    EmitQueued,
}

/// Number of [`Setting`] slots.
pub const SETTING_COUNT: usize = 9;

/// Bits of [`Setting::Filters`].
pub mod filter {
    /// Only sockets of the processes in `PIDS`, or whose owner is not certain yet.
    pub const PID: u32 = 1;
    /// Only local ports in `LOCAL_PORTS`.
    pub const LOCAL_PORT: u32 = 2;
    /// Only remote ports in `REMOTE_PORTS`.
    pub const REMOTE_PORT: u32 = 4;
    /// Only IPv4, v4-mapped included.
    pub const V4: u32 = 8;
    /// Only IPv6, v4-mapped excluded.
    pub const V6: u32 = 16;
    /// Only network namespaces in `NETNS`.
    pub const NETNS: u32 = 32;
    /// Only what findings need: into and out of `CLOSE_WAIT`, and errors that leave an fd behind.
    pub const FINDINGS: u32 = 64;
}

/// Connections looked at in one accept queue; the verifier explores each turn.
pub const MOST_QUEUED: u32 = 16;

/// The same where nothing else finds those of other network namespaces, once tracing.
pub const MOST_EMITTED: u32 = 128;

/// Connections of a longer queue are emitted without their details, as one step of an iterator cannot write
/// more than [`STEP_BYTES`].
pub const MOST_DETAILED: u32 = 62;

/// What one step of an iterator may write (`kernel/bpf/bpf_iter.c`: `bpf_seq_read` allocates
/// `PAGE_SIZE << 3`, and a page has no less than 4 KiB). A step that writes as much fails with the whole read.
pub const STEP_BYTES: usize = 4096 << 3;

/// A listener with its queue.
const fn step_bytes(queued: u32, each: usize) -> usize {
    size_of::<RawObserved>() + queued as usize * each
}

const _: () = {
    let detailed = size_of::<RawObserved>() + DETAILS_LEN;
    assert!(step_bytes(MOST_EMITTED, size_of::<RawObserved>()) < STEP_BYTES);
    assert!(step_bytes(MOST_QUEUED, size_of::<RawObserved>()) < STEP_BYTES);
    assert!(step_bytes(MOST_DETAILED, detailed) < STEP_BYTES);
    assert!(step_bytes(MOST_DETAILED + 1, detailed) >= STEP_BYTES, "there is room for more");
};

/// Slots of the `PASS` map, which says what the iterators emit.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassSetting {
    /// Emit sockets whose state's bit `1 << state` is set.
    States,
    /// Emit only sockets held by a process in `PIDS`, when 1.
    PidsOnly,
    /// Number of the pass: what it has found with an fd is not emitted again without one.
    Number,
}

/// Number of [`PassSetting`] slots.
pub const PASS_SETTING_COUNT: usize = 3;

/// Slots of the per-CPU `COUNTERS` map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Transitions put into the ring.
    Emitted,
    /// Transitions that a filter left out, MPTCP subflows included.
    Filtered,
    /// Transitions lost because the ring was full.
    Lost,
    /// Transitions lost because the kernel had no memory for what is remembered of their sockets.
    NoStorage,
    /// Children of followed processes that found `PIDS` full.
    Unfollowed,
    /// Transitions that the first program did not run for, and another told.
    Caught,
    /// Those of them that a task made: one that was preempted in the first program waits for the CPU.
    Preempted,
    /// Times that a socket was not in the state that its last transition led to: no program has seen what
    /// was between.
    Missed,
}

/// Number of [`Counter`] slots.
pub const COUNTER_COUNT: usize = 8;
