//! Iterators: one pass over every open file of the host, or over every socket with storage.
//!
//! `task_file` names holders and takes in sockets that were open before tcpwatch. `storage`
//! finds sockets without a file descriptor: the accept queue, and closed ones in transit. Where it would
//! harm the kernel, `task_file` emits the accept queues.
//!
//! What one step of an iterator writes must fit the kernel's buffer ([`tcpwatch_common::STEP_BYTES`]), else
//! the whole read fails. What does not fit behind the steps before it is undone and shown again
//! (kernel/bpf/bpf_iter.c: bpf_seq_read), so a step notes what it has done only after all was written.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::seq_file,
    helpers::generated::{
        bpf_jiffies64, bpf_ktime_get_ns, bpf_seq_write, bpf_skc_to_tcp_timewait_sock,
        bpf_sock_from_file,
    },
};
use tcpwatch_common::{
    Field, MOST_DETAILED, MOST_EMITTED, PassSetting, RawObserved, Setting, flag, how, look, opened,
    state,
};

use crate::{
    detail,
    filter::is_watched,
    kernel::{Process, Ptr, has, load, process, read, setting},
    maps::{Remembered, pass_setting, remembered, scratch},
    queue, socket, waiters,
};

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct IterMeta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskFileContext {
    meta: *const IterMeta,
    task: Ptr,
    fd: u32,
    file: Ptr,
}

/// `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c).
#[repr(C)]
pub struct TcpContext {
    meta: *const IterMeta,
    sk_common: Ptr,
    uid: u32,
}

/// `struct bpf_iter__bpf_sk_storage_map` (net/core/bpf_sk_storage.c).
#[repr(C)]
pub struct StorageContext {
    meta: *const IterMeta,
    map: Ptr,
    sk: Ptr,
    value: *mut Remembered,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn task_file(ctx: *const TaskFileContext) -> i32 {
    let (meta, task, fd, file) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).meta),
            core::ptr::read_volatile(&raw const (*ctx).task),
            core::ptr::read_volatile(&raw const (*ctx).fd),
            core::ptr::read_volatile(&raw const (*ctx).file),
        )
    };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let pid: u32 = load(task, Field::TaskTgid);
    let watched = is_watched(pid);
    let socket_file: Ptr =
        unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast_const().cast();
    if socket_file.is_null() {
        return 0;
    }
    let sk: Ptr = load(socket_file, Field::SockOfSocket);
    // The state first: most sockets of a busy host are in none that a pass asks for, and each
    // field more costs a cache miss. A watched process's are noted all the same.
    if sk.is_null() || !watched && !is_wanted(sk) || !socket::is_ours(sk) {
        return 0;
    }
    let Some(holder) = process(task) else { return 0 };
    let file = if waiters::readable() { read(unsafe { &raw const (*ctx).file } as u64) } else { 0 };
    let look = Look { meta, sk, file, holder: &holder, fd, details: true };
    let number = pass_setting(PassSetting::Number);
    if setting(Setting::LookOnly) != 0 {
        let mut known = stranger(sk);
        adopt(&mut known, sk, &holder, watched);
        // Of a listener with a queue it is remembered that this was walked.
        let own = if load::<u32>(sk, Field::QueueLen) != 0 { remembered(sk) } else { None };
        let walked = own.as_ref().is_some_and(|own| own.pass == number);
        if emit(&look, &known, walked)
            && let Some(own) = own
        {
            own.pass = number;
        }
        return 0;
    }
    let Some(known) = remembered(sk) else { return 0 };
    adopt(known, sk, &holder, watched);
    if pass_setting(PassSetting::PidsOnly) != 0 && !watched {
        return 0;
    }
    let walked = known.pass == number;
    if emit(&look, known, walked) {
        known.pass = number;
    }
    0
}

/// Whether this pass asks for the socket's state.
#[inline(always)]
fn is_wanted(sk: Ptr) -> bool {
    let present: u8 = load(sk, Field::State);
    pass_setting(PassSetting::States) >> (present & 31) & 1 != 0
}

/// A socket of which nothing is remembered; its cookie stands for it. Several MPTCP sockets may
/// have the same, so of those the file's inode does; an inode is far below 2^63.
#[inline(always)]
fn stranger(sk: Ptr) -> Remembered {
    let mut known: Remembered = unsafe { MaybeUninit::zeroed().assume_init() };
    let mptcp = load::<u16>(sk, Field::Protocol) == socket::IPPROTO_MPTCP;
    known.id = if mptcp {
        1 << 63 | socket::inode(sk, load(sk, Field::SocketOfSock))
    } else {
        socket::cookie(sk)
    };
    known
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn storage(ctx: *const StorageContext) -> i32 {
    let (meta, sk, value) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).meta),
            core::ptr::read_volatile(&raw const (*ctx).sk),
            core::ptr::read_volatile(&raw const (*ctx).value),
        )
    };
    if sk.is_null() || value.is_null() {
        return 0;
    }
    let known = unsafe { &mut *value };
    // Writing it again would be quadratic, too: the kernel finds its place in the map anew for each
    // buffer it hands out (net/core/bpf_sk_storage.c: bpf_sk_storage_map_seq_find_next).
    if known.pass == pass_setting(PassSetting::Number) || !socket::is_ours(sk) {
        return 0;
    }
    known.identify(sk);
    record(&Look::at(meta, sk), known, socket::tcp_sock(sk));
    0
}

/// Cookies of the connections in `CLOSE_WAIT` of one network namespace. One that no file descriptor
/// led to is a reason to load `tcp`, which takes the verifier much longer than this.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn cookies(ctx: *const TcpContext) -> i32 {
    let (meta, common) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).meta),
            core::ptr::read_volatile(&raw const (*ctx).sk_common),
        )
    };
    if common.is_null() || u32::from(load::<u8>(common, Field::State)) != state::CLOSE_WAIT {
        return 0;
    }
    let mut cookie = socket::cookie(common);
    unsafe {
        bpf_seq_write(
            core::ptr::read_volatile(&raw const (*meta).seq),
            (&raw mut cookie).cast(),
            size_of::<u64>() as u32,
        );
    }
    0
}

/// Sockets of one network namespace that no file descriptor leads to: the accept queue, orphans, and
/// those that only another kernel object refers to. A scan that remembers nothing gets those that have
/// a file all the same, as it cannot tell which of them `task_file` has found.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn tcp(ctx: *const TcpContext) -> i32 {
    let (meta, common) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).meta),
            core::ptr::read_volatile(&raw const (*ctx).sk_common),
        )
    };
    if common.is_null() {
        return 0;
    }
    let sk = socket::tcp_sock(common);
    if sk.is_null() {
        minisock(meta, common);
        return 0;
    }
    if !is_wanted(sk) {
        return 0;
    }
    let look = Look::at(meta, sk);
    if setting(Setting::LookOnly) != 0 {
        record(&look, &stranger(sk), sk);
        return 0;
    }
    let Some(known) = remembered(sk) else { return 0 };
    // Its holder was seen in this scan.
    if known.id != 0 && known.pass == pass_setting(PassSetting::Number) {
        return 0;
    }
    known.identify(sk);
    record(&look, known, sk);
    0
}

/// A request or `TIME_WAIT` minisock: it has the common part alone, and no storage.
#[inline(always)]
fn minisock(meta: *const IterMeta, common: Ptr) {
    if pass_setting(PassSetting::States) >> state::TIME_WAIT & 1 == 0 {
        return;
    }
    let timewait: Ptr =
        unsafe { bpf_skc_to_tcp_timewait_sock(common.cast_mut().cast()) }.cast_const().cast();
    if timewait.is_null() {
        return;
    }
    // A connection that waits for the peer's FIN is kept as a minisock too (tcp_time_wait).
    let present: u8 = if has(Field::TimewaitSubstate) {
        load(timewait, Field::TimewaitSubstate)
    } else {
        state::TIME_WAIT as u8
    };
    let mut record: RawObserved = unsafe { MaybeUninit::zeroed().assume_init() };
    let out = &mut record;
    out.at_ns = unsafe { bpf_ktime_get_ns() };
    socket::describe_common(&mut out.socket, common);
    out.state = present;
    write(meta, out);
}

/// Takes in a socket that we had not seen, and corrects an owner that was only inherited.
#[inline(always)]
fn adopt(known: &mut Remembered, sk: Ptr, holder: &Process, watched: bool) {
    known.identify(sk);
    // What is copied to children tells them from their listener.
    if known.cookie == 0 {
        known.cookie = socket::cookie(sk);
    }
    if watched {
        known.flags |= flag::WATCHED;
    }
    let listens = u32::from(load::<u8>(sk, Field::State)) == state::LISTEN;
    let inherited = known.owner_how == how::LISTENER && !listens;
    if known.owner_how == how::UNKNOWN || inherited {
        known.owner_how = how::FD;
        known.owner_pid = holder.pid;
        known.owner_comm = holder.comm;
    }
}

/// The age of a `CLOSE_WAIT` that is older than we are lies between the first two.
#[inline(always)]
fn has_ages(tcp: Ptr) -> bool {
    !tcp.is_null() && has(Field::AckReceived) && has(Field::DataReceived) && has(Field::DataSent)
}

#[inline(always)]
fn ages(tcp: Ptr, now: u32) -> [u32; 3] {
    if !has_ages(tcp) {
        return [0; 3];
    }
    [
        now.wrapping_sub(load(tcp, Field::AckReceived)),
        now.wrapping_sub(load(tcp, Field::DataReceived)),
        now.wrapping_sub(load(tcp, Field::DataSent)),
    ]
}

/// `SOCK_KEEPOPEN` is bit 3 of `sk_flags` (include/net/sock.h: enum sock_flags).
#[inline(always)]
fn keepalive(sk: Ptr) -> bool {
    const SOCK_KEEPOPEN: u64 = 3;
    load::<u64>(sk, Field::SockFlags) >> SOCK_KEEPOPEN & 1 != 0
}

/// `snd_wl1` is the sequence number of the last segment that could have changed the send window. A
/// FIN takes one, so whatever comes after it has a higher one than the FIN had (net/ipv4/tcp_input.c:
/// tcp_may_update_window, tcp_update_wl). Of use in `CLOSE_WAIT`.
#[inline(always)]
fn quiet_since_fin(tcp: Ptr) -> bool {
    load::<u32>(tcp, Field::SndWl1) != load::<u32>(tcp, Field::RcvNxt)
}

/// Who opened a connection that has not sent a FIN. `bytes_acked` counts the SYN of the side that
/// connected (net/ipv4/tcp_input.c: tcp_snd_una_update) and not of the side that accepted, whose
/// `snd_una` starts behind it (net/ipv4/tcp_minisocks.c: tcp_create_openreq_child).
#[inline(always)]
fn opened(tcp: Ptr) -> u8 {
    let known = has(Field::BytesSent) && has(Field::BytesRetrans) && has(Field::SndNxt);
    if tcp.is_null() || !known {
        return opened::UNKNOWN;
    }
    let in_flight = load::<u32>(tcp, Field::SndNxt).wrapping_sub(load(tcp, Field::SndUna));
    let sent = load::<u64>(tcp, Field::BytesSent).wrapping_sub(load(tcp, Field::BytesRetrans));
    let acked = load::<u64>(tcp, Field::BytesAcked).wrapping_add(u64::from(in_flight));
    match acked.wrapping_sub(sent) {
        1 => opened::HERE,
        0 => opened::THERE,
        _ => opened::UNKNOWN,
    }
}

/// One look at a socket.
struct Look<'a> {
    meta: *const IterMeta,
    sk: Ptr,
    /// Address of the file it was found through, or 0.
    file: u64,
    holder: &'a Process,
    fd: u32,
    /// With the details that were asked for.
    details: bool,
}

impl Look<'_> {
    /// At a socket that was not found through a file.
    #[inline(always)]
    fn at(meta: *const IterMeta, sk: Ptr) -> Self {
        Self { meta, sk, file: 0, holder: &Process::NONE, fd: 0, details: true }
    }
}

/// Emits a socket that somebody holds, and before it what waits at it to be accepted, unless `storage` does.
/// The queue is `walked` already if another holder was here in this pass. Says whether all was written.
#[inline(always)]
fn emit(seen: &Look<'_>, known: &Remembered, walked: bool) -> bool {
    let tcp = socket::tcp_sock(seen.sk);
    let listens = u32::from(load::<u8>(seen.sk, Field::State)) == state::LISTEN;
    if listens && !tcp.is_null() && !walked {
        let emits = setting(Setting::EmitQueued) != 0 && pass_setting(PassSetting::PidsOnly) == 0;
        // That a connection is seen matters more than its details.
        let details = setting(Setting::Details) != 0
            && load::<u32>(seen.sk, Field::QueueLen) <= MOST_DETAILED;
        let most = if details { MOST_DETAILED } else { MOST_EMITTED };
        queue::mark(known, tcp, most, |child, known| {
            if emits {
                let look = Look { details, ..Look::at(seen.meta, child) };
                record(&look, known, socket::tcp_sock(child));
            }
        });
    }
    record(seen, known, tcp)
}

/// Emits one look, if it is at a socket that is asked for. Says whether it was written.
#[inline(never)]
fn record(seen: &Look<'_>, known: &Remembered, tcp: Ptr) -> bool {
    let sk = seen.sk;
    // Before the state is read, so that a later transition sorts behind this look.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let present: u8 = load(sk, Field::State);
    if pass_setting(PassSetting::States) >> (present & 31) & 1 == 0 {
        return true;
    }
    if !tcp.is_null() && socket::is_subflow(tcp) {
        return true;
    }
    let Some(out) = scratch() else { return true };
    out.at_ns = at_ns;
    let closed = u32::from(present) == state::CLOSE;
    let local_port = socket::local_port(sk, known.local_port, closed);
    socket::describe(&mut out.socket, sk, tcp, known, local_port);
    out.socket.cookie = socket::cookie(sk);
    out.holder_pid = seen.holder.pid;
    out.holder_fd = seen.fd;
    out.holder_comm = seen.holder.comm;
    out.queue_len = load(sk, Field::QueueLen);
    out.queue_limit = load(sk, Field::QueueLimit);
    out.jiffies = unsafe { bpf_jiffies64() };
    let ages = ages(tcp, out.jiffies as u32);
    out.since_ack_received = ages[0];
    out.since_data_received = ages[1];
    out.since_data_sent = ages[2];
    out.bits = 0;
    if has_ages(tcp) {
        out.bits |= look::HAS_AGES;
    }
    if !tcp.is_null() && has(Field::SndWl1) && quiet_since_fin(tcp) {
        out.bits |= look::QUIET_SINCE_FIN;
    }
    if has(Field::SockFlags) && keepalive(sk) {
        out.bits |= look::KEEPALIVE;
    }
    out.reserved = [0; 2];
    out.state = present;
    out.send_window =
        if tcp.is_null() || !has(Field::SendWindow) { 0 } else { load(tcp, Field::SendWindow) };
    let waited_for = 1 << (present & 31) & WAITED_FOR != 0;
    waiters::describe(out, sk, if waited_for { seen.file } else { 0 });
    out.opened =
        if u32::from(present) == state::CLOSE_WAIT { opened(tcp) } else { opened::UNKNOWN };
    let detailed = setting(Setting::Details) != 0
        && seen.details
        && u32::from(present) == state::CLOSE_WAIT
        && !tcp.is_null();
    if detailed {
        out.bits |= look::HAS_DETAILS;
    }
    let written = write(seen.meta, out);
    if !detailed {
        return written;
    }
    detail::write(unsafe { core::ptr::read_volatile(&raw const (*seen.meta).seq) }, tcp)
}

/// States in which it matters who waits for the socket.
const WAITED_FOR: u32 = 1 << state::CLOSE_WAIT | 1 << state::CLOSE | 1 << state::LISTEN;

/// Says whether there was room.
#[inline(always)]
fn write(meta: *const IterMeta, record: &RawObserved) -> bool {
    let failed = unsafe {
        bpf_seq_write(
            core::ptr::read_volatile(&raw const (*meta).seq),
            (&raw const *record).cast_mut().cast(),
            size_of::<RawObserved>() as u32,
        )
    };
    failed == 0
}
