//! Record layouts.
//!
//! A new field goes where padding is or at the end, and the size asserts below say whether the
//! layout still has no implicit padding. Agent and kernel object are built and shipped together,
//! so the layout needs no version of its own.

/// Length of a task's `comm`, the terminating NUL included (`include/linux/sched.h`).
pub const COMM_LEN: usize = 16;

/// How the owner of a socket is known. Values of [`RawSocket::owner_how`].
pub mod how {
    /// Nobody is known.
    pub const UNKNOWN: u8 = 0;
    /// The task that called `connect`.
    pub const CONNECT: u8 = 1;
    /// The task that called `listen`.
    pub const LISTEN: u8 = 2;
    /// The task that called `accept`.
    pub const ACCEPT: u8 = 3;
    /// A task found with a file descriptor on it.
    pub const FD: u8 = 4;
    /// Inherited from the listener the connection came in through.
    pub const LISTENER: u8 = 5;
}

/// Bits of [`RawObserved::bits`].
pub mod look {
    /// The three ages were read.
    pub const HAS_AGES: u8 = 1;
    /// `SO_KEEPALIVE` is set.
    pub const KEEPALIVE: u8 = 2;
    /// The wait queue was read, which is done for sockets that may linger and for listeners.
    pub const HAS_WAITERS: u8 = 4;
    /// No segment came in after the peer's FIN, so the last ACK is as old as that.
    pub const QUIET_SINCE_FIN: u8 = 16;
    /// The numbers of [`DETAILS`](crate::DETAILS) follow.
    pub const HAS_DETAILS: u8 = 8;
}

/// Which side opened a connection. Values of [`RawObserved::opened`].
pub mod opened {
    /// Its counters do not tell.
    pub const UNKNOWN: u8 = 0;
    /// This side.
    pub const HERE: u8 = 1;
    /// The peer.
    pub const THERE: u8 = 2;
}

/// Bits of [`RawSocket::flags`].
pub mod flag {
    /// `sk_socket` is set: the socket has (or had until just now) a file.
    pub const HAS_SOCKET: u8 = 1;
    /// The counters of `struct tcp_sock` were read.
    pub const TCP_INFO: u8 = 2;
    /// An iterator saw one of the watched processes holding it.
    pub const WATCHED: u8 = 4;
    /// A task held the socket lock: the transition happened in a system call, not in softirq.
    pub const OWNED: u8 = 8;
    /// The socket came in through a listener.
    pub const PASSIVE: u8 = 16;
    /// The socket was opened by a `connect` that we saw.
    pub const ACTIVE: u8 = 32;
    /// Kept in the kernel only: the birth of this child has not been told yet.
    pub const DEFERRED: u8 = 64;
    /// A change of this socket before this one, or its birth, was seen by no program.
    pub const MISSED: u8 = 128;
}

/// Everything one look at a socket yields. 168 bytes, no padding.
///
/// Addresses are in network byte order, IPv4 in the first four bytes. Ports are in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct RawSocket {
    /// Our own id, new at every (re)birth; never 0 in a record of the kernel program.
    pub id: u64,
    /// The kernel's socket cookie, 0 while it cannot be trusted.
    pub cookie: u64,
    /// Id of the listener it came in through, 0 if none or unknown.
    pub listener: u64,
    /// When it was born, ns of `CLOCK_MONOTONIC`; 0 if before we looked.
    pub born_ns: u64,
    /// When it entered the state it is in (for a transition: the old one); 0 if unknown.
    pub entered_ns: u64,
    /// Inode of the socket file; 0 while it has none.
    pub inode: u64,
    /// Cgroup id (inode of the cgroup v2 directory) of the task that created the socket.
    pub cgroup: u64,
    /// Bytes received in order (`tcp_sock::bytes_received`).
    pub bytes_received: u64,
    /// Bytes the peer acknowledged (`tcp_sock::bytes_acked`).
    pub bytes_acked: u64,
    /// Local address.
    pub local_addr: [u8; 16],
    /// Remote address.
    pub remote_addr: [u8; 16],
    /// Name of the owner's thread group leader when it became known.
    pub owner_comm: [u8; COMM_LEN],
    /// Process id (thread group, initial pid namespace) of the owner.
    pub owner_pid: u32,
    /// Owner of the socket file.
    pub uid: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Bytes in order that nobody has read yet, a FIN counting as one.
    pub unread: u32,
    /// Bytes written that the peer has not acknowledged.
    pub unsent: u32,
    /// Smoothed round-trip time, microseconds.
    pub srtt_us: u32,
    /// Segments retransmitted, in total.
    pub retransmits: u32,
    /// `sk_err`: the pending error.
    pub error: u32,
    /// Local port, 0 while unknown.
    pub local_port: u16,
    /// Remote port, 0 while unknown.
    pub remote_port: u16,
    /// `IPPROTO_TCP` (6) or `IPPROTO_MPTCP` (262).
    pub protocol: u16,
    /// `AF_INET` (2) or `AF_INET6` (10), as the kernel has it: v4-mapped is 10 here.
    pub family: u16,
    /// `sk_shutdown`: 1 receive side, 2 send side.
    pub shutdown: u8,
    /// A value of [`how`].
    pub owner_how: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// One state change. 200 bytes, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct RawTransition {
    /// When, ns of `CLOCK_MONOTONIC`, read after the ring slot was reserved.
    pub at_ns: u64,
    /// The socket, as it was just before the change.
    pub socket: RawSocket,
    /// Process that made the change; 0 where the running task proves nothing.
    pub actor_pid: u32,
    /// State before.
    pub old: u8,
    /// State after.
    pub new: u8,
    /// 1 if that process was ending: the kernel closed its files for it.
    pub actor_exiting: u8,
    /// 1 if that process disconnected the socket and kept its file descriptor.
    pub actor_disconnects: u8,
    /// Name of that process.
    pub actor_comm: [u8; COMM_LEN],
}

/// One look at a socket by an iterator. 248 bytes, no padding.
///
/// There is one record for each (process, fd); a socket without an fd has one with pid 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct RawObserved {
    /// When, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The socket.
    pub socket: RawSocket,
    /// Process that holds it, 0 if no process was found.
    pub holder_pid: u32,
    /// Its file descriptor.
    pub holder_fd: u32,
    /// Name of the holder's thread group leader.
    pub holder_comm: [u8; COMM_LEN],
    /// Connections waiting to be accepted, for a listener (`sk_ack_backlog`).
    pub queue_len: u32,
    /// Most that may wait, for a listener (`sk_max_ack_backlog`).
    pub queue_limit: u32,
    /// `jiffies_64` at this look.
    pub jiffies: u64,
    /// Jiffies since the last ACK was received (`tcp_sock::rcv_tstamp`).
    pub since_ack_received: u32,
    /// Jiffies since data was received (`icsk_ack.lrcvtime`).
    pub since_data_received: u32,
    /// Jiffies since data was sent (`tcp_sock::lsndtime`).
    pub since_data_sent: u32,
    /// State.
    pub state: u8,
    /// Bits of [`look`].
    pub bits: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Events of the epoll registrations of this file, all together (`epitem::event.events`).
    pub epoll_events: u32,
    /// Process of the thread that is blocked in a call on this socket; 0 if none, or several.
    pub blocked_pid: u32,
    /// Bytes the peer is ready to take (`tcp_sock::snd_wnd`).
    pub send_window: u32,
    /// Epoll registrations of this file.
    pub epoll: u8,
    /// Threads blocked in a call on this socket.
    pub blocked: u8,
    /// Others that wait for it: `poll`, `select`, `io_uring`, epoll of another file.
    pub polled: u8,
    /// A value of [`opened`], for a connection in `CLOSE_WAIT`.
    pub opened: u8,
}

const _: () = {
    assert!(size_of::<RawSocket>() == 168);
    assert!(size_of::<RawTransition>() == 200);
    assert!(size_of::<RawObserved>() == 248);
};
