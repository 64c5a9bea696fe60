//! What is known of a socket at one moment.

use std::{fmt, net::SocketAddr};

use super::{comm::Comm, time::Timestamp};

/// Our own id of a socket, new at every birth: addresses and tuples are reused within ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A process: thread group id in the initial pid namespace, and the main thread's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: Comm,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.comm, self.pid)
    }
}

/// How an owner is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// It called `connect`.
    Connect,
    /// It called `listen`.
    Listen,
    /// It called `accept`.
    Accept,
    /// It was found with a file descriptor on the socket.
    Fd,
    /// It holds the listener that the connection came in through; a worker may have accepted it.
    Listener,
}

impl How {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Accept => "accept",
            Self::Fd => "fd",
            Self::Listener => "listener",
        }
    }
}

/// Whose socket it is, and how we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The process.
    pub process: Process,
    /// How it is known.
    pub how: How,
}

/// A process with a file descriptor on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The process.
    pub process: Process,
    /// Its file descriptor.
    pub fd: u32,
}

/// Which side opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This side connected.
    Client,
    /// The peer connected.
    Server,
}

impl Role {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The protocol the application chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `IPPROTO_TCP`.
    Tcp,
    /// `IPPROTO_MPTCP`; its subflows are not shown.
    Mptcp,
}

impl Protocol {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
        }
    }
}

/// Counters of `struct tcp_sock`; MPTCP sockets have none of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpInfo {
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes the peer acknowledged.
    pub bytes_acked: u64,
    /// Bytes nobody has read yet, a FIN counting as one.
    pub unread: u32,
    /// Bytes written and not acknowledged.
    pub unsent: u32,
    /// Smoothed round-trip time, µs.
    pub srtt_us: u32,
    /// Segments retransmitted.
    pub retransmits: u32,
}

/// One look at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    /// Our id; `None` in a record that has none.
    pub id: Option<SocketId>,
    /// The kernel's cookie, as `ss -e` prints it; `None` while it cannot be trusted.
    pub cookie: Option<u64>,
    /// The listener it came in through.
    pub listener: Option<SocketId>,
    /// Birth; `None` if before we looked.
    pub born: Option<Timestamp>,
    /// Network namespace, by inode.
    pub netns: u32,
    /// Protocol.
    pub protocol: Protocol,
    /// Local end; v4-mapped addresses are plain IPv4 here.
    pub local: SocketAddr,
    /// Remote end; port 0 while unknown.
    pub remote: SocketAddr,
    /// Owner of the socket file.
    pub uid: u32,
    /// Cgroup id of the task that created the socket.
    pub cgroup: Option<u64>,
    /// Inode of the socket file; `None` while nobody has accepted it, or if it cannot be read.
    pub inode: Option<u64>,
    /// Owner.
    pub owner: Option<Owner>,
    /// Who connected, if seen.
    pub role: Option<Role>,
    /// A file is (or was until just now) attached.
    pub has_file: bool,
    /// A watched process has or had it: it opened it, acted on it or held it, or its listener.
    pub watched: bool,
    /// Counters.
    pub tcp: Option<TcpInfo>,
    /// Pending error, an errno.
    pub error: u32,
    /// Transitions of this socket were lost: what is known of it has a gap. In an input it is set where the
    /// kernel program has seen that gap.
    pub uncertain: bool,
}

impl Socket {
    /// 4 or 6; v4-mapped counts as 4.
    pub fn family(&self) -> u8 {
        if self.local.is_ipv4() { 4 } else { 6 }
    }
}
