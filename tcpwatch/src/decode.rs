//! Bytes from the kernel into facts. Never panics: a record that does not fit is an error.

mod detail;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tcpwatch_common::{
    DETAILS_LEN, RawObserved, RawSocket, RawTransition, flag, how, look, opened,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::core::{
    comm::Comm,
    input::{Activity, Observation, Transition},
    socket::{Holder, How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
    state::State,
    time::{Nanos, Timestamp},
    waiters::Waiters,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// A record that does not make sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Wrong length.
    #[error("record has {got} bytes instead of {expected}")]
    Length {
        /// What it has.
        got: usize,
        /// What it must have.
        expected: usize,
    },
    /// No such TCP state.
    #[error("TCP state {0} does not exist")]
    State(u8),
    /// Not an internet socket.
    #[error("address family {0} is neither AF_INET nor AF_INET6")]
    Family(u16),
    /// Not TCP.
    #[error("protocol {0} is neither TCP nor MPTCP")]
    Protocol(u16),
    /// No such way to know an owner.
    #[error("owner kind {0} does not exist")]
    How(u8),
}

/// Decodes one ring buffer record.
pub fn transition(bytes: &[u8]) -> Result<Transition, DecodeError> {
    let raw: RawTransition = read(bytes)?;
    Ok(Transition {
        at: Timestamp(raw.at_ns),
        old: state(raw.old)?,
        new: state(raw.new)?,
        entered: Timestamp::known(raw.socket.entered_ns),
        actor: process(raw.actor_pid, raw.actor_comm),
        exiting: raw.actor_exiting != 0,
        disconnects: raw.actor_disconnects != 0,
        socket: socket(&raw.socket)?,
    })
}

/// How long the iterator record is that begins here; `None` if not even its beginning is here.
pub fn observation_len(bytes: &[u8]) -> Option<usize> {
    const AT: usize = std::mem::offset_of!(RawObserved, bits);
    let bits = bytes.get(AT).filter(|_| bytes.len() >= size_of::<RawObserved>())?;
    let more = if bits & look::HAS_DETAILS == 0 { 0 } else { DETAILS_LEN };
    Some(size_of::<RawObserved>() + more)
}

/// Decodes one iterator record; its times are in jiffies, and a jiffy is as long as this.
pub fn observation(bytes: &[u8], jiffy: Nanos) -> Result<Observation, DecodeError> {
    let (fixed, more) = bytes.split_at(bytes.len().min(size_of::<RawObserved>()));
    let raw: RawObserved = read(fixed)?;
    let details = if raw.bits & look::HAS_DETAILS == 0 {
        None
    } else {
        Some(Arc::new(detail::details(more, raw.jiffies, jiffy)?))
    };
    let seen = socket(&raw.socket)?;
    Ok(Observation {
        at: Timestamp(raw.at_ns),
        state: state(raw.state)?,
        entered: Timestamp::known(raw.socket.entered_ns),
        holder: process(raw.holder_pid, raw.holder_comm)
            .map(|process| Holder { process, fd: raw.holder_fd }),
        queue: (raw.queue_len, raw.queue_limit),
        activity: activity(&raw, jiffy),
        waiters: waiters(&raw),
        send_window: (raw.socket.flags & flag::TCP_INFO != 0).then_some(raw.send_window),
        details,
        socket: Socket { role: seen.role.or(role(raw.opened)), ..seen },
    })
}

/// Who opened a connection from before we looked, as its counters tell.
fn role(opened: u8) -> Option<Role> {
    match opened {
        opened::HERE => Some(Role::Client),
        opened::THERE => Some(Role::Server),
        _ => None,
    }
}

fn waiters(raw: &RawObserved) -> Option<Waiters> {
    (raw.bits & look::HAS_WAITERS != 0).then_some(Waiters {
        epoll: raw.epoll,
        epoll_events: raw.epoll_events,
        blocked: raw.blocked,
        blocked_pid: (raw.blocked_pid != 0).then_some(raw.blocked_pid),
        polled: raw.polled,
    })
}

fn activity(raw: &RawObserved, jiffy: Nanos) -> Option<Activity> {
    let span = |jiffies: u32| Nanos(u64::from(jiffies).saturating_mul(jiffy.0));
    (raw.bits & look::HAS_AGES != 0).then(|| Activity {
        ack_received: span(raw.since_ack_received),
        data_received: span(raw.since_data_received),
        data_sent: span(raw.since_data_sent),
        keepalive: raw.bits & look::KEEPALIVE != 0,
        quiet_since_fin: raw.bits & look::QUIET_SINCE_FIN != 0,
    })
}

fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes)
        .map_err(|_| DecodeError::Length { got: bytes.len(), expected: size_of::<T>() })
}

fn state(number: u8) -> Result<State, DecodeError> {
    State::from_number(number).ok_or(DecodeError::State(number))
}

fn process(pid: u32, comm: [u8; 16]) -> Option<Process> {
    (pid != 0).then(|| Process { pid, comm: Comm::new(comm) })
}

fn socket(raw: &RawSocket) -> Result<Socket, DecodeError> {
    let has = |bit| raw.flags & bit != 0;
    Ok(Socket {
        id: known(raw.id).map(SocketId),
        cookie: known(raw.cookie),
        listener: known(raw.listener).map(SocketId),
        born: Timestamp::known(raw.born_ns),
        netns: raw.netns,
        protocol: protocol(raw.protocol)?,
        local: endpoint(raw.family, raw.local_addr, raw.local_port)?,
        remote: endpoint(raw.family, raw.remote_addr, raw.remote_port)?,
        uid: raw.uid,
        cgroup: known(raw.cgroup),
        inode: known(raw.inode),
        owner: owner(raw)?,
        role: if has(flag::ACTIVE) {
            Some(Role::Client)
        } else {
            has(flag::PASSIVE).then_some(Role::Server)
        },
        has_file: has(flag::HAS_SOCKET),
        watched: has(flag::WATCHED),
        tcp: has(flag::TCP_INFO).then_some(TcpInfo {
            bytes_received: raw.bytes_received,
            bytes_acked: raw.bytes_acked,
            unread: raw.unread,
            unsent: raw.unsent,
            srtt_us: raw.srtt_us,
            retransmits: raw.retransmits,
        }),
        error: raw.error,
        uncertain: has(flag::MISSED),
    })
}

fn known(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn owner(raw: &RawSocket) -> Result<Option<Owner>, DecodeError> {
    let how = match raw.owner_how {
        how::UNKNOWN => return Ok(None),
        how::CONNECT => How::Connect,
        how::LISTEN => How::Listen,
        how::ACCEPT => How::Accept,
        how::FD => How::Fd,
        how::LISTENER => How::Listener,
        other => return Err(DecodeError::How(other)),
    };
    Ok(process(raw.owner_pid, raw.owner_comm).map(|process| Owner { process, how }))
}

fn protocol(number: u16) -> Result<Protocol, DecodeError> {
    match number {
        IPPROTO_TCP => Ok(Protocol::Tcp),
        IPPROTO_MPTCP => Ok(Protocol::Mptcp),
        other => Err(DecodeError::Protocol(other)),
    }
}

fn endpoint(family: u16, addr: [u8; 16], port: u16) -> Result<SocketAddr, DecodeError> {
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::new(addr[0], addr[1], addr[2], addr[3])),
        AF_INET6 => Ipv6Addr::from(addr).to_canonical(),
        other => return Err(DecodeError::Family(other)),
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    const JIFFY: Nanos = Nanos(4_000_000);

    fn raw() -> RawTransition {
        let mut raw = RawTransition::new_zeroed();
        (raw.old, raw.new) = (1, 8);
        raw.socket.family = AF_INET;
        raw.socket.protocol = IPPROTO_TCP;
        raw
    }

    #[test]
    fn zeros_mean_unknown() {
        let decoded = transition(raw().as_bytes()).unwrap();
        assert_eq!((decoded.old, decoded.new), (State::Established, State::CloseWait));
        assert_eq!(decoded.socket.id, None);
        assert_eq!(decoded.socket.owner, None);
        assert_eq!(decoded.entered, None);
        assert_eq!(decoded.actor, None);
    }

    #[test]
    fn v4_mapped_addresses_are_ipv4() {
        let mut raw = raw();
        raw.socket.family = AF_INET6;
        raw.socket.local_addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        raw.socket.remote_addr = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
        let decoded = transition(raw.as_bytes()).unwrap();
        assert_eq!(decoded.socket.remote.ip().to_string(), "192.0.2.7");
        assert_eq!(decoded.socket.family(), 4);
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut bad = raw();
        bad.new = 99;
        assert_eq!(transition(bad.as_bytes()), Err(DecodeError::State(99)));
        let mut bad = raw();
        bad.socket.owner_how = 77;
        assert_eq!(transition(bad.as_bytes()), Err(DecodeError::How(77)));
        assert!(matches!(transition(&[1, 2, 3]), Err(DecodeError::Length { got: 3, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..260)) {
            let _ = transition(&bytes);
            let _ = observation(&bytes, JIFFY);
        }

        #[test]
        fn any_record_of_the_right_length_decodes_or_fails(
            bytes in proptest::collection::vec(any::<u8>(), size_of::<RawObserved>())
        ) {
            let _ = transition(&bytes[..size_of::<RawTransition>()]);
            let _ = observation(&bytes, JIFFY);
        }
    }
}
