//! What the screen knows: a sink that keeps what is open now.
//!
//! It is fed with records and with the pipeline's census, and reads no clock. Views take snapshots of
//! it (`snapshot.rs`) and it knows nothing of them. A transition costs some tens of nanoseconds: what
//! is kept of one is a count, and of those into `CLOSE_WAIT` a path (`path.rs`) until it ends or is a
//! finding. What is kept is bounded by what the pipeline keeps.

mod groups;
mod path;
mod seconds;

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
};

use rustc_hash::FxHashMap;

pub use self::{
    groups::{Group, Groups, Sort},
    path::{Path, Paths, Step},
    seconds::Seconds,
};
use super::snapshot::MOST_ROWS;
use crate::{
    core::{
        culprits::{Culprit, Key},
        finding::{Finding, Status},
        record::{Census, Record},
        socket::SocketId,
        time::{ClockMark, Nanos, Timestamp},
    },
    sink::Sink,
};

/// Findings that have ended and are kept, as many as a list shows.
const MOST_ENDED: usize = MOST_ROWS;
/// A socket that lingers for this long beyond the threshold should be a finding.
const LATE: Nanos = Nanos(120_000_000_000);

/// A finding that is open.
#[derive(Clone, Debug)]
pub struct Open {
    /// As it was told last.
    pub finding: Arc<Finding>,
    /// Which states it went through.
    pub path: Path,
    group: u32,
}

/// A finding about a socket: the one that is open, else the last that ended; or the one that ended
/// at a moment, as a socket may be a finding more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// The socket.
    pub id: SocketId,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl From<SocketId> for Which {
    fn from(id: SocketId) -> Self {
        Self { id, ended: None }
    }
}

/// Everything that may be shown.
#[derive(Clone, Debug, Default)]
pub struct Model {
    linger: Nanos,
    clock: ClockMark,
    begun: Option<Timestamp>,
    now: Timestamp,
    judged: Timestamp,
    /// How many sockets there are.
    pub census: Census,
    /// Sockets in `CLOSE_WAIT`, by the second.
    pub close_wait: Seconds,
    transitions: Seconds,
    /// Transitions lost, and when that was learnt last.
    pub lost: Option<(u64, Timestamp)>,
    /// Findings that have ended so far.
    pub ended: u64,
    /// Findings by culprit.
    pub groups: Groups,
    open: FxHashMap<SocketId, Open>,
    over: VecDeque<Open>,
    paths: Paths,
    /// How often each end was seen where nobody knows which side connected.
    ends: HashMap<SocketAddr, u32>,
}

impl Model {
    /// Of a pipeline for which what lingers for `linger` is a finding.
    pub fn new(linger: Nanos) -> Self {
        Self { linger, ..Self::default() }
    }

    /// The latest time of anything that came in.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Places times in wall time.
    pub fn clock(&self) -> &ClockMark {
        &self.clock
    }

    /// For how long it has been fed.
    pub fn watched(&self) -> Nanos {
        self.now.since(self.begun.unwrap_or(self.now))
    }

    /// Transitions per second of late; `None` if that is not known.
    pub fn rate(&self) -> Option<u64> {
        self.census.tracked?;
        self.transitions.rate(self.now, self.begun?)
    }

    /// How many findings are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// One of them, or one that ended of late.
    pub fn finding(&self, which: Which) -> Option<&Open> {
        let asked = |open: &&Open| {
            open.finding.socket.id == Some(which.id)
                && which.ended.is_none_or(|ended| open.finding.at == ended)
        };
        let open = self.open.get(&which.id).filter(|_| which.ended.is_none());
        open.or_else(|| self.over.iter().rev().find(asked))
    }

    /// Those that ended of late, the first first.
    pub fn over(&self) -> impl DoubleEndedIterator<Item = &Open> {
        self.over.iter()
    }

    /// The group of a culprit. Where it has none any more, or somebody has selected one of its sockets,
    /// the group that this socket is in now: its verdict may have changed.
    pub fn group(&self, key: &Key, selected: Option<SocketId>, held: bool) -> Option<&Group> {
        let group = self.groups.get(key);
        let now = selected.and_then(|id| self.group_of(self.open.get(&id)?));
        if held { now.or(group) } else { group.or(now) }
    }

    /// The group of an open finding.
    pub fn group_of(&self, open: &Open) -> Option<&Group> {
        self.groups.at(open.group)
    }

    /// The open findings of a group, the oldest first.
    pub fn members(&self, group: &Group) -> impl DoubleEndedIterator<Item = &Open> {
        group.sockets.iter().filter_map(|(_, id)| self.open.get(id))
    }

    /// A group as a culprit that other sinks can show, with the oldest finding as its example.
    pub fn culprit(&self, group: &Group) -> Culprit {
        let count = group.sockets.len();
        let ages = || group.sockets.iter().map(|&(since, _)| self.now.since(since));
        // The oldest come first.
        let at =
            |percent: usize| ages().nth(count - (count * percent).div_ceil(100).clamp(1, count));
        let example = self.members(group).next();
        Culprit {
            at: self.now,
            key: group.key,
            count,
            share: u32::try_from(count * 1000 / self.open.len().max(1)).unwrap_or(1000),
            oldest: self.now.since(group.since()),
            p50: at(50).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            at_least: group.at_least > 0,
            growth: group.growth,
            reaches_limit_in: group.limit,
            example: example.map(|open| open.finding.as_of(self.now)),
            process: group.process.clone(),
        }
    }

    /// A copy that stays as it is, without what only a model that goes on needs.
    #[must_use]
    pub fn frozen(&mut self) -> Self {
        let paths = std::mem::take(&mut self.paths);
        let frozen = self.clone();
        self.paths = paths;
        frozen
    }

    fn advance(&mut self, clock: &ClockMark, at: Timestamp) {
        self.clock = *clock;
        self.begun.get_or_insert(at);
        self.now = self.now.max(at);
        if self.now.since(self.judged) >= Nanos::SECOND {
            self.judged = self.now;
            self.groups.judge(self.now);
            let long_ago = self.now - self.linger - LATE;
            self.paths.forget(self.census.lingering, long_ago);
        }
    }

    fn apply(&mut self, finding: &Finding) {
        let Some(id) = finding.socket.id else { return };
        if finding.status == Status::Ended {
            self.end(id, finding);
            return;
        }
        let before = self.open.remove(&id);
        if let Some(before) = &before {
            self.groups.leave(before.group, &before.finding, self.now);
            self.count_ends(&before.finding, false);
        }
        self.count_ends(finding, true);
        let key = Key::of(finding, |end| self.ends.get(&end).copied().unwrap_or(0));
        let group = self.groups.enter(key, finding, self.now, usize::from(before.is_none()));
        let path = match before {
            Some(before) => {
                if before.group != group {
                    self.groups.sweep(before.group);
                }
                before.path.up_to(finding)
            }
            None => self.paths.take(finding),
        };
        self.open.insert(id, Open { finding: Arc::new(finding.clone()), path, group });
    }

    fn end(&mut self, id: SocketId, finding: &Finding) {
        self.ended += 1;
        let Some(mut open) = self.open.remove(&id) else { return };
        self.groups.leave(open.group, &open.finding, self.now);
        self.groups.sweep(open.group);
        self.count_ends(&open.finding, false);
        if self.over.len() == MOST_ENDED {
            self.over.pop_front();
        }
        open.finding = Arc::new(finding.clone());
        self.over.push_back(open);
    }

    fn count_ends(&mut self, finding: &Finding, come: bool) {
        if finding.socket.role.is_some() {
            return;
        }
        for end in [finding.socket.local, finding.socket.remote] {
            let count = self.ends.entry(end).or_default();
            *count = if come { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.ends.remove(&end);
            }
        }
    }
}

impl Sink for Model {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(transition) => {
                self.advance(clock, transition.at);
                self.transitions.add(transition.at, 1);
                if path::concerns(transition) {
                    let open = transition.socket.id.and_then(|id| self.open.get_mut(&id));
                    match open {
                        Some(open) => open.path.follow(transition),
                        None => self.paths.apply(transition),
                    }
                }
            }
            Record::Finding(finding) => {
                self.advance(clock, finding.at);
                self.apply(finding);
            }
            Record::Lost(lost) => {
                self.advance(clock, lost.at);
                self.lost = Some((lost.total, lost.at));
            }
            // It counts for itself.
            Record::Culprit(_) | Record::Summary(_) => {}
        }
        Ok(())
    }

    fn census(&mut self, clock: &ClockMark, census: &Census) -> io::Result<()> {
        self.census = *census;
        self.advance(clock, census.at);
        self.close_wait.at_most(census.at, census.close_wait.unwrap_or(census.lingering));
        Ok(())
    }
}
