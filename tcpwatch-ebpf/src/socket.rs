//! Facts of one socket.

use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
};
use tcpwatch_common::{
    Field, RawSocket,
    change::{BIRTH, OPENED},
    flag,
    select::{AF_INET, AF_INET6},
    state,
};

use crate::{
    kernel::{Ptr, address, has, load, load16, read},
    maps::Remembered,
    waiters,
};

pub const IPPROTO_TCP: u16 = 6;
pub const IPPROTO_MPTCP: u16 = 262;
const SOCK_STREAM: u16 = 1;
const SHUTDOWN_BOTH: u8 = 3;

/// The `struct tcp_sock` of a plain TCP socket, else null.
#[inline(always)]
pub fn tcp_sock(sk: Ptr) -> Ptr {
    unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast_const().cast()
}

/// Whether this is a TCP or MPTCP socket that an application has: raw sockets of protocol 6 and
/// other families share the numbers.
#[inline(always)]
pub fn is_ours(sk: Ptr) -> bool {
    let protocol: u16 = load(sk, Field::Protocol);
    let family: u16 = load(sk, Field::Family);
    let kind: u16 = load(sk, Field::Type);
    (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
        && (family == AF_INET || family == AF_INET6)
        && kind == SOCK_STREAM
}

/// Whether this TCP socket is a path of an MPTCP connection. The application's socket is the
/// MPTCP one; the paths follow it (net/mptcp/subflow.c).
#[inline(always)]
pub fn is_subflow(tcp: Ptr) -> bool {
    has(Field::IsMptcp) && load::<u8>(tcp, Field::IsMptcp) & 1 != 0
}

/// Local port. At `->CLOSE` `skc_num` is 0 already (net/ipv4/tcp.c: tcp_set_state), so what was
/// remembered serves, or `inet_sport`. Elsewhere `inet_sport` may be that of an earlier
/// connection on the same socket.
#[inline(always)]
pub fn local_port(sk: Ptr, remembered: u16, closing: bool) -> u16 {
    let port: u16 = load(sk, Field::LocalPort);
    if port != 0 || !closing {
        return port;
    }
    if remembered != 0 {
        return remembered;
    }
    let tcp = tcp_sock(sk);
    if tcp.is_null() { source_port(sk) } else { u16::from_be(load(tcp, Field::SourcePort)) }
}

/// `inet_sport` of an MPTCP socket, of which the verifier knows the beginning only.
#[inline(always)]
pub fn source_port(sk: Ptr) -> u16 {
    if !waiters::readable() {
        return 0;
    }
    u16::from_be(read(address(sk, Field::SourcePort) as u64))
}

/// Source and remote port of an MPTCP socket.
#[inline(always)]
fn ports(sk: Ptr) -> u32 {
    u32::from(source_port(sk)) << 16 | u32::from(load::<u16>(sk, Field::RemotePort))
}

/// Notes the local port in the socket's storage, and whether an MPTCP socket still has the addresses of an
/// earlier connection: it gets those of its first path, which connects after it (net/mptcp/protocol.c:
/// mptcp_connect).
#[inline(never)]
pub fn note_addresses(sk: Ptr, known: &mut Remembered, kind: u32, new: u32) {
    known.stale = 0;
    if load::<u16>(sk, Field::Protocol) == IPPROTO_MPTCP {
        let opens = kind & u32::from(OPENED) != 0;
        let connected = known.flags & (flag::ACTIVE | flag::PASSIVE) != 0;
        let listened = new == state::SYN_SENT && known.born_ns != 0;
        let reopens = opens && (connected || listened);
        let ports = if reopens || known.stale_ports != 0 { ports(sk) } else { 0 };
        if reopens || ports != 0 && ports == known.stale_ports {
            known.stale = 1;
            known.stale_ports = ports;
            known.local_port = 0;
            return;
        }
    }
    known.stale_ports = 0;
    let remembered = if kind & u32::from(BIRTH) != 0 { 0 } else { known.local_port };
    known.local_port = local_port(sk, remembered, new == state::CLOSE);
}

/// `sk_shutdown` says both directions are shut.
#[inline(always)]
pub fn both_shut(sk: Ptr) -> bool {
    load::<u8>(sk, Field::Shutdown) & SHUTDOWN_BOTH == SHUTDOWN_BOTH
}

/// Inode of the socket file. Kernels before 6.18 keep it behind `sk_socket`, past the end of the
/// type the verifier knows, so there it takes a probe read.
#[inline(always)]
pub fn inode(sk: Ptr, socket: Ptr) -> u64 {
    if has(Field::Inode) {
        return load(sk, Field::Inode);
    }
    let mut inode = 0u64;
    if !socket.is_null() && has(Field::SocketInode) {
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut inode).cast(),
                size_of::<u64>() as u32,
                address(socket, Field::SocketInode).cast(),
            );
        }
    }
    inode
}

#[inline(always)]
fn cgroup(sk: Ptr) -> u64 {
    if !has(Field::Cgroup) || !has(Field::CgroupNode) || !has(Field::NodeId) {
        return 0;
    }
    let cgroup: Ptr = load(sk, Field::Cgroup);
    if cgroup.is_null() {
        return 0;
    }
    let node: Ptr = load(cgroup, Field::CgroupNode);
    load(node, Field::NodeId)
}

/// The network namespace's inode.
#[inline(always)]
pub fn netns(sk: Ptr) -> u32 {
    let net: Ptr = load(sk, Field::Net);
    load(net, Field::NetInode)
}

/// The cookie; the helper, which also makes one, is called only when there is none yet.
#[inline(always)]
pub fn cookie(sk: Ptr) -> u64 {
    match load(sk, Field::Cookie) {
        0 => unsafe { bpf_get_socket_cookie(sk.cast_mut().cast()) },
        cookie => cookie,
    }
}

/// Fills `out` but for the cookie, which is not trustworthy in every state.
#[inline(always)]
pub fn describe(out: &mut RawSocket, sk: Ptr, tcp: Ptr, known: &Remembered, local_port: u16) {
    out.id = known.id;
    out.listener = known.listener;
    out.born_ns = known.born_ns;
    out.entered_ns = known.entered_ns;
    out.owner_pid = known.owner_pid;
    out.owner_how = known.owner_how;
    out.owner_comm = known.owner_comm;

    describe_common(out, sk);
    out.protocol = load(sk, Field::Protocol);
    out.local_port = local_port;
    if known.stale != 0 {
        out.local_addr = [0; 16];
        out.remote_addr = [0; 16];
        out.remote_port = 0;
    }

    let socket: Ptr = load(sk, Field::SocketOfSock);
    out.inode = inode(sk, socket);
    out.cgroup = cgroup(sk);
    out.uid = load(sk, Field::Uid);
    out.error = load(sk, Field::Error);
    out.shutdown = load(sk, Field::Shutdown);

    let mut flags = known.flags;
    if !socket.is_null() {
        flags |= flag::HAS_SOCKET;
    }
    if tcp.is_null() {
        out.bytes_received = 0;
        out.bytes_acked = 0;
        out.srtt_us = 0;
        out.retransmits = 0;
        out.unread = 0;
        out.unsent = 0;
    } else {
        flags |= flag::TCP_INFO;
        out.bytes_received = load(tcp, Field::BytesReceived);
        out.bytes_acked = load(tcp, Field::BytesAcked);
        out.srtt_us = load::<u32>(tcp, Field::Srtt) >> 3; // kept times eight: tcp_rtt_estimator
        out.retransmits = load(tcp, Field::Retransmits);
        let received: u32 = load(tcp, Field::RcvNxt);
        let copied: u32 = load(tcp, Field::CopiedSeq);
        out.unread = not_negative(received.wrapping_sub(copied));
        let written: u32 = load(tcp, Field::WriteSeq);
        let acked: u32 = load(tcp, Field::SndUna);
        out.unsent = not_negative(written.wrapping_sub(acked));
    }
    out.flags = flags;
    out.reserved = [0; 5];
}

/// What `struct sock_common` has, and so minisocks too. They are TCP: MPTCP has none of its own.
#[inline(always)]
pub fn describe_common(out: &mut RawSocket, common: Ptr) {
    let family: u16 = load(common, Field::Family);
    out.family = family;
    out.protocol = IPPROTO_TCP;
    if family == AF_INET6 && has(Field::LocalV6) && has(Field::RemoteV6) {
        out.local_addr = load16(common, Field::LocalV6);
        out.remote_addr = load16(common, Field::RemoteV6);
    } else {
        out.local_addr = v4(load(common, Field::LocalV4));
        out.remote_addr = v4(load(common, Field::RemoteV4));
    }
    out.local_port = load(common, Field::LocalPort);
    out.remote_port = u16::from_be(load(common, Field::RemotePort));
    out.netns = netns(common);
}

/// A distance between sequence numbers; the two are read without the lock and may cross.
#[inline(always)]
fn not_negative(distance: u32) -> u32 {
    if (distance as i32) < 0 { 0 } else { distance }
}

#[inline(always)]
fn v4(addr: u32) -> [u8; 16] {
    unsafe { core::mem::transmute([addr, 0, 0, 0]) }
}
