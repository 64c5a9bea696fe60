//! Connections by process name, role and service.
//!
//! By name and not by pid, because a client that lives for a second has another pid each time.
//! When there are too many groups the smaller half is added up, so those that matter stay
//! whatever came before them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
};

use rustc_hash::FxHashMap;

use super::{durations::Durations, spread::Spread};
use crate::{
    core::{
        comm::Comm,
        finding::{Cause, Finding, Status, Verdict},
        input::Transition,
        socket::{Role, Socket, SocketId},
        state::State,
        time::{Nanos, Timestamp},
    },
    report::model,
};

/// Groups kept apart.
const MOST_GROUPS: usize = 8192;
/// Groups of what is not kept apart, each of one process name and role.
const MOST_OTHERS: usize = 256;
/// Sockets in `CLOSE_WAIT` that are followed.
const MOST_FOLLOWED: usize = 1 << 20;

/// What a group has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    comm: Option<Comm>,
    role: Option<Role>,
    end: End,
}

/// The service of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Of clients, whom they connect to.
    Remote(SocketAddr),
    /// Of servers, the port.
    Local(u16),
    /// Whatever was not kept apart.
    Other,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(end) => write!(f, "{end}"),
            Self::Local(port) => write!(f, ":{port}"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// Hashed for every other transition, so in three numbers and not field by field.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = self.comm.map_or([0, 0], Comm::words);
        state.write_u64(high);
        state.write_u64(low);
        match self.end {
            End::Remote(SocketAddr::V4(end)) => {
                state.write_u64(u64::from(end.ip().to_bits()) << 32 | u64::from(end.port()));
            }
            End::Remote(SocketAddr::V6(end)) => {
                state.write_u128(end.ip().to_bits());
                state.write_u16(end.port());
            }
            End::Local(port) => state.write_u16(port),
            End::Other => {}
        }
    }
}

impl Key {
    const EVERYONE_ELSE: Self = Self { comm: None, role: None, end: End::Other };

    fn of(socket: &Socket) -> Self {
        let server = match socket.role {
            Some(role) => role == Role::Server,
            // Services have the lower port.
            None => socket.local.port() < socket.remote.port(),
        };
        Self {
            comm: socket.owner.map(|owner| owner.process.comm),
            role: socket.role,
            end: if server { End::Local(socket.local.port()) } else { End::Remote(socket.remote) },
        }
    }
}

#[derive(Debug)]
struct Group {
    key: Key,
    folded: u64,
    opened: u64,
    closed: u64,
    failed: u64,
    lifetime: Durations,
    close_wait: Durations,
    bytes_received: u64,
    bytes_acked: u64,
}

impl Group {
    fn new(key: Key) -> Self {
        Self {
            key,
            folded: 0,
            opened: 0,
            closed: 0,
            failed: 0,
            lifetime: Durations::default(),
            close_wait: Durations::default(),
            bytes_received: 0,
            bytes_acked: 0,
        }
    }

    fn size(&self) -> u64 {
        self.opened + self.closed + self.close_wait.count()
    }

    fn absorb(&mut self, other: &Self) {
        self.folded += 1;
        self.opened += other.opened;
        self.closed += other.closed;
        self.failed += other.failed;
        self.lifetime.absorb(&other.lifetime);
        self.close_wait.absorb(&other.close_wait);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        self.bytes_acked = self.bytes_acked.saturating_add(other.bytes_acked);
    }
}

/// A socket in `CLOSE_WAIT`.
#[derive(Clone, Copy, Debug)]
struct Followed {
    group: u32,
    since: Timestamp,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: FxHashMap<Key, u32>,
    list: Vec<Group>,
    /// How many of them are of what is not kept apart.
    others: usize,
    /// Sockets in `CLOSE_WAIT`.
    followed: FxHashMap<SocketId, Followed>,
    /// Sockets that could not be followed.
    pub(super) not_followed: u64,
}

impl Groups {
    /// Counts a transition that begins or ends a connection, or touches `CLOSE_WAIT`.
    pub(super) fn apply(&mut self, t: &Transition, opened: bool, closed: bool, failed: bool) {
        let number = self.number(Key::of(&t.socket));
        let Some(group) = self.list.get_mut(number as usize) else { return };
        group.opened += u64::from(opened);
        if closed {
            group.closed += 1;
            group.failed += u64::from(failed);
            if let Some(lifetime) = t.lifetime().filter(|_| !failed) {
                group.lifetime.add(lifetime);
            }
            if let Some(tcp) = &t.socket.tcp {
                group.bytes_received = group.bytes_received.saturating_add(tcp.bytes_received);
                group.bytes_acked = group.bytes_acked.saturating_add(tcp.bytes_acked);
            }
        }
        if t.old == State::CloseWait {
            if let Some(dwell) = t.in_state() {
                group.close_wait.add(dwell);
            }
            if let Some(id) = t.socket.id {
                self.followed.remove(&id);
            }
        }
        if t.new == State::CloseWait
            && let Some(id) = t.socket.id
        {
            if self.followed.len() < MOST_FOLLOWED {
                self.followed.insert(id, Followed { group: number, since: t.at });
            } else {
                self.not_followed += 1;
            }
        }
    }

    /// Follows a socket that is known to be in `CLOSE_WAIT` only because it is a finding.
    pub(super) fn finding(&mut self, f: &Finding) {
        let Some(id) = f.socket.id else { return };
        let in_use = f.ending.is_some_and(|ending| ending.cause == Cause::InUse);
        let left = f.status == Status::Ended && !in_use;
        if left || f.verdict == Some(Verdict::DeadFd) || f.state != State::CloseWait {
            self.followed.remove(&id);
        } else if f.status != Status::Ended && !self.followed.contains_key(&id) {
            if self.followed.len() < MOST_FOLLOWED {
                let group = self.number(Key::of(&f.socket));
                self.followed.insert(id, Followed { group, since: f.at - f.linger });
            } else {
                self.not_followed += u64::from(f.status == Status::Open);
            }
        }
    }

    fn number(&mut self, key: Key) -> u32 {
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        if self.list.len() >= MOST_GROUPS + MOST_OTHERS {
            self.fold();
        }
        self.add(key)
    }

    fn add(&mut self, key: Key) -> u32 {
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Group::new(key));
        self.numbers.insert(key, number);
        self.others += usize::from(key.end == End::Other);
        number
    }

    /// Adds the smaller half to those of what is not kept apart.
    fn fold(&mut self) {
        let mut sizes: Vec<u64> =
            self.list.iter().filter(|group| group.key.end != End::Other).map(Group::size).collect();
        let middle = sizes.len() / 2;
        let (_, &mut median, _) = sizes.select_nth_unstable(middle);
        let mut equal = MOST_GROUPS / 4;
        let groups = std::mem::take(&mut self.list);
        let followed = std::mem::take(&mut self.followed);
        self.numbers.clear();
        self.others = 0;
        let keeps = |group: &Group| group.key.end == End::Other || group.size() > median;
        let mut moved = vec![0; groups.len()];
        let mut small = Vec::new();
        for (number, group) in groups.into_iter().enumerate() {
            let spared = !keeps(&group) && group.size() == median && equal > 0;
            equal -= usize::from(spared);
            if keeps(&group) || spared {
                moved[number] = self.add(group.key);
                if let Some(last) = self.list.last_mut() {
                    *last = group;
                }
            } else {
                small.push((number, group));
            }
        }
        for (number, group) in small {
            let other = self.other(group.key);
            moved[number] = other;
            if let Some(sum) = self.list.get_mut(other as usize) {
                sum.absorb(&group);
            }
        }
        self.followed = followed
            .into_iter()
            .map(|(id, socket)| (id, Followed { group: moved[socket.group as usize], ..socket }))
            .collect();
    }

    /// Where what a group had is counted when it is not kept apart.
    fn other(&mut self, key: Key) -> u32 {
        let own = Key { end: End::Other, ..key };
        if let Some(&number) = self.numbers.get(&own) {
            return number;
        }
        // The last place is everyone else's.
        let key = if self.others < MOST_OTHERS - 1 { own } else { Key::EVERYONE_ELSE };
        match self.numbers.get(&key) {
            Some(&number) => number,
            None => self.add(key),
        }
    }

    /// How long all connections took.
    pub(super) fn spreads(&self, end: Timestamp) -> model::Spreads {
        let still = self.followed.values().map(|socket| end.since(socket.since));
        let lifetimes = self.list.iter().map(|group| &group.lifetime);
        let dwells = self.list.iter().map(|group| &group.close_wait);
        model::Spreads {
            lifetime: Spread::of(lifetimes).report(None::<std::iter::Empty<Nanos>>),
            close_wait: Spread::of(dwells).report(Some(still)),
        }
    }

    /// The groups as of the end, those with the most connections first.
    pub(super) fn report(&self, end: Timestamp) -> Vec<model::Group> {
        let mut now: Vec<(u64, Option<Nanos>)> = vec![(0, None); self.list.len()];
        for socket in self.followed.values() {
            if let Some((count, oldest)) = now.get_mut(socket.group as usize) {
                *count += 1;
                *oldest = (*oldest).max(Some(end.since(socket.since)));
            }
        }
        let mut order: Vec<_> = self.list.iter().zip(now).collect();
        order.sort_by_key(|(group, (now, _))| (std::cmp::Reverse(group.size() + now), group.key));
        order
            .into_iter()
            .map(|(group, (close_wait_now, oldest))| model::Group {
                comm: group.key.comm.map(|comm| comm.to_string()),
                role: group.key.role.map(Role::word),
                end: group.key.end.to_string(),
                folded: group.folded,
                opened: group.opened,
                closed: group.closed,
                failed: group.failed,
                lifetime: group.lifetime.report(),
                close_wait: group.close_wait.report(),
                close_wait_now,
                close_wait_now_oldest_ns: oldest.map(|span| span.0),
                bytes_received: group.bytes_received,
                bytes_acked: group.bytes_acked,
            })
            .collect()
    }
}
