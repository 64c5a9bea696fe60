//! Findings grouped by what they have in common: culprits, not lists.
//!
//! A group is followed from its first finding to its last: how many are open, how old they are,
//! and whether they become more. A steady pool has about as many at the end of a while as at its
//! beginning; what comes and goes by chance must be exceeded by far before it is called growth.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rustc_hash::FxHashMap;

pub use super::growth::Growth;
use super::{
    finding::{Finding, Status, Verdict},
    growth::{History, reaches_limit_in},
    process::ProcessFacts,
    socket::{Process, Role, Socket, SocketId},
    time::{Nanos, Timestamp},
};

/// What the findings of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose sockets they are; for `never-accepted` the first of those who should accept.
    pub owner: Option<Process>,
    /// Why they linger.
    pub verdict: Option<Verdict>,
    /// True if this side connected.
    pub client: Option<bool>,
    /// The remote end of clients; for servers the local end, as it is the same for all.
    pub end: SocketAddr,
}

impl Key {
    /// What a finding shares with others. `seen` says how often an end was seen where nobody knows
    /// which side connected.
    pub fn of(finding: &Finding, seen: impl Fn(SocketAddr) -> u32) -> Self {
        let client = finding.socket.role.map(|role| role == Role::Client);
        let listening = finding.listener.as_ref();
        let owner = finding.socket.owner.map(|owner| owner.process);
        let end = match listening {
            Some(listener) => listener.local,
            None => service(&finding.socket, seen),
        };
        Self { owner, verdict: finding.verdict, client, end }
    }
}

/// The end that a group shares: the server's. Where nobody knows which that is, the one that
/// more have in common, or the lower port.
fn service(socket: &Socket, seen: impl Fn(SocketAddr) -> u32) -> SocketAddr {
    let (local, remote) = (socket.local, socket.remote);
    let here = match socket.role {
        Some(role) => role == Role::Server,
        None if seen(local) != seen(remote) => seen(local) > seen(remote),
        None => local.port() < remote.port(),
    };
    if here { local } else { remote }
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
    /// The oldest of which a finding is at hand, as an example.
    pub example: Option<Finding>,
    /// What its process said last.
    pub process: Option<Arc<ProcessFacts>>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    since: Timestamp,
    at_least: bool,
}

#[derive(Debug)]
struct Group {
    members: FxHashMap<SocketId, Member>,
    history: History,
    /// The oldest; `None` since it has ended, until another is told.
    oldest: Option<Finding>,
    /// What its process said last.
    process: Option<Arc<ProcessFacts>>,
    /// How many there were when it was last told, and when that was.
    told: (usize, Timestamp),
}

/// The groups of all open findings.
#[derive(Debug, Default)]
pub struct Culprits {
    groups: BTreeMap<Key, Group>,
    /// How often each end was seen where nobody knows which side connected: what many share is the
    /// server's.
    ends: FxHashMap<SocketAddr, u32>,
    of_socket: FxHashMap<SocketId, Key>,
}

/// A group is told of when it reaches this size, and again whenever it has doubled.
pub const WORTH_TELLING: usize = 10;
/// While it grows it is told of this often.
const TELL_EVERY: Nanos = Nanos(60_000_000_000);

impl Culprits {
    /// Takes in a finding: opened, changed, or ended.
    pub fn apply(&mut self, finding: &Finding, now: Timestamp) {
        let Some(id) = finding.socket.id else { return };
        let before = self.of_socket.get(&id).copied();
        let key = self.key(finding);
        if let Some(before) = before
            && (before != key || finding.status == Status::Ended)
        {
            self.leave(id, before, now);
        }
        if finding.status != Status::Ended {
            self.enter(id, key, finding, now);
        }
    }

    /// Findings in all groups.
    pub fn members(&self) -> usize {
        self.of_socket.len()
    }

    /// Counts the ends of sockets of which nobody knows which side connected.
    pub fn count_ends<'a>(&mut self, sockets: impl Iterator<Item = &'a Socket>) {
        self.ends.clear();
        for socket in sockets {
            for end in [socket.local, socket.remote] {
                *self.ends.entry(end).or_default() += 1;
            }
        }
    }

    fn enter(&mut self, id: SocketId, key: Key, finding: &Finding, now: Timestamp) {
        self.of_socket.insert(id, key);
        let since = finding.at - finding.linger;
        let group = self.groups.entry(key).or_insert_with(|| Group {
            members: FxHashMap::default(),
            history: History::default(),
            oldest: None,
            process: None,
            told: (0, Timestamp::default()),
        });
        let replaces =
            |oldest: &Finding| oldest.socket.id == Some(id) || since < oldest.at - oldest.linger;
        if group.oldest.as_ref().is_none_or(replaces) {
            group.oldest = Some(finding.clone());
        }
        let new = group.members.insert(id, Member { since, at_least: finding.at_least }).is_none();
        if let Some(process) = &finding.evidence.process
            && group.process.as_ref().is_none_or(|known| known.at <= process.at)
        {
            group.process = Some(Arc::clone(process));
        }
        group.history.note(now, group.members.len(), usize::from(new));
    }

    fn leave(&mut self, id: SocketId, key: Key, now: Timestamp) {
        self.of_socket.remove(&id);
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.members.remove(&id);
        group.oldest.take_if(|oldest| oldest.socket.id == Some(id));
        group.history.note(now, group.members.len(), 0);
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
            let grows = told.0 > 0
                && now.since(told.1) >= TELL_EVERY
                && group.history.growth(now).is_some();
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

    fn key(&self, finding: &Finding) -> Key {
        Key::of(finding, |end| self.ends.get(&end).copied().unwrap_or(0))
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
            growth: group.history.growth(now),
            reaches_limit_in: self.reaches_limit_in(key, group, now),
            example: group.oldest.as_ref().map(|oldest| oldest.as_of(now)),
            process: group.process.clone(),
        }
    }

    /// When the owner of a growing group has used up its descriptors: its open ones and its limit
    /// as of the last look, and what all its groups gain. What waits in an accept queue has none.
    fn reaches_limit_in(&self, key: &Key, group: &Group, now: Timestamp) -> Option<Nanos> {
        group.history.growth(now)?;
        let takes_fds = |key: &Key| key.verdict.is_none_or(Verdict::takes_fd);
        if key.owner.is_none() || !takes_fds(key) {
            return None;
        }
        let rate: u64 = self
            .groups
            .iter()
            .filter(|(other, _)| other.owner == key.owner && takes_fds(other))
            .filter_map(|(_, group)| group.history.growth(now))
            .map(Growth::milli_per_minute)
            .sum();
        reaches_limit_in(group.process.as_ref()?, rate)
    }
}

fn per_thousand(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 1000 / whole.max(1)).unwrap_or(1000)
}
