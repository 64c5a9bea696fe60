//! The filters (`tcpwatch_common::select`), with what they ask read from the socket and the maps.

use tcpwatch_common::{
    Field, Setting, filter, flag,
    select::{self, Ownership, Subject},
    state,
};

use crate::{
    kernel::{Ptr, load, load16, setting},
    maps::{LOCAL_PORTS, NETNS, PIDS, REMOTE_PORTS, Remembered},
    socket::netns,
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
    let (filters, states) = (setting(Setting::Filters), setting(Setting::States));
    let pair = (change.old, change.new);
    select::is_wanted(filters, states, &Live { sk, stale: false }, pair, change.kind, actor)
}

/// Whether a transition is of a socket that the filters let pass. `actor` is 0 if unknown.
#[inline(always)]
pub fn concerns(sk: Ptr, change: &Change, known: &mut Remembered, actor: u32) -> bool {
    let filters = setting(Setting::Filters);
    // A socket that was a watched process's once is emitted to its end, whoever has it by then.
    if filters & filter::PID != 0
        && known.flags & flag::WATCHED == 0
        && (is_watched(known.owner_pid) || is_watched(actor))
    {
        known.flags |= flag::WATCHED;
    }
    let owner = Ownership {
        pid: known.owner_pid,
        how: known.owner_how,
        flags: known.flags,
        passed: known.passed != 0,
        actor,
    };
    let socket = Live { sk, stale: known.stale != 0 };
    let passes = select::concerns(filters, &socket, change.kind, change.local_port, &owner);
    if filters & filter::PID != 0 && passes {
        known.passed = 1;
    }
    passes
}

/// A socket of the kernel.
struct Live {
    sk: Ptr,
    /// Its addresses are those of an earlier connection.
    stale: bool,
}

impl Subject for Live {
    #[inline(always)]
    fn family(&self) -> u16 {
        load(self.sk, Field::Family)
    }

    #[inline(always)]
    fn addresses(&self) -> ([u8; 16], [u8; 16]) {
        (load16(self.sk, Field::LocalV6), load16(self.sk, Field::RemoteV6))
    }

    #[inline(always)]
    fn listens(&self) -> bool {
        u32::from(load::<u8>(self.sk, Field::State)) == state::LISTEN
    }

    #[inline(always)]
    fn remote_port(&self) -> u16 {
        if self.stale { 0 } else { u16::from_be(load(self.sk, Field::RemotePort)) }
    }

    #[inline(always)]
    fn has_file(&self) -> bool {
        !load::<Ptr>(self.sk, Field::SocketOfSock).is_null()
    }

    #[inline(always)]
    fn is_local_port(&self, port: u16) -> bool {
        in_set(LOCAL_PORTS.get((port >> 6).into()).copied(), port)
    }

    #[inline(always)]
    fn is_remote_port(&self, port: u16) -> bool {
        in_set(REMOTE_PORTS.get((port >> 6).into()).copied(), port)
    }

    #[inline(always)]
    fn is_in_netns(&self) -> bool {
        NETNS.get_ptr(netns(self.sk)).is_some()
    }

    #[inline(always)]
    fn is_watched(&self, pid: u32) -> bool {
        is_watched(pid)
    }
}

#[inline(always)]
fn in_set(word: Option<u64>, port: u16) -> bool {
    word.unwrap_or(0) >> (port & 63) & 1 != 0
}
