//! What writing and reading inputs have in common: tags, and what is expected of the next record.

use super::row::{COLUMNS, Column, Row, flag};
use crate::core::state::State;

/// A transition's tag is its new state; this bit is set at the first record of a socket in a block.
pub(super) const FIRST: u8 = 0x10;
/// From here on a length follows the tag, so that what is unknown can be passed over.
pub(super) const WITH_LENGTH: u8 = 0x80;

/// Definitions: each is known by its number, in the order in which they come.
pub(super) const ADDRESS: u8 = 0x80;
pub(super) const PROCESS: u8 = 0x81;
pub(super) const TEXT: u8 = 0x82;

/// Inputs other than transitions.
pub(super) const CLOCK: u8 = 0x90;
pub(super) const OBSERVED: u8 = 0x91;
pub(super) const PASS_BEGIN: u8 = 0x92;
pub(super) const PASS_END: u8 = 0x93;
pub(super) const PASS_FAILED: u8 = 0x94;
pub(super) const LOST: u8 = 0x95;
pub(super) const RUNNING: u8 = 0x96;
pub(super) const EXITED: u8 = 0x97;
pub(super) const FACTS: u8 = 0x98;
pub(super) const NAMESPACE: u8 = 0x99;
pub(super) const FOLLOWED: u8 = 0x9a;
pub(super) const END: u8 = 0x9b;
pub(super) const GONE: u8 = 0x9c;
pub(super) const UNSEEN: u8 = 0x9d;

/// Columns of a look, beyond the socket's own.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Look {
    Flags,
    /// Number of a process, from 1.
    Holder,
    Fd,
    QueueLen,
    QueueLimit,
    AckReceived,
    DataReceived,
    DataSent,
    SendWindow,
    Epoll,
    EpollEvents,
    Blocked,
    BlockedPid,
    Polled,
}

/// How many there are.
pub(super) const LOOK_COLUMNS: usize = Look::Polled as usize + 1;

/// A row of them.
pub(super) type LookRow = [u64; LOOK_COLUMNS];

/// Bits of [`Look::Flags`].
pub(super) mod look {
    pub(crate) const ACTIVITY: u64 = 1;
    pub(crate) const KEEPALIVE: u64 = 1 << 1;
    pub(crate) const QUIET_SINCE_FIN: u64 = 1 << 2;
    pub(crate) const WAITERS: u64 = 1 << 3;
    pub(crate) const SEND_WINDOW: u64 = 1 << 4;
    pub(crate) const BLOCKED_PID: u64 = 1 << 5;
    pub(crate) const DETAILS: u64 = 1 << 6;
}

/// What details are told as: the name of the congestion control, the timer's kind, when it fires,
/// how often it has, how many numbers follow; then for each its name and its value plus one, or 0.
pub(super) const DETAILS_FIXED: usize = 4;

/// The last row of each socket in a block, and of each kind of first record: what the next is told
/// as a difference from.
pub(super) struct Expected {
    rows: Vec<Row>,
    firsts: [Row; 32],
    pub(super) look: LookRow,
    pub(super) details: Vec<u64>,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            firsts: [[0; COLUMNS]; 32],
            look: [0; LOOK_COLUMNS],
            details: Vec::new(),
        }
    }
}

impl Expected {
    /// How many sockets there are in the block so far.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// For a socket that is in the block already.
    pub(super) fn known(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)
    }

    /// For one that is not: the last that began in the same way. It is born now.
    pub(super) fn first(&self, kind: usize, at: u64) -> Row {
        let mut row = self.firsts[kind];
        row[Column::Born as usize] = at;
        row
    }

    /// A socket's first record of this kind was `row`.
    pub(super) fn begin(&mut self, kind: usize, row: &Row) {
        self.firsts[kind] = *row;
        self.rows.push(*row);
    }

    /// A socket's record was `row`.
    pub(super) fn go_on(&mut self, index: usize, row: &Row) {
        self.rows[index] = *row;
    }

    /// After a transition the socket is in its new state since that moment.
    pub(super) fn advance(&mut self, index: usize, new: State, at: u64) {
        let row = &mut self.rows[index];
        row[Column::State as usize] = new.number().into();
        row[Column::Entered as usize] = at;
        row[Column::Flags as usize] |= flag::ENTERED;
    }
}

/// Kind of a first record that is a transition.
pub(super) fn began_with(new: State) -> usize {
    new.number().into()
}

/// Kind of a first record that is a look.
pub(super) fn seen_in(state: State) -> usize {
    16 + usize::from(state.number())
}
