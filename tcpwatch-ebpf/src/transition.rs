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
    change, filter, listening,
    kernel::{Process, Ptr, current, load},
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

/// A transition of a socket for which the kernel has no storage. It is lost, unless it is one of those that
/// nobody asked for.
#[inline(never)]
fn unremembered(sk: Ptr, old: u32, new: u32) {
    let tcp = socket::tcp_sock(sk);
    if !tcp.is_null() && socket::is_subflow(tcp) {
        count(Counter::Filtered);
        return;
    }
    let mut known = Remembered::NEW;
    let change = Change::new(sk, tcp, &known, old, new);
    let actor = change.actor_pid();
    if actor != 0 {
        known.owner_how = how::FD;
        known.owner_pid = actor;
    }
    let concerns = filter::concerns(sk, &change, &known, actor);
    let asked_for = concerns && filter::is_wanted(sk, &change, actor);
    count(if asked_for { Counter::NoStorage } else { Counter::Filtered });
}

#[inline(always)]
fn handle(ctx: &BtfTracePointContext, known: &mut Remembered) {
    let sk: Ptr = ctx.arg(0);
    let tcp = socket::tcp_sock(sk);
    // An accepted child begins with a copy of its listener's storage.
    let orphan = known.is_of_another(sk);
    let mut change = Change::new(sk, tcp, known, ctx.arg(1), ctx.arg(2));
    let before = known.state;
    change.missed = before != 0 && u32::from(before) != change.old;
    if orphan && !change.born {
        known.become_child();
        change.missed = true;
    }
    if change.missed {
        known.entered_ns = 0;
        note_missed(sk, known, &change, before.into());
    }
    known.state = change.new as u8;
    recognise(known, &change);
    if change.kind & LISTENING != 0 {
        listening::note(known, tcp, change.old, change.new);
    }
    known.local_port = change.local_port;
    known.stale_port = if change.stale { socket::source_port(sk) } else { 0 };
    let at_ns = if !tcp.is_null() && socket::is_subflow(tcp) {
        hide(known, &change)
    } else {
        if known.flags & flag::DEFERRED != 0 {
            known.flags &= !flag::DEFERRED;
            tell_deferred(sk, tcp, known, change.local_port);
        }
        tell(sk, tcp, known, &change, None)
    };
    if change.born {
        known.born_ns = at_ns;
    }
    if change.old != change.new {
        known.entered_ns = at_ns;
    }
    // Before 6.15 the cookie of a child in this very moment is its listener's
    // (net/ipv4/inet_connection_sock.c: inet_csk_clone_lock).
    known.cookie = if change.is_newborn() { 0 } else { load(sk, Field::Cookie) };
}

/// Counts changes of a socket that no program has seen, unless they are of those that nobody asked for.
/// They began in the state `before`, or in `LISTEN` if that is not known.
#[inline(never)]
fn note_missed(sk: Ptr, known: &Remembered, change: &Change, before: u32) {
    let before = if before == 0 { state::LISTEN } else { before };
    let missed = Change {
        old: before,
        new: change.old,
        kind: change::kind(before, change.old),
        actor: None,
        ..*change
    };
    if filter::concerns(sk, &missed, known, change.actor_pid())
        && filter::is_wanted(sk, &missed, 0)
    {
        count(Counter::Missed);
    }
}

/// What changed.
#[derive(Clone, Copy)]
pub struct Change {
    pub old: u32,
    pub new: u32,
    /// Bits of [`tcpwatch_common::change`].
    pub kind: u8,
    born: bool,
    owned: bool,
    /// A change of this socket before this one was seen by no program.
    missed: bool,
    /// The process that made it, if that is certain.
    actor: Option<Process>,
    act: Act,
    /// The addresses are those of an earlier connection.
    pub stale: bool,
    pub local_port: u16,
}

impl Change {
    #[inline(always)]
    fn new(sk: Ptr, tcp: Ptr, known: &Remembered, old: u32, new: u32) -> Self {
        let owned = load::<u32>(sk, Field::LockOwned) != 0;
        let kind = change::kind(old, new);
        let error = || load(sk, Field::Error);
        let act = if owned {
            act(kind, !tcp.is_null(), error, || socket::both_shut(sk))
        } else {
            Act::None
        };
        let actor = if act == Act::None { None } else { current() };
        let stale = tcp.is_null() && socket::has_stale_addresses(sk, known, kind);
        let closing = new == state::CLOSE;
        let local_port =
            if stale { 0 } else { socket::local_port(sk, tcp, known.local_port, closing) };
        let born = kind & BIRTH != 0;
        Self { old, new, kind, born, owned, missed: false, actor, act, stale, local_port }
    }

    /// Id of the process that made it, 0 if unknown.
    #[inline(always)]
    fn actor_pid(&self) -> u32 {
        self.actor.map_or(0, |process| process.pid)
    }

    /// A child that has only just been made from its listener.
    #[inline(always)]
    fn is_newborn(&self) -> bool {
        self.born && self.kind & ACCEPTED != 0
    }
}

/// Gives the socket an id if this is its birth or the first we see of it, and notes its owner.
#[inline(always)]
fn recognise(known: &mut Remembered, change: &Change) {
    let kind = change.kind;
    if kind & ACCEPTED != 0 {
        known.become_child();
    }
    if kind & OPENED != 0 {
        let (told, seen, state) = (known.told, known.seen, known.state);
        *known = Remembered { told, seen, state, ..Remembered::NEW };
        known.flags = if change.new == state::SYN_SENT { flag::ACTIVE } else { 0 };
        if let Some(actor) = change.actor {
            known.owner_how = if change.new == state::LISTEN { how::LISTEN } else { how::CONNECT };
            known.owner_pid = actor.pid;
            known.owner_comm = actor.comm;
        }
    }
    // Whoever closes a connection has a descriptor of it.
    let uncertain = known.owner_how == how::UNKNOWN || known.owner_how == how::LISTENER;
    if let Some(actor) = change.actor
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
        missed: false,
        actor: None,
        act: Act::None,
        stale: false,
        local_port,
    };
    tell(sk, tcp, known, &change, Some(entered_ns));
    known.entered_ns = entered_ns;
}

/// Filters, emits and counts; returns when the change happened, which is now unless it is told late.
#[inline(always)]
fn tell(sk: Ptr, tcp: Ptr, known: &mut Remembered, change: &Change, at: Option<u64>) -> u64 {
    let actor_pid = change.actor_pid();
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
    if change.stale {
        socket::leave_out_addresses(&mut out.socket);
    }
    out.socket.cookie = if change.is_newborn() { 0 } else { socket::cookie(sk) };
    if change.owned {
        out.socket.flags |= flag::OWNED;
    }
    // What is born now has no path yet that could have a gap.
    if change.missed && !change.born {
        out.socket.flags |= flag::MISSED;
    }
    out.actor_pid = change.actor_pid();
    out.actor_comm = change.actor.map_or([0; 16], |process| process.comm);
    out.old = change.old as u8;
    out.new = change.new as u8;
    out.actor_exiting = change.actor.map_or(0, |process| u8::from(process.exiting));
    out.actor_disconnects = u8::from(change.act == Act::Disconnect);
    entry.submit(wakeup(count(Counter::Emitted)));
    at_ns
}
