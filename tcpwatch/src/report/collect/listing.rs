//! Findings that are listed one by one: of each culprit those that lingered longest.
//!
//! There is room for a fixed number. When it is used up, the culprit with the most gives up the one
//! that had lingered least when it was last told. What is told again later, and has lingered for
//! long enough by then, comes back. So it depends on the recording alone who is listed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use rustc_hash::FxHashMap;

use super::culprits::Told;
use crate::{
    core::{
        advice,
        culprits::Key,
        evidence,
        finding::{Finding, Status, Verdict},
        socket::{Role, SocketId},
        time::{Nanos, Timestamp},
    },
    report::model::Listed,
};

/// A socket may be found more than once.
type Id = (SocketId, Timestamp);

/// One that is listed.
#[derive(Debug)]
struct Entry {
    told: Told,
    /// For how long it had lingered when it was last told.
    rank: Nanos,
    died: Option<Timestamp>,
    /// As last told while it was open, or else at its end.
    last: Finding,
    /// Its end.
    ended: Option<Finding>,
    /// Its end was not shown.
    dropped: bool,
}

/// All that are listed.
#[derive(Debug)]
pub(super) struct Listing {
    most: usize,
    entries: FxHashMap<Id, Box<Entry>>,
    /// Those of each culprit, the one that goes first in front.
    ranks: BTreeMap<u32, BTreeSet<(Nanos, Reverse<Id>)>>,
    /// Culprits by how many they have.
    sizes: BTreeSet<(usize, u32)>,
}

impl Listing {
    /// Of so many at most.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: FxHashMap::default(), ranks: BTreeMap::new(), sizes: BTreeSet::new() }
    }

    /// Takes in what is told of a finding.
    pub(super) fn note(&mut self, told: Told, f: &Finding) {
        let Some(socket) = f.socket.id else { return };
        if let Some(entry) = told.replaces.and_then(|found| self.entries.get_mut(&(socket, found)))
        {
            entry.dropped = true;
        }
        let id = (socket, told.found);
        let known = self.remove(id);
        if known.is_none() && !self.has_room(told.group, f.linger, id) {
            return;
        }
        let ended = f.status == Status::Ended;
        let begin = || f.at - f.linger;
        let died = known.as_ref().and_then(|known| known.died);
        let died = died.or_else(|| (f.verdict == Some(Verdict::DeadFd)).then(begin));
        let last = match known {
            Some(known) if ended => known.last,
            _ => Finding { status: Status::Still, ending: None, ..f.clone() },
        };
        let ended = ended.then(|| f.clone());
        self.insert(
            id,
            Box::new(Entry { told, rank: f.linger, died, last, ended, dropped: false }),
        );
        while self.entries.len() > self.most {
            self.evict();
        }
    }

    /// Whether one that is not listed yet would stay.
    fn has_room(&self, group: u32, rank: Nanos, id: Id) -> bool {
        if self.entries.len() < self.most {
            return true;
        }
        let ours = self.ranks.get(&group);
        let size = ours.map_or(0, BTreeSet::len);
        let largest = self.sizes.last().map_or(0, |&(size, _)| size);
        let least = ours.and_then(BTreeSet::first);
        size < largest || least.is_some_and(|least| *least < (rank, Reverse(id)))
    }

    fn insert(&mut self, id: Id, entry: Box<Entry>) {
        let group = entry.told.group;
        let ranks = self.ranks.entry(group).or_default();
        self.sizes.remove(&(ranks.len(), group));
        ranks.insert((entry.rank, Reverse(id)));
        self.sizes.insert((ranks.len(), group));
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: Id) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&id)?;
        let group = entry.told.group;
        if let Some(ranks) = self.ranks.get_mut(&group) {
            self.sizes.remove(&(ranks.len(), group));
            ranks.remove(&(entry.rank, Reverse(id)));
            if ranks.is_empty() {
                self.ranks.remove(&group);
            } else {
                self.sizes.insert((ranks.len(), group));
            }
        }
        Some(entry)
    }

    fn evict(&mut self) {
        let largest = self.sizes.last().and_then(|(_, group)| self.ranks.get(group));
        if let Some(&(_, Reverse(id))) = largest.and_then(BTreeSet::first) {
            self.remove(id);
        }
    }

    /// The list as of the end: by culprit, in this order, the longest first.
    pub(super) fn report(
        &self,
        culprits: impl Iterator<Item = u32>,
        end: Timestamp,
    ) -> Vec<Listed> {
        let places: FxHashMap<u32, usize> = culprits.zip(0..).collect();
        let mut list: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(id, entry)| {
                let listed = entry.report(*places.get(&entry.told.group)?, end);
                Some(((listed.culprit, Reverse(listed.linger), *id), listed))
            })
            .collect();
        list.sort_unstable_by_key(|&(order, _)| order);
        list.into_iter().map(|(_, listed)| listed).collect()
    }
}

impl Entry {
    fn report(&self, culprit: usize, end: Timestamp) -> Listed {
        let (told, last) = (&self.told, &self.last);
        let (socket, listener) = (&last.socket, last.listener.as_ref());
        let holders = listener.map_or(&last.holders, |listener| &listener.holders);
        let open = self.ended.is_none() && !self.dropped;
        let linger = match &self.ended {
            Some(ended) => ended.linger,
            None if open => end.since(self.died.unwrap_or(told.since)),
            None => last.linger,
        };
        Listed {
            culprit,
            socket: socket.id.map(|id| id.0),
            owner: Key::of(last, |_| 0).owner.map(|owner| owner.to_string()),
            holders: (!holders.is_empty()).then(|| advice::names(holders)),
            role: socket.role.map(Role::word),
            local: socket.local.to_string(),
            remote: socket.remote.to_string(),
            netns: last.netns_name.as_deref().map(str::to_owned),
            verdict: last.verdict.map(Verdict::word),
            born: socket.born,
            since: told.since,
            at_least: last.at_least,
            found: (!told.carried).then_some(told.found),
            died: self.died,
            until: told.until,
            linger,
            open,
            how: self.ended.as_ref().and_then(|ended| Some(ended.ending?.cause.word())),
            ended: self.ended.as_ref().map(advice::summary),
            summary: advice::summary(last),
            evidence: evidence::line(last),
            seen: last.at,
        }
    }
}
