//! Findings by culprit, kept in the order in which they are shown.
//!
//! Everything is brought up to date as findings come and go, so that a snapshot reads the first rows
//! and nothing else. Growth is what changes with time alone: it is judged once a second, and only of
//! groups that have changed of late, some hundreds of them at most.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::core::{
    culprits::{Key, WORTH_TELLING},
    finding::{Finding, Verdict},
    growth::{Growth, History, reaches_limit_in},
    process::ProcessFacts,
    socket::{Process, SocketId},
    time::{Nanos, Timestamp},
};

/// What is shown first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// What will exhaust its process the soonest, then what grows fastest, then what is most, then
    /// what is oldest.
    #[default]
    Hurt,
    /// The largest groups.
    Count,
    /// The oldest.
    Age,
    /// Those that grow fastest.
    Growth,
    /// By name and pid.
    Owner,
}

impl Sort {
    /// Every order, in the order of their key.
    pub const ALL: [Self; 5] = [Self::Hurt, Self::Count, Self::Age, Self::Growth, Self::Owner];

    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hurt => "hurt",
            Self::Count => "count",
            Self::Age => "age",
            Self::Growth => "growth",
            Self::Owner => "owner",
        }
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// Numbers whose order is that of rows: the smallest first.
type Rank = [u64; 4];

/// Growth of a group that has changed is judged again for this long.
const WATCHED: Nanos = Nanos(60_000_000_000);
/// Groups judged at once.
const MOST_JUDGED: usize = 512;

/// Findings that share owner, verdict, role and end.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they share.
    pub key: Key,
    /// By age, the oldest first.
    pub sockets: BTreeSet<(Timestamp, SocketId)>,
    /// Of how many the age is a lower bound.
    pub at_least: usize,
    /// What its process said last.
    pub process: Option<Arc<ProcessFacts>>,
    /// How fast it grows.
    pub growth: Option<Growth>,
    /// When that uses up the descriptors of its process.
    pub limit: Option<Nanos>,
    /// What a filter looks at, in small letters.
    pub text: String,
    history: History,
    changed: Timestamp,
    watched: bool,
    rank: Rank,
}

impl Group {
    fn new(key: Key) -> Self {
        let mut group = Self {
            key,
            sockets: BTreeSet::new(),
            at_least: 0,
            process: None,
            growth: None,
            limit: None,
            text: String::new(),
            history: History::default(),
            changed: Timestamp::default(),
            watched: false,
            rank: Rank::default(),
        };
        group.describe();
        group
    }

    /// Since when its oldest lingers.
    pub fn since(&self) -> Timestamp {
        self.sockets.first().map_or(Timestamp(u64::MAX), |&(since, _)| since)
    }

    fn describe(&mut self) {
        let owner = self.key.owner.map_or_else(|| "nobody known".to_owned(), |o| o.to_string());
        let verdict = self.key.verdict.map_or("unconfirmed", Verdict::word);
        let container = self.process.as_ref().and_then(|facts| facts.container.as_ref());
        let container = container.map(ToString::to_string).unwrap_or_default();
        self.text = format!("{owner} {verdict} {} {container}", self.key.end).to_lowercase();
    }

    fn rank(&self, sort: Sort) -> Rank {
        let limit = self.limit.map_or(u64::MAX, |limit| limit.0);
        let growth = u64::MAX - self.growth.map_or(0, Growth::milli_per_minute);
        let count = u64::MAX - self.sockets.len() as u64;
        let since = self.since().0;
        match sort {
            Sort::Hurt => [limit, growth, count, since],
            Sort::Count => [count, limit, growth, since],
            Sort::Age => [since, limit, growth, count],
            Sort::Growth => [growth, limit, count, since],
            Sort::Owner => {
                let (pid, comm) = self.key.owner.map_or((u64::MAX, [0xff; 16]), |owner| {
                    let mut name = [0; 16];
                    name[..owner.comm.bytes().len()].copy_from_slice(owner.comm.bytes());
                    (owner.pid.into(), name)
                });
                let name = u128::from_be_bytes(comm);
                let [high, low] =
                    [name >> 64, name].map(|half| u64::try_from(half & u128::from(u64::MAX)));
                [high.unwrap_or(0), low.unwrap_or(0), pid, count]
            }
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    order: BTreeSet<(Rank, u32)>,
    sort: Sort,
    /// Whose growth is judged again.
    watched: VecDeque<u32>,
    growing: BTreeSet<u32>,
}

impl Groups {
    /// How many.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.order.iter().filter_map(|&(_, number)| self.slots.get(number as usize)?.as_ref())
    }

    /// The group that shares this.
    pub fn get(&self, key: &Key) -> Option<&Group> {
        self.slots.get(*self.by_key.get(key)? as usize)?.as_ref()
    }

    /// The group that [`Self::enter`] returned.
    pub fn at(&self, number: u32) -> Option<&Group> {
        self.slots.get(number as usize)?.as_ref()
    }

    /// Puts them into another order.
    pub fn sort_by(&mut self, sort: Sort) {
        if sort == self.sort {
            return;
        }
        self.sort = sort;
        self.order.clear();
        for (number, group) in (0..).zip(&mut self.slots) {
            if let Some(group) = group {
                group.rank = group.rank(sort);
                self.order.insert((group.rank, number));
            }
        }
    }

    /// Takes in a finding; returns its group. `come` is 1 if it was in none before.
    pub fn enter(&mut self, key: Key, finding: &Finding, now: Timestamp, come: usize) -> u32 {
        let number = match self.by_key.get(&key) {
            Some(&number) => number,
            None => self.add(key),
        };
        self.change(number, now, come, |group| {
            let Some(id) = finding.socket.id else { return };
            group.sockets.insert((finding.at - finding.linger, id));
            group.at_least += usize::from(finding.at_least);
            if let Some(process) = &finding.evidence.process
                && group.process.as_ref().is_none_or(|known| known.at <= process.at)
            {
                let before = group.process.replace(Arc::clone(process));
                if before.is_none_or(|before| before.container != process.container) {
                    group.describe();
                }
            }
        });
        number
    }

    /// Takes out what was entered as `finding`.
    pub fn leave(&mut self, number: u32, finding: &Finding, now: Timestamp) {
        self.change(number, now, 0, |group| {
            let Some(id) = finding.socket.id else { return };
            group.sockets.remove(&(finding.at - finding.linger, id));
            group.at_least -= usize::from(finding.at_least);
        });
    }

    /// Forgets a group if nothing is in it any more.
    pub fn sweep(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        if let Some(group) = slot.take_if(|group| group.sockets.is_empty()) {
            self.order.remove(&(group.rank, number));
            self.by_key.remove(&group.key);
            self.growing.remove(&number);
            // Its place is free once nobody will judge it.
            if !group.watched {
                self.free.push(number);
            }
        }
    }

    /// Judges growth anew; to be called once a second.
    pub fn judge(&mut self, now: Timestamp) {
        for _ in 0..self.watched.len().min(MOST_JUDGED) {
            let Some(number) = self.watched.pop_front() else { break };
            let Some(group) = self.slots.get_mut(number as usize).and_then(Option::as_mut) else {
                self.free.push(number);
                continue;
            };
            group.growth = group.history.growth(now);
            let grows = group.growth.is_some();
            if grows {
                self.growing.insert(number);
            } else if self.growing.remove(&number) {
                group.limit = None;
                self.reorder(number);
            }
            if grows || self.is_watched(number, now) {
                self.watched.push_back(number);
            } else if let Some(Some(group)) = self.slots.get_mut(number as usize) {
                group.watched = false;
            }
        }
        self.judge_limits();
    }

    /// What all growing groups of a process gain uses up its descriptors. What waits in an accept queue
    /// has none.
    fn judge_limits(&mut self) {
        let growing: Vec<u32> = self.growing.iter().copied().collect();
        let takes_fds = |key: &Key| key.verdict.is_none_or(Verdict::takes_fd);
        let mut rates: BTreeMap<Option<Process>, u64> = BTreeMap::new();
        for group in growing.iter().filter_map(|&number| self.slots[number as usize].as_ref()) {
            if let (Some(growth), true) = (group.growth, takes_fds(&group.key)) {
                *rates.entry(group.key.owner).or_default() += growth.milli_per_minute();
            }
        }
        for number in growing {
            let Some(group) = self.slots[number as usize].as_mut() else { continue };
            let known = group.key.owner.is_some() && takes_fds(&group.key);
            let rate = rates.get(&group.key.owner).filter(|_| known);
            let facts = group.process.as_ref();
            group.limit = facts.zip(rate).and_then(|(facts, &rate)| reaches_limit_in(facts, rate));
            self.reorder(number);
        }
    }

    fn is_watched(&self, number: u32, now: Timestamp) -> bool {
        let group = self.slots.get(number as usize).and_then(Option::as_ref);
        group.is_some_and(|group| {
            group.sockets.len() >= WORTH_TELLING && now.since(group.changed) < WATCHED
        })
    }

    fn add(&mut self, key: Key) -> u32 {
        let group = Group::new(key);
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[number as usize] = Some(group);
        self.by_key.insert(key, number);
        number
    }

    fn change(&mut self, number: u32, now: Timestamp, come: usize, how: impl FnOnce(&mut Group)) {
        let Some(Some(group)) = self.slots.get_mut(number as usize) else { return };
        how(group);
        group.history.note(now, group.sockets.len(), come);
        group.changed = now;
        if !group.watched && group.sockets.len() >= WORTH_TELLING {
            group.watched = true;
            self.watched.push_back(number);
        }
        self.reorder(number);
    }

    fn reorder(&mut self, number: u32) {
        let Some(Some(group)) = self.slots.get_mut(number as usize) else { return };
        let rank = group.rank(self.sort);
        if rank != group.rank {
            self.order.remove(&(group.rank, number));
            group.rank = rank;
        }
        self.order.insert((rank, number));
    }
}
