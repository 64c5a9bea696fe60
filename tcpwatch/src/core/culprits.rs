//! Findings grouped by what they have in common: culprits, not lists.
//!
//! A group is followed from its first finding to its last: how many are open, how old they are,
//! and whether they become more. A steady pool has as many at the end of a while as at its
//! beginning, however many come and go; only a number that keeps rising is growth.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use rustc_hash::FxHashMap;

use super::{
    finding::{Finding, Status, Verdict},
    socket::{Process, Role, Socket, SocketId},
    time::{Nanos, Timestamp},
};

/// What the findings of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Whose sockets they are; for `never-accepted` whoever holds the listener.
    pub owner: Option<Process>,
    /// Why they linger.
    pub verdict: Option<Verdict>,
    /// True if this side connected.
    pub client: Option<bool>,
    /// The remote end of clients; for servers the local end, as it is the same for all.
    pub end: SocketAddr,
}

/// A group of open findings, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// When.
    pub at: Timestamp,
    /// What they share.
    pub key: Key,
    /// How many are open.
    pub count: usize,
    /// Of all open findings, per thousand.
    pub share: u32,
    /// Ages: the oldest, and those that 50 and 99 of 100 do not exceed.
    pub oldest: Nanos,
    /// Half are younger.
    pub p50: Nanos,
    /// One in a hundred is older.
    pub p99: Nanos,
    /// An age among them is a lower bound.
    pub at_least: bool,
    /// How fast the group grows; `None` if it does not, or has not been watched for long enough.
    pub growth: Option<Growth>,
    /// When its process runs out of descriptors, if all its groups go on as they do.
    pub reaches_limit_in: Option<Nanos>,
    /// The oldest, as an example.
    pub example: Finding,
}

/// How fast a group has grown, and over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// More at the end than at the beginning.
    pub gained: u64,
    /// Of this time.
    pub over: Nanos,
}

impl Growth {
    /// Thousandths of a socket per minute.
    pub fn milli_per_minute(self) -> u64 {
        const MINUTE: u128 = 60 * 1_000_000_000 * 1000;
        let rate = u128::from(self.gained) * MINUTE / u128::from(self.over.0.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// How many were open, and since when.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    since: Timestamp,
    at_least: bool,
}

#[derive(Debug)]
struct Group {
    members: FxHashMap<SocketId, Member>,
    history: VecDeque<Sample>,
    oldest: Finding,
    /// How many there were when it was last told, and when that was.
    told: (usize, Timestamp),
}

/// The groups of all open findings.
#[derive(Debug, Default)]
pub struct Culprits {
    groups: BTreeMap<Key, Group>,
    of_socket: FxHashMap<SocketId, Key>,
}

/// A group is told of when it reaches this size, and again whenever it has doubled.
pub const WORTH_TELLING: usize = 10;
/// While it grows it is told of this often.
const TELL_EVERY: Nanos = Nanos(60_000_000_000);
/// Growth is judged over at most this,
const LONGEST_WINDOW: Nanos = Nanos(600_000_000_000);
/// and not before the group was watched for this long.
const SHORTEST_WINDOW: Nanos = Nanos(10_000_000_000);
/// Samples are at least this far apart.
const SAMPLE_EVERY: Nanos = Nanos::SECOND;
/// Fewer more than this may be chance.
const LEAST_GAIN: usize = 3;

impl Culprits {
    /// Takes in a finding: opened, changed, or ended.
    pub fn apply(&mut self, finding: &Finding, now: Timestamp) {
        let Some(id) = finding.socket.id else { return };
        let key = key(finding);
        let before = self.of_socket.get(&id).copied();
        if let Some(before) = before
            && (before != key || finding.status == Status::Ended)
        {
            self.leave(id, before, now);
        }
        if finding.status != Status::Ended {
            self.enter(id, key, finding, now);
        }
    }

    fn enter(&mut self, id: SocketId, key: Key, finding: &Finding, now: Timestamp) {
        self.of_socket.insert(id, key);
        let since = finding.at - finding.linger;
        let group = self.groups.entry(key).or_insert_with(|| Group {
            members: FxHashMap::default(),
            history: VecDeque::new(),
            oldest: finding.clone(),
            told: (0, Timestamp::default()),
        });
        let same = group.oldest.socket.id == Some(id);
        if same || since < group.oldest.at - group.oldest.linger {
            group.oldest = finding.clone();
        }
        group.members.insert(id, Member { since, at_least: finding.at_least });
        group.sample(now);
    }

    fn leave(&mut self, id: SocketId, key: Key, now: Timestamp) {
        self.of_socket.remove(&id);
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.members.remove(&id);
        group.sample(now);
        if group.members.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// The groups, what hurts most first: those that will exhaust their process, the soonest
    /// first; then the largest, then the oldest.
    pub fn all(&self, now: Timestamp) -> Vec<Culprit> {
        let mut culprits: Vec<_> =
            self.groups.iter().map(|(key, group)| self.describe(key, group, now)).collect();
        culprits.sort_by_key(|culprit| {
            (
                culprit.reaches_limit_in.unwrap_or(Nanos(u64::MAX)),
                std::cmp::Reverse(culprit.count),
                std::cmp::Reverse(culprit.oldest),
                culprit.key,
            )
        });
        culprits
    }

    /// Groups that have become worth telling of since the last time.
    pub fn news(&mut self, now: Timestamp) -> Vec<Culprit> {
        let mut keys = Vec::new();
        for (key, group) in &mut self.groups {
            let (count, told) = (group.members.len(), group.told);
            let doubled = count >= WORTH_TELLING.max(told.0 * 2);
            let grows =
                told.0 > 0 && now.since(told.1) >= TELL_EVERY && group.growth(now).is_some();
            if doubled || grows {
                group.told = (count, now);
                keys.push(*key);
            }
        }
        let groups = &self.groups;
        keys.iter()
            .filter_map(|key| groups.get(key).map(|group| self.describe(key, group, now)))
            .collect()
    }

    fn describe(&self, key: &Key, group: &Group, now: Timestamp) -> Culprit {
        let mut ages: Vec<Nanos> =
            group.members.values().map(|member| now.since(member.since)).collect();
        ages.sort_unstable();
        let at = |percent: usize| {
            let rank = (ages.len() * percent).div_ceil(100).max(1);
            ages.get(rank - 1).copied()
        };
        Culprit {
            at: now,
            key: *key,
            count: ages.len(),
            share: per_thousand(ages.len(), self.of_socket.len()),
            oldest: at(100).unwrap_or_default(),
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            at_least: group.members.values().any(|member| member.at_least),
            growth: group.growth(now),
            reaches_limit_in: self.reaches_limit_in(key, group, now),
            example: Finding {
                at: now,
                linger: now.since(group.oldest.at - group.oldest.linger),
                ..group.oldest.clone()
            },
        }
    }

    /// When the owner of a growing group has used up its descriptors: its open ones and its limit
    /// as of the last look, and what all its groups gain. What waits in an accept queue has none.
    fn reaches_limit_in(&self, key: &Key, group: &Group, now: Timestamp) -> Option<Nanos> {
        group.growth(now)?;
        if key.owner.is_none() || key.verdict == Some(Verdict::NeverAccepted) {
            return None;
        }
        let facts = group.oldest.evidence.process.as_ref()?;
        let left = facts.fd_limit?.checked_sub(facts.fds?)?;
        let rate: u64 = self
            .groups
            .iter()
            .filter(|(other, _)| {
                other.owner == key.owner && other.verdict != Some(Verdict::NeverAccepted)
            })
            .filter_map(|(_, group)| group.growth(now))
            .map(Growth::milli_per_minute)
            .sum();
        let milli_minutes = u128::from(left) * 1_000_000 / u128::from(rate.max(1));
        Some(Nanos(u64::try_from(milli_minutes * 60_000_000).unwrap_or(u64::MAX)))
    }
}

impl Group {
    fn sample(&mut self, at: Timestamp) {
        let count = self.members.len();
        match self.history.back_mut() {
            Some(last) if at.since(last.at) < SAMPLE_EVERY => last.count = count,
            _ => self.history.push_back(Sample { at, count }),
        }
        while self.history.len() > 2 && at.since(self.history[1].at) > LONGEST_WINDOW {
            self.history.pop_front();
        }
    }

    /// How many were open at a moment.
    fn count_at(&self, at: Timestamp) -> usize {
        let after = self.history.partition_point(|sample| sample.at <= at);
        after.checked_sub(1).map_or(0, |index| self.history[index].count)
    }

    /// The group grows if it was never smaller after a third of the time than before it, and larger
    /// after two of the three: one burst is not growth.
    fn growth(&self, now: Timestamp) -> Option<Growth> {
        let first = self.history.front()?;
        let over = now.since(first.at).min(LONGEST_WINDOW);
        if over < SHORTEST_WINDOW {
            return None;
        }
        let counts: [usize; 4] = std::array::from_fn(|third| {
            self.count_at(now - Nanos(over.0 / 3 * (3 - third as u64)))
        });
        let falls = counts.windows(2).any(|pair| pair[0] > pair[1]);
        let rises = counts.windows(2).filter(|pair| pair[0] < pair[1]).count();
        let gained = counts[3].saturating_sub(counts[0]);
        (!falls && rises >= 2 && gained >= LEAST_GAIN)
            .then(|| Growth { gained: u64::try_from(gained).unwrap_or(u64::MAX), over })
    }
}

fn key(finding: &Finding) -> Key {
    let client = finding.socket.role.map(|role| role == Role::Client);
    let listening = finding.listener.as_ref();
    let owner = match listening.and_then(|listener| listener.holders.first()) {
        Some(holder) => Some(holder.process),
        None => finding.socket.owner.map(|owner| owner.process),
    };
    let end = match listening {
        Some(listener) => listener.local,
        None => service(&finding.socket),
    };
    Key { owner, verdict: finding.verdict, client, end }
}

/// The end that a group shares: the server's. Where nobody knows which that is, the lower port.
fn service(socket: &Socket) -> SocketAddr {
    let here = match socket.role {
        Some(role) => role == Role::Server,
        None => socket.local.port() < socket.remote.port(),
    };
    if here { socket.local } else { socket.remote }
}

fn per_thousand(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 1000 / whole.max(1)).unwrap_or(1000)
}
