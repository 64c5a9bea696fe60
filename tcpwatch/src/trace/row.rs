//! A socket as a row of numbers, so that only what differs from a row before it is written.
//!
//! The order of the columns is part of the format: a mask says which differ, in groups of seven, so
//! those that change most often come first. A later minor version may add columns at the end.

use std::net::{IpAddr, SocketAddr};

use super::{TraceError, wire};
use crate::core::{
    socket::{How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
    time::Timestamp,
};

/// Columns of a socket.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Column {
    SrttUs,
    BytesAcked,
    BytesReceived,
    Unread,
    Unsent,
    Flags,
    /// Who made the change: number of a process, from 1.
    Actor,
    /// Number of a process, from 1.
    Owner,
    OwnerHow,
    Inode,
    Entered,
    /// State before the change, or at the look.
    State,
    RemotePort,
    Id,
    Cookie,
    Born,
    Listener,
    /// Number of an address.
    RemoteIp,
    LocalPort,
    LocalIp,
    Netns,
    Uid,
    Cgroup,
    Retransmits,
    Error,
}

/// How many there are.
pub(super) const COLUMNS: usize = Column::Error as usize + 1;

/// A row; what is not there is 0, and its flag is off.
pub(super) type Row = [u64; COLUMNS];

/// Bits of [`Column::Flags`].
pub(super) mod flag {
    pub(crate) const ID: u64 = 1;
    pub(crate) const COOKIE: u64 = 1 << 1;
    pub(crate) const LISTENER: u64 = 1 << 2;
    pub(crate) const BORN: u64 = 1 << 3;
    pub(crate) const CGROUP: u64 = 1 << 4;
    pub(crate) const INODE: u64 = 1 << 5;
    pub(crate) const TCP: u64 = 1 << 6;
    pub(crate) const CLIENT: u64 = 1 << 7;
    pub(crate) const SERVER: u64 = 1 << 8;
    pub(crate) const MPTCP: u64 = 1 << 9;
    pub(crate) const HAS_FILE: u64 = 1 << 10;
    pub(crate) const WATCHED: u64 = 1 << 11;
    pub(crate) const EXITING: u64 = 1 << 12;
    pub(crate) const ENTERED: u64 = 1 << 13;
    pub(crate) const UNCERTAIN: u64 = 1 << 14;
    pub(crate) const DISCONNECTS: u64 = 1 << 15;
}

const HOWS: [How; 5] = [How::Connect, How::Listen, How::Accept, How::Fd, How::Listener];

/// Writes which of these numbers differ from those of `base`, and by how much.
pub(super) fn put_differences<const N: usize>(out: &mut Vec<u8>, row: &[u64; N], base: &[u64; N]) {
    let mut mask = 0;
    for (index, (number, before)) in row.iter().zip(base).enumerate() {
        mask |= u64::from(number != before) << index;
    }
    wire::put(out, mask);
    while mask != 0 {
        let index = mask.trailing_zeros() as usize;
        wire::put_difference(out, row[index], base[index]);
        mask &= mask - 1;
    }
}

/// Reads them into `row`, which holds the base; columns that this version does not know are passed
/// over.
pub(super) fn take_differences<const N: usize>(
    from: &mut wire::Cursor<'_>,
    row: &mut [u64; N],
) -> Result<(), TraceError> {
    let mut mask = from.number()?;
    while mask != 0 {
        let index = mask.trailing_zeros() as usize;
        match row.get_mut(index) {
            Some(slot) => *slot = from.difference(*slot)?,
            None => drop(from.number()?),
        }
        mask &= mask - 1;
    }
    Ok(())
}

/// What a row refers to by number while it is written: what is new is told first.
pub(super) trait Numbers {
    /// Number of an address; `likely` may be it.
    fn address(&mut self, ip: IpAddr, likely: u64) -> u64;
    /// Number of a process, from 1; 0 for none.
    fn process(&mut self, process: Option<Process>, likely: u64) -> u64;
}

/// What a row refers to by number while it is read.
pub(super) struct Tables {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) processes: Vec<Process>,
}

impl Tables {
    pub(super) fn process(&self, number: u64) -> Result<Option<Process>, TraceError> {
        let Some(index) = number.checked_sub(1) else { return Ok(None) };
        let found = usize::try_from(index).ok().and_then(|index| self.processes.get(index));
        found.copied().map(Some).ok_or(TraceError::Senseless)
    }

    fn address(&self, number: u64) -> Result<IpAddr, TraceError> {
        let found = usize::try_from(number).ok().and_then(|index| self.addresses.get(index));
        found.copied().ok_or(TraceError::Senseless)
    }
}

/// Fills in a row from a socket; the state, the actor and their flags are the caller's. What is
/// not there keeps its number, as that takes no space.
pub(super) fn fill(row: &mut Row, socket: &Socket, numbers: &mut impl Numbers) {
    use Column as C;
    let mut flags = 0;
    let mut optional = |column: C, bit: u64, value: Option<u64>| {
        if let Some(value) = value {
            row[column as usize] = value;
            flags |= bit;
        }
    };
    optional(C::Id, flag::ID, socket.id.map(|id| id.0));
    optional(C::Cookie, flag::COOKIE, socket.cookie);
    optional(C::Listener, flag::LISTENER, socket.listener.map(|id| id.0));
    optional(C::Born, flag::BORN, socket.born.map(|at| at.0));
    optional(C::Cgroup, flag::CGROUP, socket.cgroup);
    optional(C::Inode, flag::INODE, socket.inode);
    flags |= match socket.role {
        Some(Role::Client) => flag::CLIENT,
        Some(Role::Server) => flag::SERVER,
        None => 0,
    };
    let bits = [
        (flag::MPTCP, socket.protocol == Protocol::Mptcp),
        (flag::HAS_FILE, socket.has_file),
        (flag::WATCHED, socket.watched),
        (flag::TCP, socket.tcp.is_some()),
        (flag::UNCERTAIN, socket.uncertain),
    ];
    flags |= bits.iter().filter(|(_, set)| *set).map(|(bit, _)| bit).sum::<u64>();
    if let Some(tcp) = socket.tcp {
        row[C::SrttUs as usize] = tcp.srtt_us.into();
        row[C::BytesAcked as usize] = tcp.bytes_acked;
        row[C::BytesReceived as usize] = tcp.bytes_received;
        row[C::Unread as usize] = tcp.unread.into();
        row[C::Unsent as usize] = tcp.unsent.into();
        row[C::Retransmits as usize] = tcp.retransmits.into();
    }
    row[C::Flags as usize] = flags;
    let owner = socket.owner;
    row[C::Owner as usize] =
        numbers.process(owner.map(|owner| owner.process), row[C::Owner as usize]);
    if let Some(owner) = owner {
        row[C::OwnerHow as usize] =
            HOWS.iter().position(|how| *how == owner.how).unwrap_or(0) as u64;
    }
    row[C::LocalIp as usize] = numbers.address(socket.local.ip(), row[C::LocalIp as usize]);
    row[C::RemoteIp as usize] = numbers.address(socket.remote.ip(), row[C::RemoteIp as usize]);
    row[C::LocalPort as usize] = socket.local.port().into();
    row[C::RemotePort as usize] = socket.remote.port().into();
    row[C::Netns as usize] = socket.netns.into();
    row[C::Uid as usize] = socket.uid.into();
    row[C::Error as usize] = socket.error.into();
}

/// The socket that a row describes.
pub(super) fn socket(row: &Row, tables: &Tables) -> Result<Socket, TraceError> {
    use Column as C;
    let flags = row[C::Flags as usize];
    let has = |bit: u64| flags & bit != 0;
    let optional = |column: C, bit: u64| has(bit).then_some(row[column as usize]);
    let small = |column: C| u32::try_from(row[column as usize]).map_err(|_| TraceError::Senseless);
    let end = |ip: C, port: C| {
        let port = u16::try_from(row[port as usize]).map_err(|_| TraceError::Senseless)?;
        Ok::<_, TraceError>(SocketAddr::new(tables.address(row[ip as usize])?, port))
    };
    let how = usize::try_from(row[C::OwnerHow as usize]).ok().and_then(|how| HOWS.get(how));
    let owner = match tables.process(row[C::Owner as usize])? {
        Some(process) => Some(Owner { process, how: *how.ok_or(TraceError::Senseless)? }),
        None => None,
    };
    let tcp = if has(flag::TCP) {
        Some(TcpInfo {
            bytes_received: row[C::BytesReceived as usize],
            bytes_acked: row[C::BytesAcked as usize],
            unread: small(C::Unread)?,
            unsent: small(C::Unsent)?,
            srtt_us: small(C::SrttUs)?,
            retransmits: small(C::Retransmits)?,
        })
    } else {
        None
    };
    Ok(Socket {
        id: optional(C::Id, flag::ID).map(SocketId),
        cookie: optional(C::Cookie, flag::COOKIE),
        listener: optional(C::Listener, flag::LISTENER).map(SocketId),
        born: optional(C::Born, flag::BORN).map(Timestamp),
        netns: small(C::Netns)?,
        protocol: if has(flag::MPTCP) { Protocol::Mptcp } else { Protocol::Tcp },
        local: end(C::LocalIp, C::LocalPort)?,
        remote: end(C::RemoteIp, C::RemotePort)?,
        uid: small(C::Uid)?,
        cgroup: optional(C::Cgroup, flag::CGROUP),
        inode: optional(C::Inode, flag::INODE),
        owner,
        role: if has(flag::CLIENT) {
            Some(Role::Client)
        } else {
            has(flag::SERVER).then_some(Role::Server)
        },
        has_file: has(flag::HAS_FILE),
        watched: has(flag::WATCHED),
        tcp,
        error: small(C::Error)?,
        uncertain: has(flag::UNCERTAIN),
    })
}
