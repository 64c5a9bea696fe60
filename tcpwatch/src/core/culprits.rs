//! Findings grouped by what they have in common: culprits, not lists.
//!
//! A group is followed from its first finding to its last: how many are open, how old they are,
//! and whether they become more. A steady pool has about as many at the end of a while as at its
//! beginning; what comes and goes by chance must be exceeded by far before it is called growth.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::{
    finding::{Finding, Status, Verdict},
    process::ProcessFacts,
    socket::{Process, Role, Socket, SocketId},
    time::{Nanos, Timestamp},
};

/// What the findings of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Key {
    /// What a finding shares with others. `seen` says how often an end was seen where nobody knows
    /// which side connected.
    pub fn of(finding: &Finding, seen: impl Fn(SocketAddr) -> u32) -> Self {
        let client = finding.socket.role.map(|role| role == Role::Client);
        let listening = finding.listener.as_ref();
        let owner = match listening.and_then(|listener| listener.holders.first()) {
            Some(holder) => Some(holder.process),
            None => finding.socket.owner.map(|owner| owner.process),
        };
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

/// How many were open at a moment, and how many had come by then.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    count: usize,
    come: usize,
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
    /// How many have come in all.
    come: usize,
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
/// Growth is judged over the last of these times that shows it, or over all the time that the
/// group was watched,
const WINDOWS: [Nanos; 3] =
    [Nanos(60_000_000_000), Nanos(600_000_000_000), Nanos(3_600_000_000_000)];
/// and not before it was watched for this long.
const SHORTEST_WINDOW: Nanos = Nanos(10_000_000_000);
/// Samples are at least this far apart.
const SAMPLE_EVERY: Nanos = Nanos::SECOND;
/// Samples kept; beyond it every second one is forgotten.
const MOST_SAMPLES: usize = 1024;
/// In so many parts of the time
const PARTS: u64 = 6;
/// a group that grows has risen in at least so many: one burst is not growth.
const RISING_PARTS: usize = 4;
/// What is gained must be this many times what chance makes of as many comings and goings: their
/// square root.
const BEYOND_CHANCE: usize = 4;

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
            history: VecDeque::new(),
            come: 0,
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
        group.come += usize::from(new);
        if let Some(process) = &finding.evidence.process
            && group.process.as_ref().is_none_or(|known| known.at <= process.at)
        {
            group.process = Some(Arc::clone(process));
        }
        group.sample(now);
    }

    fn leave(&mut self, id: SocketId, key: Key, now: Timestamp) {
        self.of_socket.remove(&id);
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.members.remove(&id);
        group.oldest.take_if(|oldest| oldest.socket.id == Some(id));
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
            growth: group.growth(now),
            reaches_limit_in: self.reaches_limit_in(key, group, now),
            example: group.oldest.as_ref().map(|oldest| as_of(oldest, now)),
            process: group.process.clone(),
        }
    }

    /// When the owner of a growing group has used up its descriptors: its open ones and its limit
    /// as of the last look, and what all its groups gain. What waits in an accept queue has none.
    fn reaches_limit_in(&self, key: &Key, group: &Group, now: Timestamp) -> Option<Nanos> {
        group.growth(now)?;
        if key.owner.is_none() || key.verdict == Some(Verdict::NeverAccepted) {
            return None;
        }
        let facts = group.process.as_ref()?;
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
        let (count, come) = (self.members.len(), self.come);
        match self.history.back_mut() {
            Some(last) if at.since(last.at) < SAMPLE_EVERY => {
                (last.count, last.come) = (count, come);
            }
            _ => self.history.push_back(Sample { at, count, come }),
        }
        let longest = WINDOWS[WINDOWS.len() - 1];
        while self.history.len() > 2 && at.since(self.history[1].at) > longest {
            self.history.pop_front();
        }
        if self.history.len() > MOST_SAMPLES {
            let mut number = 0;
            self.history.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// How it was at a moment.
    fn at(&self, at: Timestamp) -> Sample {
        let after = self.history.partition_point(|sample| sample.at <= at);
        let before = after.checked_sub(1).map(|index| self.history[index]);
        before.unwrap_or(Sample { at, count: 0, come: 0 })
    }

    fn growth(&self, now: Timestamp) -> Option<Growth> {
        let watched = now.since(self.history.front()?.at);
        WINDOWS
            .into_iter()
            .filter(|&window| window < watched)
            .chain([watched])
            .find_map(|window| self.growth_over(window, now))
    }

    fn growth_over(&self, over: Nanos, now: Timestamp) -> Option<Growth> {
        if over < SHORTEST_WINDOW {
            return None;
        }
        let samples: Vec<Sample> =
            (0..=PARTS).map(|part| self.at(now - Nanos(over.0 / PARTS * (PARTS - part)))).collect();
        let parts = || samples.windows(2).map(|pair| (pair[0], pair[1]));
        let rising = parts().filter(|(before, after)| before.count < after.count).count();
        // The part that gained most is left out: a burst must not pass for growth, nor what was
        // there before anybody looked.
        let (before, after) =
            parts().max_by_key(|(before, after)| after.count.saturating_sub(before.count))?;
        let (first, last) = (samples.first()?, samples.last()?);
        let gained = (last.count + before.count).checked_sub(first.count + after.count)?;
        let come = (last.come - first.come) - (after.come - before.come);
        let gone = come.checked_sub(gained)?;
        // Both sides are those of the whole time, as the parts that are left tell.
        let whole = |number: usize| number * (samples.len() - 1) / (samples.len() - 2);
        let beyond_chance =
            whole(gained).pow(2) > BEYOND_CHANCE * BEYOND_CHANCE * whole(come + gone);
        let over = Nanos(over.0 / PARTS * (PARTS - 1));
        (rising >= RISING_PARTS && beyond_chance)
            .then(|| Growth { gained: u64::try_from(gained).unwrap_or(u64::MAX), over })
    }
}

/// A finding as it stands now. When the connection was last active is known only of its last look.
fn as_of(finding: &Finding, now: Timestamp) -> Finding {
    const FRESH: Nanos = Nanos(2_000_000_000);
    let mut finding = finding.clone();
    finding.linger = now.since(finding.at - finding.linger);
    if now.since(finding.at) > FRESH {
        finding.evidence.activity = None;
    }
    finding.at = now;
    finding
}

fn per_thousand(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 1000 / whole.max(1)).unwrap_or(1000)
}
