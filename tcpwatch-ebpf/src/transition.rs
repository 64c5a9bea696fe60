//! `sock:inet_sock_set_state`: one record for each state change.
//!
//! The tracepoint fires just before `sk_state` is written (net/ipv4/af_inet.c:
//! inet_sk_set_state), often in softirq on behalf of nobody in particular. `sk_lock.owned` says
//! which: 1 means that a task holds the socket lock, so the change happens in a system call on
//! this very socket (or in its backlog).

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::warn;
use tcpwatch_common::{Counter, Field, flag, how, state};

use crate::{
    filter,
    kernel::{Process, Ptr, current, load},
    maps::{EVENTS, Remembered, count, new_id, remembered, wakeup},
    socket,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: Ptr = ctx.arg(0);
    let old: u32 = ctx.arg(1);
    let new: u32 = ctx.arg(2);
    if !socket::is_ours(sk) {
        return 0;
    }
    let tcp = socket::tcp_sock(sk);
    if !tcp.is_null() && socket::is_subflow(tcp) {
        count(Counter::Filtered);
        return 0;
    }
    let Some(known) = remembered(sk) else {
        count(Counter::Lost);
        if count(Counter::NoStorage) == 0 {
            warn!(&ctx, "no memory for socket storage: transitions of some sockets are lost");
        }
        return 0;
    };
    let owned = load::<u32>(sk, Field::LockOwned) != 0;
    let actor = if owned && is_system_call(sk, old, new) { current() } else { None };
    recognise(known, old, new, actor.as_ref());
    record(sk, tcp, old, new, known, owned, actor);
    0
}

/// The transitions a task makes on its own socket. Elsewhere even the task that holds the lock
/// may be a stranger: `ss -K` closes with it held, and sets an error.
#[inline(always)]
fn is_system_call(sk: Ptr, old: u32, new: u32) -> bool {
    match (old, new) {
        (state::CLOSE, state::LISTEN | state::SYN_SENT)
        | (state::ESTABLISHED, state::FIN_WAIT1)
        | (state::CLOSE_WAIT, state::LAST_ACK) => true,
        // From FIN_WAIT2, LAST_ACK and CLOSING it is the peer's segment that ends it, even if a
        // task drains it from its backlog.
        (
            state::ESTABLISHED
            | state::SYN_SENT
            | state::SYN_RECV
            | state::FIN_WAIT1
            | state::CLOSE_WAIT
            | state::LISTEN,
            state::CLOSE,
        ) => socket::both_shut(sk) && load::<u32>(sk, Field::Error) == 0,
        _ => false,
    }
}

/// Gives the socket an id if this is its birth or the first we see of it, and notes its owner.
#[inline(always)]
fn recognise(known: &mut Remembered, old: u32, new: u32, actor: Option<&Process>) {
    let opened = old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN);
    let accepted = old == state::LISTEN && new != state::CLOSE && new != state::LISTEN;
    if accepted {
        known.listener = known.id;
        known.flags = flag::PASSIVE;
        if known.owner_how != how::UNKNOWN {
            known.owner_how = how::LISTENER;
        }
    }
    if opened {
        known.listener = 0;
        known.flags = if new == state::SYN_SENT { flag::ACTIVE } else { 0 };
        known.owner_how = how::UNKNOWN;
        known.owner_pid = 0;
        known.owner_comm = [0; 16];
        if let Some(actor) = actor {
            known.owner_how = if new == state::LISTEN { how::LISTEN } else { how::CONNECT };
            known.owner_pid = actor.pid;
            known.owner_comm = actor.comm;
        }
    }
    if opened || accepted || known.id == 0 {
        known.id = new_id();
        known.local_port = 0;
        known.born_ns = 0;
        known.entered_ns = 0;
    }
}

/// Filters and emits, then stamps the storage: also what a filter hides keeps its history.
#[inline(always)]
fn record(
    sk: Ptr,
    tcp: Ptr,
    old: u32,
    new: u32,
    known: &mut Remembered,
    owned: bool,
    actor: Option<Process>,
) {
    let actor_pid = actor.map_or(0, |process| process.pid);
    let born = old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN)
        || old == state::LISTEN && new != state::CLOSE && new != state::LISTEN;
    let local_port = socket::local_port(sk, tcp, known, new == state::CLOSE);
    known.local_port = local_port;
    let at_ns;
    if filter::passes(sk, local_port, old, new, known, actor_pid) {
        if let Some(mut entry) = EVENTS.reserve(0) {
            // After the reserve, so that order in the ring is order in time.
            at_ns = unsafe { bpf_ktime_get_ns() };
            if born {
                known.born_ns = at_ns;
            }
            let out = unsafe { &mut *entry.as_mut_ptr() };
            out.at_ns = at_ns;
            socket::describe(&mut out.socket, sk, tcp, known, local_port);
            // Before 6.15 the cookie of a child in this very moment is its listener's
            // (net/ipv4/inet_connection_sock.c: inet_csk_clone_lock).
            out.socket.cookie = if old == state::LISTEN && born { 0 } else { socket::cookie(sk) };
            if owned {
                out.socket.flags |= flag::OWNED;
            }
            out.actor_pid = actor_pid;
            out.actor_comm = actor.map_or([0; 16], |process| process.comm);
            out.old = old as u8;
            out.new = new as u8;
            out.reserved = [0; 2];
            entry.submit(wakeup(count(Counter::Emitted)));
        } else {
            at_ns = unsafe { bpf_ktime_get_ns() };
            count(Counter::Lost);
        }
    } else {
        at_ns = unsafe { bpf_ktime_get_ns() };
        count(Counter::Filtered);
    }
    if born {
        known.born_ns = at_ns;
    }
    if old != new {
        known.entered_ns = at_ns;
    }
}
