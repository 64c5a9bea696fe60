//! Filters that are correct in the kernel.
//!
//! A port or address that is not known yet never fails a filter: the agent settles it when it
//! is. The owner filter never looks at the running task, because the task on the CPU when a FIN
//! arrives is a stranger.

use tcpwatch_common::{Field, Setting, filter, flag, how, state};

use crate::{
    change,
    kernel::{Ptr, load, load16, setting},
    maps::{LOCAL_PORTS, NETNS, PIDS, REMOTE_PORTS, Remembered},
    socket::{AF_INET, netns},
    transition::Change,
};

/// Whether one of the watched processes has this id.
#[inline(always)]
pub fn is_watched(pid: u32) -> bool {
    pid != 0 && PIDS.get_ptr(pid).is_some()
}

/// Whether a transition is one of those to emit.
#[inline(always)]
pub fn is_wanted(sk: Ptr, change: &Change, actor: u32) -> bool {
    let states = setting(Setting::States);
    if states != u32::MAX
        && states >> (change.old & 31) & 1 == 0
        && states >> (change.new & 31) & 1 == 0
    {
        return false;
    }
    setting(Setting::Filters) & filter::FINDINGS == 0 || matters_to_findings(sk, change.kind, actor)
}

/// Whether a transition is of a socket that the filters let pass. `actor` is 0 if unknown.
#[inline(always)]
pub fn concerns(sk: Ptr, change: &Change, known: &mut Remembered, actor: u32) -> bool {
    let filters = setting(Setting::Filters);
    if filters & (filter::V4 | filter::V6) != 0 && !family_passes(sk, filters) {
        return false;
    }
    let local_port = change.local_port;
    if filters & filter::LOCAL_PORT != 0 {
        let words = LOCAL_PORTS.get((local_port >> 6).into()).copied();
        if local_port != 0 && !in_set(words, local_port) {
            return false;
        }
    }
    if filters & filter::REMOTE_PORT != 0 {
        let port = u16::from_be(load(sk, Field::RemotePort));
        let unknown = port == 0 && change.kind & change::LISTENING == 0;
        if !unknown && !in_set(REMOTE_PORTS.get((port >> 6).into()).copied(), port) {
            return false;
        }
    }
    if filters & filter::NETNS != 0 && NETNS.get_ptr(netns(sk)).is_none() {
        return false;
    }
    // Whoever holds a socket when it begins to linger is found by a pass, and may have got it from
    // its owner in the meantime.
    filters & filter::PID == 0
        || owner_passes(known, actor)
        || change.kind & change::CLOSE_WAIT != 0
}

/// Into and out of `CLOSE_WAIT`, and an end that leaves the fd open: nobody closed the socket,
/// yet its file is still there.
#[inline(always)]
fn matters_to_findings(sk: Ptr, kind: u8, actor: u32) -> bool {
    kind & change::CLOSE_WAIT != 0
        || kind & change::END != 0 && actor == 0 && !load::<Ptr>(sk, Field::SocketOfSock).is_null()
}

#[inline(always)]
fn family_passes(sk: Ptr, filters: u32) -> bool {
    let (local, remote) = (load16(sk, Field::LocalV6), load16(sk, Field::RemoteV6));
    let mapped = is_v4_mapped(&local) || is_v4_mapped(&remote);
    if load::<u16>(sk, Field::Family) == AF_INET || mapped {
        return filters & filter::V4 != 0;
    }
    let listens = u32::from(load::<u8>(sk, Field::State)) == state::LISTEN;
    filters & filter::V6 != 0 || remote == [0; 16] && !listens
}

#[inline(always)]
fn is_v4_mapped(addr: &[u8; 16]) -> bool {
    u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]])
        == 0
        && u32::from_ne_bytes([addr[8], addr[9], addr[10], addr[11]]) == 0xffff_0000_u32
}

#[inline(always)]
fn in_set(word: Option<u64>, port: u16) -> bool {
    word.unwrap_or(0) >> (port & 63) & 1 != 0
}

/// Known owners are matched; uncertain ones (unknown, or inherited from a listener that workers
/// share) pass and are settled by the agent. A socket that was a watched process's once is told of to
/// its end, whoever has it by then.
#[inline(always)]
fn owner_passes(known: &mut Remembered, actor: u32) -> bool {
    if known.flags & flag::WATCHED == 0 && (is_watched(known.owner_pid) || is_watched(actor)) {
        known.flags |= flag::WATCHED;
    }
    known.flags & flag::WATCHED != 0
        || known.owner_how == how::UNKNOWN
        || known.owner_how == how::LISTENER
}
