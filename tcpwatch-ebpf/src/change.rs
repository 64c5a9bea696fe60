//! What each (old, new) pair of states means, as a table: one load instead of many branches, which
//! keeps the verifier's work small.

use tcpwatch_common::state;

use crate::kernel::masked;

/// `connect` or `listen` on a socket without a connection.
pub const OPENED: u8 = 1;
/// A child of a listener.
pub const ACCEPTED: u8 = 2;
/// A new life for the socket.
pub const BIRTH: u8 = OPENED | ACCEPTED;
/// Made by the task that holds the lock, in a system call.
pub const CALL: u8 = 4;
/// The same, if both directions are shut and no error is pending: `close`.
pub const CLOSING_CALL: u8 = 8;
/// The end of what was a connection.
pub const END: u8 = 16;
/// A listener comes, goes, or stays.
pub const LISTENING: u8 = 32;
/// Into or out of `CLOSE_WAIT`.
pub const CLOSE_WAIT: u8 = 64;

const STATES: usize = 16;

static KINDS: [u8; STATES * STATES] = kinds();

/// The bits of a change.
#[inline(always)]
pub fn kind(old: u32, new: u32) -> u8 {
    let at = masked::<255>(((old & 15) << 4 | new & 15) as usize);
    // Volatile: the compiler would turn the table back into branches.
    unsafe { core::ptr::read_volatile((&raw const KINDS).cast::<u8>().add(at)) }
}

const fn kinds() -> [u8; STATES * STATES] {
    let mut kinds = [0; STATES * STATES];
    let mut old = 0;
    while old < STATES as u32 {
        let mut new = 0;
        while new < STATES as u32 {
            kinds[old as usize * STATES + new as usize] = classify(old, new);
            new += 1;
        }
        old += 1;
    }
    kinds
}

const fn classify(old: u32, new: u32) -> u8 {
    use state::{
        CLOSE, CLOSE_WAIT as WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT,
    };
    let mut kind = match (old, new) {
        (CLOSE, LISTEN | SYN_SENT) => OPENED | CALL,
        (LISTEN, LISTEN | CLOSE) => 0,
        (LISTEN, _) => ACCEPTED,
        (ESTABLISHED, FIN_WAIT1) | (WAIT, LAST_ACK) => CALL,
        _ => 0,
    };
    // From FIN_WAIT2, LAST_ACK and CLOSING it is the peer's segment that ends it, even if a task
    // drains it from its backlog.
    let closable = matches!(old, ESTABLISHED | SYN_SENT | SYN_RECV | FIN_WAIT1 | WAIT | LISTEN);
    if closable && new == CLOSE {
        kind |= CLOSING_CALL;
    }
    if new == CLOSE && !matches!(old, SYN_SENT | SYN_RECV | LISTEN | CLOSE) {
        kind |= END;
    }
    if new == LISTEN || old == LISTEN && new == CLOSE {
        kind |= LISTENING;
    }
    if old == WAIT || new == WAIT {
        kind |= CLOSE_WAIT;
    }
    kind
}
