//! `sock:inet_sock_set_state`: one record for each state change.
//!
//! The tracepoint fires just before `sk_state` is written (net/ipv4/af_inet.c:
//! inet_sk_set_state), often in softirq on behalf of nobody in particular. `sk_lock.owned` says
//! which: 1 means that a task holds the socket lock, so the change happens in a system call on
//! this very socket (or in its backlog).

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use tcpwatch_common::{
    Counter, Field,
    change::{ACCEPTED, Act, BIRTH, LISTENING, OPENED, act},
    flag, how, state,
};

use crate::{
    change, filter,
    kernel::{Process, Ptr, current, load},
    listening,
    maps::{EVENTS, Remembered, count, new_id, remembered, wakeup},
    socket, tally,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    if !socket::is_ours(ctx.arg(0)) {
        return 0;
    }
    // Without storage the second program tries again.
    if let Some(known) = remembered(ctx.arg(0)) {
        known.told = name(ctx.arg(1), ctx.arg(2));
        handle(&ctx, known);
    }
    0
}

/// The same again, attached behind the first.
///
/// The kernel does not run a program that is running already on this CPU
/// (kernel/trace/bpf_trace.c: __bpf_trace_run), so a softirq that interrupts the first program is
/// not seen by it; the second then tells what it brought. They meet in the socket's storage, which
/// belongs to one context at a time: whoever holds the socket lock. A softirq interrupts no softirq, so
/// one of them sees every change, unless the kernel is preemptible.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn second_chance(ctx: BtfTracePointContext) -> i32 {
    if !socket::is_ours(ctx.arg(0)) {
        return 0;
    }
    let Some(known) = remembered(ctx.arg(0)) else {
        unremembered(ctx.arg(0), ctx.arg(1), ctx.arg(2));
        return 0;
    };
    let this = name(ctx.arg(1), ctx.arg(2));
    let told = known.told;
    known.told = 0;
    known.seen = this;
    if told != this {
        count(Counter::Caught);
        if load::<u32>(ctx.arg(0), Field::LockOwned) != 0 {
            count(Counter::Preempted);
        }
        handle(&ctx, known);
    }
    0
}

/// Once more, attached behind the second where tasks are preempted in these programs: from the beginning if
/// that is known, else when the second says so.
///
/// While such a task waits for this CPU, a softirq that interrupts another task in the second is seen by
/// neither; and the other way round. It takes two tasks that wait to have one that nobody sees. The agent
/// knows of that, and of what was before this is attached, from what the first has missed and the others
/// not caught.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn last_chance(ctx: BtfTracePointContext) -> i32 {
    if !socket::is_ours(ctx.arg(0)) {
        return 0;
    }
    let Some(known) = remembered(ctx.arg(0)) else { return 0 };
    let this = name(ctx.arg(1), ctx.arg(2));
    let (told, seen) = (known.told, known.seen);
    (known.told, known.seen) = (0, 0);
    if told != this && seen != this {
        count(Counter::Caught);
        handle(&ctx, known);
    }
    0
}

/// A number for a change; never 0. States are below 16.
#[inline(always)]
fn name(old: u32, new: u32) -> u8 {
    ((old & 0xf) << 4 | new & 0xf) as u8
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext, known: &mut Remembered) {
    let sk: Ptr = ctx.arg(0);
    let old: u32 = ctx.arg(1);
    let new: u32 = ctx.arg(2);
    let tcp = socket::tcp_sock(sk);
    let owned = load::<u32>(sk, Field::LockOwned) != 0;
    let kind = change::kind(old, new);
    look_back(sk, known, old, kind.into());
    let actor = if owned && acts(sk, known, kind.into()) != 0 { current() } else { None };
    known.state = new as u8;
    let born = kind & BIRTH != 0;
    socket::note_addresses(sk, known, kind.into(), new);
    recognise(known, kind, new, actor.as_ref());
    if kind & LISTENING != 0 {
        listening::note(sk, known, old, new);
    }
    let local_port = known.local_port;
    let change = Change { old, new, kind, born, owned, actor, local_port };
    let at_ns = if !tcp.is_null() && socket::is_subflow(tcp) {
        hide(known, &change)
    } else {
        if known.flags & flag::DEFERRED != 0 {
            known.flags &= !flag::DEFERRED;
            tell_deferred(sk, tcp, known, local_port);
        }
        tell(sk, tcp, known, &change, None)
    };
    if born {
        known.born_ns = at_ns;
    }
    if old != new {
        known.entered_ns = at_ns;
    }
    // Before 6.15 the cookie of a child in this very moment is its listener's
    // (net/ipv4/inet_connection_sock.c: inet_csk_clone_lock).
    known.cookie = if kind & ACCEPTED != 0 { 0 } else { load(sk, Field::Cookie) };
}

/// What changed.
pub struct Change {
    pub old: u32,
    pub new: u32,
    /// Bits of [`tcpwatch_common::change`].
    pub kind: u8,
    born: bool,
    owned: bool,
    actor: Option<Process>,
    pub local_port: u16,
}

// What the next three find goes into the socket's storage. In registers each answer would double what there is
// for the verifier to explore behind it; and only numbers are parameters, as the kernel takes no types of Rust.

/// Finds out whether changes of the socket before this one were seen by no program. They are counted as lost
/// unless nobody asked for them.
#[inline(never)]
fn look_back(sk: Ptr, known: &mut Remembered, old: u32, kind: u32) {
    let born = kind & u32::from(BIRTH) != 0;
    let before = u32::from(known.state);
    // An accepted child begins with a copy of its listener's storage.
    let orphan = !born && known.is_of_another(sk);
    known.missed = 0;
    if orphan {
        known.become_child();
    } else if before == 0 || before == old {
        return;
    }
    known.entered_ns = 0;
    // What is born now has no path yet that could have a gap.
    if !born {
        known.missed = flag::MISSED;
    }
    let before = if before == 0 { state::LISTEN } else { before };
    let local_port = load(sk, Field::LocalPort);
    let kind = change::kind(before, old);
    let (born, owned, actor) = (false, false, None);
    let missed = Change { old: before, new: old, kind, born, owned, actor, local_port };
    let tcp = socket::tcp_sock(sk);
    let hidden = !tcp.is_null() && socket::is_subflow(tcp);
    if !hidden && filter::concerns(sk, &missed, known, 0) && filter::is_wanted(sk, &missed, 0) {
        count(Counter::Missed);
    }
}

/// Finds out whether the running task, which holds the socket lock, made a change; 0 if not.
#[inline(never)]
fn acts(sk: Ptr, known: &mut Remembered, kind: u32) -> u32 {
    let is_tcp = load::<u16>(sk, Field::Protocol) == socket::IPPROTO_TCP;
    let error = || load(sk, Field::Error);
    let act = act(kind as u8, is_tcp, error, || socket::both_shut(sk));
    known.disconnects = u8::from(act == Act::Disconnect);
    u32::from(act != Act::None)
}

/// A transition of a socket for which the kernel has no storage. It is lost, unless it is one of those that
/// nobody asked for.
#[inline(never)]
fn unremembered(sk: Ptr, old: u32, new: u32) {
    let tcp = socket::tcp_sock(sk);
    if !tcp.is_null() && socket::is_subflow(tcp) {
        count(Counter::Filtered);
        return;
    }
    let kind = change::kind(old, new);
    let mut known = Remembered::NEW;
    let owned = load::<u32>(sk, Field::LockOwned) != 0;
    if owned
        && acts(sk, &mut known, kind.into()) != 0
        && let Some(actor) = current()
    {
        known.owner_how = how::FD;
        known.owner_pid = actor.pid;
    }
    let local_port = socket::local_port(sk, 0, new == state::CLOSE);
    let change = Change { old, new, kind, born: false, owned, actor: None, local_port };
    let actor_pid = known.owner_pid;
    let asked_for = filter::concerns(sk, &change, &mut known, actor_pid)
        && filter::is_wanted(sk, &change, actor_pid);
    count(if asked_for { Counter::NoStorage } else { Counter::Filtered });
}

/// Gives the socket an id if this is its birth or the first we see of it, and notes its owner.
#[inline(always)]
fn recognise(known: &mut Remembered, kind: u8, new: u32, actor: Option<&Process>) {
    if kind & ACCEPTED != 0 {
        known.become_child();
    }
    if kind & OPENED != 0 {
        known.id = 0;
        known.listener = 0;
        known.born_ns = 0;
        known.entered_ns = 0;
        known.pass = 0;
        known.passed = 0;
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
    // Whoever closes a connection has a descriptor of it.
    let uncertain = known.owner_how == how::UNKNOWN || known.owner_how == how::LISTENER;
    if let Some(actor) = actor
        && uncertain
        && kind & BIRTH == 0
    {
        known.owner_how = how::FD;
        known.owner_pid = actor.pid;
        known.owner_comm = actor.comm;
    }
    if known.id == 0 {
        known.id = new_id();
    }
}

/// Subflows are not shown, but they keep their history. The child of an MPTCP listener looks like
/// one until its first segment is processed (net/mptcp/subflow.c: subflow_ulp_clone), so its
/// birth is told later, if it turns out to be plain TCP.
#[inline(always)]
fn hide(known: &mut Remembered, change: &Change) -> u64 {
    if change.kind & ACCEPTED != 0 {
        known.flags |= flag::DEFERRED;
    } else {
        if known.flags & flag::DEFERRED != 0 {
            known.flags &= !flag::DEFERRED;
            count(Counter::Filtered);
        }
        count(Counter::Filtered);
    }
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn tell_deferred(sk: Ptr, tcp: Ptr, known: &mut Remembered, local_port: u16) {
    let entered_ns = known.entered_ns;
    known.entered_ns = 0;
    let change = Change {
        old: state::LISTEN,
        new: state::SYN_RECV,
        kind: ACCEPTED,
        born: false,
        owned: false,
        actor: None,
        local_port,
    };
    tell(sk, tcp, known, &change, Some(entered_ns));
    known.entered_ns = entered_ns;
}

/// Filters, emits and counts; returns when the change happened, which is now unless it is told late.
#[inline(always)]
fn tell(sk: Ptr, tcp: Ptr, known: &mut Remembered, change: &Change, at: Option<u64>) -> u64 {
    let actor_pid = change.actor.map_or(0, |process| process.pid);
    if !filter::concerns(sk, change, known, actor_pid) {
        count(Counter::Filtered);
        return unsafe { bpf_ktime_get_ns() };
    }
    let at_ns = if filter::is_wanted(sk, change, actor_pid) {
        emit(sk, tcp, known, change, at)
    } else {
        count(Counter::Filtered);
        unsafe { bpf_ktime_get_ns() }
    };
    tally::note(known, change, at_ns);
    at_ns
}

#[inline(always)]
fn emit(sk: Ptr, tcp: Ptr, known: &mut Remembered, change: &Change, at: Option<u64>) -> u64 {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::Lost);
        return unsafe { bpf_ktime_get_ns() };
    };
    // After the reserve, so that order in the ring is order in time.
    let at_ns = at.unwrap_or_else(|| unsafe { bpf_ktime_get_ns() });
    if change.born {
        known.born_ns = at_ns;
    }
    let out = unsafe { &mut *entry.as_mut_ptr() };
    out.at_ns = at_ns;
    socket::describe(&mut out.socket, sk, tcp, known, change.local_port);
    let newborn = change.born && change.kind & ACCEPTED != 0;
    out.socket.cookie = if newborn { 0 } else { socket::cookie(sk) };
    if change.owned {
        out.socket.flags |= flag::OWNED;
    }
    out.socket.flags |= known.missed;
    out.actor_pid = change.actor.map_or(0, |process| process.pid);
    out.actor_comm = change.actor.map_or([0; 16], |process| process.comm);
    out.old = change.old as u8;
    out.new = change.new as u8;
    out.actor_exiting = change.actor.map_or(0, |process| process.exiting as u8);
    out.actor_disconnects = known.disconnects;
    entry.submit(wakeup(count(Counter::Emitted)));
    at_ns
}
