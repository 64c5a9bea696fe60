//! What each pair of states means, and who made a change.
//!
//! The kernel program looks a pair up in [`KINDS`]: one load instead of many branches, which keeps
//! the verifier's work small.

use crate::state;

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
/// Made by the task that holds the lock, if the directions are not both shut and no error is
/// pending: `connect` with `AF_UNSPEC`, which leaves the file descriptor open.
pub const DISCONNECTING_CALL: u8 = 128;

/// States fit in four bits.
const STATES: usize = 16;

/// The bits of each pair of states, at `old << 4 | new`.
pub static KINDS: [u8; STATES * STATES] = kinds();

const fn kinds() -> [u8; STATES * STATES] {
    let mut kinds = [0; STATES * STATES];
    let mut pair: u32 = 0;
    while (pair as usize) < kinds.len() {
        kinds[pair as usize] = classify(pair >> 4, pair & 15);
        pair += 1;
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
        // A child begins with the state of its listener, which may have been closed just now
        // (net/core/sock.c: sk_clone_lock).
        (LISTEN, _) | (CLOSE, SYN_RECV) => ACCEPTED,
        (ESTABLISHED, FIN_WAIT1) | (WAIT, LAST_ACK) => CALL,
        _ => 0,
    };
    // From FIN_WAIT2, LAST_ACK and CLOSING it is the peer's segment that ends it, even if a task
    // drains it from its backlog.
    let closable = matches!(old, ESTABLISHED | SYN_SENT | SYN_RECV | FIN_WAIT1 | WAIT | LISTEN);
    if closable && new == CLOSE {
        kind |= CLOSING_CALL;
    }
    // `ss -K` closes a listener before it sets the error (net/ipv4/tcp.c: tcp_abort).
    if matches!(old, ESTABLISHED | FIN_WAIT1 | WAIT) && new == CLOSE {
        kind |= DISCONNECTING_CALL;
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

/// What of a change the running task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing, as far as is known.
    None,
    /// It made the change in a system call on the socket.
    Call,
    /// It disconnected the socket and kept the file descriptor.
    Disconnect,
}

/// What a change that a task makes with the socket lock held says of that task. Not every such change
/// is its own: a segment waits in the backlog until the lock is given back, and `ss -K` sets an error.
///
/// A fallback MPTCP socket closes before it gets the error of its path (`net/mptcp/protocol.c`:
/// `__mptcp_subflow_error_report`), so [`Act::Disconnect`] is said of plain TCP only.
#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
pub fn act(
    kind: u8,
    is_tcp: bool,
    error: impl FnOnce() -> u32,
    both_shut: impl FnOnce() -> bool,
) -> Act {
    if kind & CALL != 0 {
        return Act::Call;
    }
    if kind & CLOSING_CALL == 0 || error() != 0 {
        return Act::None;
    }
    if both_shut() {
        return Act::Call;
    }
    if kind & DISCONNECTING_CALL != 0 && is_tcp { Act::Disconnect } else { Act::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; STATES] = [
        "0",
        "EST",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "12",
        "13",
        "14",
        "15",
    ];

    /// All pairs that mean anything; each other pair means nothing. From experiments and from the source of
    /// `net/ipv4/tcp.c`, `tcp_input.c` and `inet_connection_sock.c`.
    const MEANT: [(&str, &str, u8); 37] = [
        ("CLOSE", "SYN_SENT", OPENED | CALL),
        ("CLOSE", "LISTEN", OPENED | CALL | LISTENING),
        ("CLOSE", "CLOSE_WAIT", CLOSE_WAIT),
        // Of a listener that is being closed.
        ("CLOSE", "SYN_RECV", ACCEPTED),
        ("LISTEN", "LISTEN", LISTENING),
        ("LISTEN", "CLOSE", CLOSING_CALL | LISTENING),
        // The first two are TCP's, the third is MPTCP's; the others would be children, too.
        ("LISTEN", "SYN_RECV", ACCEPTED),
        ("LISTEN", "SYN_SENT", ACCEPTED),
        ("LISTEN", "EST", ACCEPTED),
        ("LISTEN", "FIN_WAIT1", ACCEPTED),
        ("LISTEN", "FIN_WAIT2", ACCEPTED),
        ("LISTEN", "TIME_WAIT", ACCEPTED),
        ("LISTEN", "CLOSE_WAIT", ACCEPTED | CLOSE_WAIT),
        ("LISTEN", "LAST_ACK", ACCEPTED),
        ("LISTEN", "CLOSING", ACCEPTED),
        ("SYN_SENT", "CLOSE", CLOSING_CALL),
        ("SYN_RECV", "CLOSE", CLOSING_CALL),
        ("EST", "FIN_WAIT1", CALL),
        ("EST", "CLOSE", CLOSING_CALL | DISCONNECTING_CALL | END),
        ("FIN_WAIT1", "CLOSE", CLOSING_CALL | DISCONNECTING_CALL | END),
        ("CLOSE_WAIT", "CLOSE", CLOSING_CALL | DISCONNECTING_CALL | END | CLOSE_WAIT),
        ("CLOSE_WAIT", "LAST_ACK", CALL | CLOSE_WAIT),
        // The peer's segment makes these, even if a task drains it from its backlog.
        ("FIN_WAIT2", "CLOSE", END),
        ("TIME_WAIT", "CLOSE", END),
        ("LAST_ACK", "CLOSE", END),
        ("CLOSING", "CLOSE", END),
        // Into CLOSE_WAIT, and out of it.
        ("EST", "CLOSE_WAIT", CLOSE_WAIT),
        ("SYN_RECV", "CLOSE_WAIT", CLOSE_WAIT),
        ("SYN_SENT", "CLOSE_WAIT", CLOSE_WAIT),
        ("FIN_WAIT1", "CLOSE_WAIT", CLOSE_WAIT),
        ("FIN_WAIT2", "CLOSE_WAIT", CLOSE_WAIT),
        ("TIME_WAIT", "CLOSE_WAIT", CLOSE_WAIT),
        ("LAST_ACK", "CLOSE_WAIT", CLOSE_WAIT),
        ("CLOSING", "CLOSE_WAIT", CLOSE_WAIT),
        ("CLOSE_WAIT", "CLOSE_WAIT", CLOSE_WAIT),
        ("CLOSE_WAIT", "EST", CLOSE_WAIT),
        ("CLOSE_WAIT", "LISTEN", CLOSE_WAIT | LISTENING),
    ];

    fn number(name: &str) -> usize {
        NAMES.iter().position(|known| *known == name).unwrap()
    }

    /// Also of pairs that no kernel makes, so that a change of the table is seen whatever it is of.
    fn rest(old: usize, new: usize) -> u8 {
        let (wait, listen) = (number("CLOSE_WAIT"), number("LISTEN"));
        let is_state = |state: usize| (1..=number("CLOSING")).contains(&state);
        let mut kind = 0;
        if old == wait || new == wait {
            kind |= CLOSE_WAIT;
        }
        if new == listen {
            kind |= LISTENING;
        }
        if old == listen && !is_state(new) {
            kind |= ACCEPTED;
        }
        if new == number("CLOSE") && !is_state(old) {
            kind |= END;
        }
        kind
    }

    #[test]
    fn every_pair_of_states_means_what_the_table_says() {
        for old in 0..STATES {
            for new in 0..STATES {
                let meant =
                    MEANT.iter().find(|(from, to, _)| (number(from), number(to)) == (old, new));
                let expected = meant.map_or_else(|| rest(old, new), |&(_, _, kind)| kind);
                let (from, to) = (NAMES[old], NAMES[new]);
                assert_eq!(KINDS[old << 4 | new], expected, "{from} -> {to}");
            }
        }
    }

    #[test]
    fn who_made_a_change_is_what_the_socket_tells() {
        const ECONNRESET: u32 = 104;
        let act = |old, new, is_tcp, error, both_shut| {
            super::act(KINDS[number(old) << 4 | number(new)], is_tcp, || error, || both_shut)
        };
        for error in [0, ECONNRESET] {
            for both_shut in [false, true] {
                for is_tcp in [false, true] {
                    let act = |old, new| act(old, new, is_tcp, error, both_shut);
                    // Whatever is pending, these are calls.
                    for (old, new) in [
                        ("CLOSE", "LISTEN"),
                        ("CLOSE", "SYN_SENT"),
                        ("EST", "FIN_WAIT1"),
                        ("CLOSE_WAIT", "LAST_ACK"),
                    ] {
                        assert_eq!(act(old, new), Act::Call, "{old} -> {new}");
                    }
                    // These never are.
                    for (old, new) in [
                        ("SYN_SENT", "EST"),
                        ("LISTEN", "SYN_RECV"),
                        ("SYN_RECV", "EST"),
                        ("EST", "CLOSE_WAIT"),
                        ("FIN_WAIT1", "FIN_WAIT2"),
                        ("FIN_WAIT2", "CLOSE"),
                        ("LAST_ACK", "CLOSE"),
                        ("CLOSING", "CLOSE"),
                        ("FIN_WAIT1", "CLOSING"),
                        ("CLOSE", "CLOSE"),
                        ("LISTEN", "LISTEN"),
                    ] {
                        assert_eq!(act(old, new), Act::None, "{old} -> {new}");
                    }
                    let closes = error == 0 && both_shut;
                    for old in ["SYN_SENT", "SYN_RECV", "LISTEN"] {
                        let expected = if closes { Act::Call } else { Act::None };
                        assert_eq!(act(old, "CLOSE"), expected, "{old} -> CLOSE");
                    }
                    for old in ["EST", "FIN_WAIT1", "CLOSE_WAIT"] {
                        let expected = match (error, both_shut) {
                            (0, true) => Act::Call,
                            (0, false) if is_tcp => Act::Disconnect,
                            _ => Act::None,
                        };
                        assert_eq!(act(old, "CLOSE"), expected, "{old} -> CLOSE");
                    }
                }
            }
        }
    }
}
