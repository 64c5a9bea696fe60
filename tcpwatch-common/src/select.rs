//! Which transitions are emitted.
//!
//! A port or address that is not known yet never fails a filter: the agent settles it when it
//! is. The owner filter never looks at the running task, because the task on the CPU when a FIN
//! arrives is a stranger.

use crate::{change, filter, flag, how};

/// `AF_INET` (`include/linux/socket.h`).
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// What the filters ask about a socket and of the sets that they name. The kernel program reads it where it
/// is, and only what is asked for: each field more costs a cache miss.
pub trait Subject {
    /// `AF_INET` or `AF_INET6`.
    fn family(&self) -> u16;
    /// Local and remote address, if the family is `AF_INET6`.
    fn addresses(&self) -> ([u8; 16], [u8; 16]);
    /// It is in `LISTEN` now.
    fn listens(&self) -> bool;
    /// Remote port, 0 while unknown.
    fn remote_port(&self) -> u16;
    /// It has a file.
    fn has_file(&self) -> bool;
    /// A local port is one of the user's.
    fn is_local_port(&self, port: u16) -> bool;
    /// A remote port is one of the user's.
    fn is_remote_port(&self, port: u16) -> bool;
    /// Its network namespace is one of the user's.
    fn is_in_netns(&self) -> bool;
    /// A process is one of the user's.
    fn is_watched(&self, pid: u32) -> bool;
}

/// What is known about the owner of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// Process id of the owner.
    pub pid: u32,
    /// A value of [`how`].
    pub how: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// A transition of this socket has passed before. The agent says whose it is, whoever has it by then.
    pub passed: bool,
    /// Process that made this change, 0 if unknown.
    pub actor: u32,
}

/// Whether a transition is of a socket that the filters let pass. `kind` has the bits of [`change`].
#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
pub fn concerns(
    filters: u32,
    socket: &impl Subject,
    kind: u8,
    local_port: u16,
    owner: &Ownership,
) -> bool {
    if filters & (filter::V4 | filter::V6) != 0 && !family_passes(socket, filters) {
        return false;
    }
    if filters & filter::LOCAL_PORT != 0 && local_port != 0 && !socket.is_local_port(local_port) {
        return false;
    }
    if filters & filter::REMOTE_PORT != 0 {
        let port = socket.remote_port();
        let unknown = port == 0 && kind & change::LISTENING == 0;
        if !unknown && !socket.is_remote_port(port) {
            return false;
        }
    }
    if filters & filter::NETNS != 0 && !socket.is_in_netns() {
        return false;
    }
    // Whoever holds a socket when it begins to linger is found by a scan, and may have got it from
    // its owner in the meantime.
    filters & filter::PID == 0 || kind & change::CLOSE_WAIT != 0 || owner_passes(socket, owner)
}

/// Whether a transition of such a socket is one of those to emit. `states` has a bit for each state that is
/// asked for.
#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
pub fn is_wanted(
    filters: u32,
    states: u32,
    socket: &impl Subject,
    (old, new): (u32, u32),
    kind: u8,
    actor: u32,
) -> bool {
    if states != u32::MAX && states >> (old & 31) & 1 == 0 && states >> (new & 31) & 1 == 0 {
        return false;
    }
    filters & filter::FINDINGS == 0 || matters_to_findings(socket, kind, actor)
}

/// Into and out of `CLOSE_WAIT`, and an end that leaves the fd open: nobody closed the socket,
/// yet its file is still there.
#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
fn matters_to_findings(socket: &impl Subject, kind: u8, actor: u32) -> bool {
    kind & change::CLOSE_WAIT != 0 || kind & change::END != 0 && actor == 0 && socket.has_file()
}

#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
fn family_passes(socket: &impl Subject, filters: u32) -> bool {
    if socket.family() == AF_INET {
        return filters & filter::V4 != 0;
    }
    let (local, remote) = socket.addresses();
    if is_v4_mapped(&local) || is_v4_mapped(&remote) {
        return filters & filter::V4 != 0;
    }
    filters & filter::V6 != 0 || remote == [0; 16] && !socket.listens()
}

#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
fn is_v4_mapped(addr: &[u8; 16]) -> bool {
    u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]])
        == 0
        && u32::from_ne_bytes([addr[8], addr[9], addr[10], addr[11]])
            == u32::from_ne_bytes([0, 0, 0xff, 0xff])
}

/// Known owners are matched; uncertain ones (unknown, or inherited from a listener that workers
/// share) pass and are settled by the agent.
#[expect(clippy::inline_always, reason = "the verifier would explore it for each caller")]
#[inline(always)]
fn owner_passes(socket: &impl Subject, owner: &Ownership) -> bool {
    owner.how == how::UNKNOWN
        || owner.how == how::LISTENER
        || owner.flags & flag::WATCHED != 0
        || owner.passed
        || socket.is_watched(owner.pid)
        || socket.is_watched(owner.actor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::KINDS,
        filter::{FINDINGS, LOCAL_PORT, NETNS, PID, REMOTE_PORT, V4, V6},
        state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_SENT},
    };

    /// The user's ports, and the only watched process.
    const LISTED: u16 = 80;
    const WATCHED: u32 = 7;
    const STRANGER: u32 = 8;

    const PLAIN: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    const NONE: [u8; 16] = [0; 16];

    #[derive(Clone, Copy, Debug)]
    struct Fake {
        family: u16,
        addresses: ([u8; 16], [u8; 16]),
        listens: bool,
        remote_port: u16,
        has_file: bool,
        in_netns: bool,
    }

    impl Subject for Fake {
        fn family(&self) -> u16 {
            self.family
        }
        fn addresses(&self) -> ([u8; 16], [u8; 16]) {
            assert_eq!(self.family, AF_INET6, "IPv4 sockets may have none");
            self.addresses
        }
        fn listens(&self) -> bool {
            self.listens
        }
        fn remote_port(&self) -> u16 {
            self.remote_port
        }
        fn has_file(&self) -> bool {
            self.has_file
        }
        fn is_local_port(&self, port: u16) -> bool {
            port == LISTED
        }
        fn is_remote_port(&self, port: u16) -> bool {
            port == LISTED
        }
        fn is_in_netns(&self) -> bool {
            self.in_netns
        }
        fn is_watched(&self, pid: u32) -> bool {
            pid == WATCHED
        }
    }

    const FAKE: Fake = Fake {
        family: AF_INET,
        addresses: (NONE, NONE),
        listens: false,
        remote_port: 0,
        has_file: true,
        in_netns: false,
    };

    fn kind(old: u32, new: u32) -> u8 {
        KINDS[(old << 4 | new) as usize]
    }

    /// Every socket that differs in what a filter asks, with every transition and every owner.
    fn each(mut check: impl FnMut(&Fake, (u32, u32), u16, &Ownership)) {
        let families = [
            (AF_INET, (NONE, NONE)),
            (AF_INET6, (PLAIN, PLAIN)),
            (AF_INET6, (NONE, NONE)),
            (AF_INET6, (MAPPED, MAPPED)),
            (AF_INET6, (NONE, MAPPED)),
        ];
        let changes = [
            (CLOSE, SYN_SENT),
            (CLOSE, LISTEN),
            (LISTEN, CLOSE),
            (ESTABLISHED, FIN_WAIT1),
            (ESTABLISHED, CLOSE_WAIT),
            (CLOSE_WAIT, LAST_ACK),
            (ESTABLISHED, CLOSE),
        ];
        let owners = (how::UNKNOWN..=how::LISTENER).flat_map(|how| {
            [0, WATCHED, STRANGER].into_iter().flat_map(move |pid| {
                [0, WATCHED, STRANGER].into_iter().flat_map(move |actor| {
                    [(0, false), (flag::WATCHED, false), (0, true)]
                        .map(|(flags, passed)| Ownership { pid, how, flags, passed, actor })
                })
            })
        });
        for owner in owners {
            for (family, addresses) in families {
                for change in changes {
                    let listens = change.0 == LISTEN || change.1 == LISTEN;
                    for bits in 0..4_u8 {
                        let (in_netns, has_file) = (bits & 1 != 0, bits & 2 != 0);
                        for (local, remote_port) in
                            [(0, 0), (0, LISTED), (LISTED, 0), (1, 1), (1, 0)]
                        {
                            let fake = Fake {
                                family,
                                addresses,
                                listens,
                                remote_port,
                                has_file,
                                in_netns,
                            };
                            check(&fake, change, local, &owner);
                        }
                    }
                }
            }
        }
    }

    /// What one filter alone says.
    fn alone(filter: u32, fake: &Fake, change: (u32, u32), local: u16, owner: &Ownership) -> bool {
        concerns(filter, fake, kind(change.0, change.1), local, owner)
    }

    #[test]
    fn without_filters_everything_passes_and_each_filter_only_takes_away() {
        each(|fake, change, local, owner| {
            for filters in 0..FINDINGS {
                // Both families together are one filter, which passes what either passes.
                let families = filters & (V4 | V6);
                let mut expected = families == 0 || alone(families, fake, change, local, owner);
                for filter in [PID, LOCAL_PORT, REMOTE_PORT, NETNS] {
                    expected &= filters & filter == 0 || alone(filter, fake, change, local, owner);
                }
                assert_eq!(
                    alone(filters, fake, change, local, owner),
                    expected,
                    "{filters} {fake:?}"
                );
            }
        });
    }

    #[test]
    fn each_filter_decides_by_what_is_known() {
        each(|fake, change, local, owner| {
            let passes = |filter| alone(filter, fake, change, local, owner);
            assert_eq!(passes(LOCAL_PORT), [0, LISTED].contains(&local));
            let listening = fake.listens;
            let remote = fake.remote_port == LISTED || fake.remote_port == 0 && !listening;
            assert_eq!(
                passes(REMOTE_PORT),
                remote,
                "a listener has no remote port and never gets one"
            );
            assert_eq!(passes(NETNS), fake.in_netns);
            let mapped = fake.addresses.0 == MAPPED || fake.addresses.1 == MAPPED;
            let is_v4 = fake.family == AF_INET || mapped;
            // An IPv6 socket without a peer may yet get a mapped one, unless it listens.
            let may_be_v4 = !is_v4 && fake.addresses.1 == NONE && !listening;
            assert_eq!(passes(V4), is_v4 || may_be_v4, "{fake:?}");
            assert_eq!(passes(V6), !is_v4, "{fake:?}");
            assert!(passes(V4 | V6));
            let certain = ![how::UNKNOWN, how::LISTENER].contains(&owner.how);
            let watched = owner.pid == WATCHED || owner.actor == WATCHED || owner.flags != 0;
            let lingers = change.0 == CLOSE_WAIT || change.1 == CLOSE_WAIT;
            let expected = lingers || !certain || watched || owner.passed;
            assert_eq!(passes(PID), expected, "{owner:?}");
        });
    }

    #[test]
    fn a_state_filter_wants_what_touches_a_state() {
        for states in [u32::MAX, 1 << ESTABLISHED, 1 << CLOSE | 1 << LISTEN] {
            for old in 1..12 {
                for new in 1..12 {
                    let touches = states & (1 << old | 1 << new) != 0;
                    assert_eq!(is_wanted(0, states, &FAKE, (old, new), kind(old, new), 0), touches);
                }
            }
        }
    }

    #[test]
    fn findings_want_close_wait_and_ends_that_leave_the_fd_open() {
        for old in 1..12 {
            for new in 1..12 {
                for (actor, has_file) in [(0, false), (0, true), (WATCHED, false), (WATCHED, true)]
                {
                    let fake = Fake { has_file, ..FAKE };
                    let wanted =
                        is_wanted(FINDINGS, u32::MAX, &fake, (old, new), kind(old, new), actor);
                    let ends = new == CLOSE
                        && [ESTABLISHED, FIN_WAIT1, 5, 6, CLOSE_WAIT, LAST_ACK, 11].contains(&old);
                    let leaves_fd = ends && actor == 0 && has_file;
                    let lingers = old == CLOSE_WAIT || new == CLOSE_WAIT;
                    assert_eq!(wanted, lingers || leaves_fd, "{old} -> {new}");
                }
            }
        }
    }
}
