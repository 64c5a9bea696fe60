//! Findings by culprit, over the whole recording.
//!
//! `core/culprits.rs` knows the groups that are open; here those stay that are over, with how they
//! ended. Growth is the core's: it is taken from its records and never computed again.

mod group;

use std::{cmp::Reverse, collections::hash_map::Entry as Place, net::SocketAddr};

use rustc_hash::FxHashMap;

use self::group::Group;
use super::{timeline::Timeline, verdict_word};
use crate::{
    core::{
        culprits::{Culprit, Key},
        finding::{Cause, Finding, Status, Verdict},
        socket::SocketId,
        time::{ClockMark, Nanos, Timestamp},
    },
    report::model::{self, CountsByWord, Totals, Wall},
};

/// Culprits kept apart.
const MOST_CULPRITS: usize = 1024;
/// Findings whose culprit is remembered until they end.
const MOST_OPEN: usize = 1 << 20;
/// Ends that are counted where nobody knows which side connected.
const MOST_ENDS: usize = 4096;

/// A finding that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    group: u32,
    /// It is from before what is reported.
    before: bool,
    /// When it was told for the first time,
    found: Timestamp,
    /// when it was open already.
    carried: bool,
    /// When it began to linger.
    since: Timestamp,
}

/// Where a finding belongs, and when it was what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Number of its group.
    pub(super) group: u32,
    /// When it was told for the first time.
    pub(super) found: Timestamp,
    /// The same of one of this socket that was not seen to end before.
    pub(super) replaces: Option<Timestamp>,
    /// It was open already then.
    pub(super) carried: bool,
    /// When it began to linger,
    pub(super) since: Timestamp,
    /// and when it ceased to.
    pub(super) until: Option<Timestamp>,
}

/// All culprits.
#[derive(Debug, Default)]
pub(super) struct Culprits {
    numbers: FxHashMap<Key, u32>,
    groups: Vec<Group>,
    open: FxHashMap<SocketId, Open>,
    /// Those that were open before they were told, by verdict.
    carried: CountsByWord,
    ends: FxHashMap<SocketAddr, u32>,
}

impl Culprits {
    /// Takes in a finding: opened, changed, or ended. What is reported begins at `start`.
    pub(super) fn apply(
        &mut self,
        clock: &ClockMark,
        timeline: &mut Timeline,
        start: Timestamp,
        f: &Finding,
    ) -> Told {
        let known = f.socket.id.and_then(|id| self.open.get(&id).copied());
        if f.status == Status::Ended {
            return self.end(clock, timeline, start, known, f);
        }
        let open = self.enter(clock, timeline, start, known, f);
        let Open { group, found, carried, since, .. } = open;
        let replaces = known.map(|known| known.found).filter(|&known| known != found);
        Told { group, found, replaces, carried, since, until: None }
    }

    fn enter(
        &mut self,
        clock: &ClockMark,
        timeline: &mut Timeline,
        start: Timestamp,
        known: Option<Open>,
        f: &Finding,
    ) -> Open {
        let number = self.number(f);
        let opens = f.status == Status::Open;
        let has_room = known.is_some() || self.open.len() < MOST_OPEN;
        let id = f.socket.id.filter(|_| has_room);
        // Open already when it is told for the first time.
        let carried = !opens && known.is_none() && id.is_some();
        if carried {
            *self.carried.entry(verdict_word(f.verdict)).or_default() += 1;
        }
        let counts = opens || carried;
        let arrives = counts && known.is_none();
        let slot = timeline.slot(clock, f.at);
        slot.findings += u64::from(counts);
        slot.open += i64::from(arrives);
        let open = match known {
            Some(known) if !opens => Open { group: number, ..known },
            _ => Open {
                group: number,
                before: carried && f.at <= start || began_before(f, start),
                found: f.at,
                carried,
                since: f.at - f.linger,
            },
        };
        if let Some(id) = id {
            self.open.insert(id, open);
        }
        // What turned out to be another's moves there.
        let moved = known.filter(|known| known.group != number);
        let recounted = moved.is_some_and(|old| self.leave(timeline, old, f));
        let Some(group) = self.groups.get_mut(number as usize) else { return open };
        if arrives || moved.is_some() {
            group.open += 1;
            group.changes.add(timeline, f.at, 1);
            let from = if arrives { open.since.max(start) } else { f.at };
            group.lingering.add(timeline, from, 1);
        }
        if counts || recounted {
            let wall = Wall(clock.wall_ns(f.at));
            group.opened += 1;
            group.before += u64::from(open.before);
            group.first = Some(group.first.map_or(wall, |first| first.min(wall)));
            group.last = group.last.max(Some(wall));
        }
        group.note(clock, f);
        open
    }

    /// Takes one from the group in which it was; returns whether it is not counted there any more.
    fn leave(&mut self, timeline: &Timeline, old: Open, f: &Finding) -> bool {
        let Some(group) = self.groups.get_mut(old.group as usize) else { return false };
        group.open = group.open.saturating_sub(1);
        group.changes.add(timeline, f.at, -1);
        group.lingering.add(timeline, f.at, -1);
        // Opened anew: its end was not shown, and it counts twice.
        if f.status == Status::Open || group.opened == 0 {
            return false;
        }
        group.opened -= 1;
        group.before = group.before.saturating_sub(u64::from(old.before));
        true
    }

    fn end(
        &mut self,
        clock: &ClockMark,
        timeline: &mut Timeline,
        start: Timestamp,
        known: Option<Open>,
        f: &Finding,
    ) -> Told {
        let was_open = f.socket.id.is_some_and(|id| self.open.remove(&id).is_some());
        let Open { group: number, found, carried, since, .. } = known.unwrap_or_else(|| Open {
            group: self.number(f),
            before: began_before(f, start),
            found: f.at,
            carried: true,
            since: f.at - f.linger,
        });
        // What nobody had told to be dead has lingered only until it died.
        let until = match f.verdict {
            Some(Verdict::DeadFd) => f.at,
            _ => f.at.min(since + f.linger),
        };
        let told =
            Told { group: number, found, replaces: None, carried, since, until: Some(until) };
        timeline.slot(clock, f.at).open -= i64::from(was_open);
        let Some(group) = self.groups.get_mut(number as usize) else { return told };
        if was_open {
            group.open = group.open.saturating_sub(1);
            group.changes.add(timeline, f.at, -1);
            group.lingering.add(timeline, until.max(start), -1);
        }
        group.note(clock, f);
        if let Some(ending) = f.ending {
            group.count_end(ending);
        }
        told
    }

    /// Takes in what the core says of a group that is open.
    pub(super) fn grew(&mut self, clock: &ClockMark, culprit: &Culprit) {
        let example = culprit.example.as_ref();
        let of_example = || Some(self.open.get(&example?.socket.id?)?.group);
        let number = self.numbers.get(&culprit.key).copied().or_else(of_example);
        let Some(group) = number.and_then(|number| self.groups.get_mut(number as usize)) else {
            return;
        };
        if group.key.is_none() {
            return;
        }
        if culprit.oldest >= group.longest {
            (group.longest, group.at_least) = (culprit.oldest, culprit.at_least);
        }
        if let Some(example) = example {
            group.note(clock, example);
        }
        if culprit.growth.is_some() {
            let wall = Wall(clock.wall_ns(culprit.at));
            let told = Culprit { example: None, ..culprit.clone() };
            group.growth = Some(Box::new((told, wall)));
        }
    }

    fn number(&mut self, finding: &Finding) -> u32 {
        if finding.socket.role.is_none() && finding.status == Status::Open {
            for end in [finding.socket.local, finding.socket.remote] {
                if self.ends.len() < MOST_ENDS || self.ends.contains_key(&end) {
                    *self.ends.entry(end).or_default() += 1;
                }
            }
        }
        let key = Key::of(finding, |end| self.ends.get(&end).copied().unwrap_or(0));
        let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        match self.numbers.entry(key) {
            Place::Occupied(place) => *place.get(),
            Place::Vacant(place) if self.groups.len() < MOST_CULPRITS => {
                self.groups.push(Group { key: Some(key), ..Group::default() });
                *place.insert(next)
            }
            // The last is everyone else's.
            Place::Vacant(_) => {
                if self.groups.len() == MOST_CULPRITS {
                    self.groups.push(Group::default());
                }
                u32::try_from(MOST_CULPRITS).unwrap_or(u32::MAX)
            }
        }
    }

    /// Findings from before what is reported.
    pub(super) fn before(&self) -> u64 {
        self.groups.iter().map(|group| group.before).sum()
    }

    /// Findings that were open before they were told, by verdict: no summary counts them.
    pub(super) fn carried(&self) -> &CountsByWord {
        &self.carried
    }

    /// Counts for a recording that has no summary.
    pub(super) fn count(&self, totals: &mut Totals) {
        for group in &self.groups {
            totals.findings += group.opened;
            *totals
                .verdicts
                .entry(verdict_word(group.key.and_then(|key| key.verdict)))
                .or_default() += group.opened;
            for (cause, endings) in Cause::ALL.iter().zip(group.endings) {
                totals.ended += endings.count;
                totals.retracted += if *cause == Cause::InUse { endings.count } else { 0 };
            }
        }
        totals.verdicts.retain(|_, count| *count > 0);
    }

    /// The culprits as of the end.
    pub(super) fn report(&self, timeline: &Timeline, end: Timestamp) -> Vec<model::Culprit> {
        self.order(end).map(|(_, group)| group.report(timeline, end)).collect()
    }

    /// The numbers of groups, in the order in which they are reported.
    pub(super) fn numbers(&self, end: Timestamp) -> impl Iterator<Item = u32> {
        self.order(end).map(|(number, _)| number)
    }

    /// What hurts most first: those that will exhaust their process, those with the most open, those
    /// that had the most.
    fn order(&self, end: Timestamp) -> impl Iterator<Item = (u32, &Group)> {
        let exhausts = |group: &Group| {
            let (culprit, _) = group.growth.as_deref()?;
            culprit.reaches_limit_in.filter(|_| culprit.at == end)
        };
        let mut order: Vec<_> =
            (0..).zip(&self.groups).filter(|(_, group)| !group.is_empty()).collect();
        order.sort_by_key(|(_, group)| {
            (
                group.key.is_none(),
                exhausts(group).unwrap_or(Nanos(u64::MAX)),
                Reverse(group.open),
                Reverse(group.opened),
                Reverse(group.longest),
                group.key,
            )
        });
        order.into_iter()
    }
}

/// Whether it lingered before a moment. Where its age is not known it did, unless it cannot have.
fn began_before(f: &Finding, start: Timestamp) -> bool {
    let may_have = || {
        f.at_most.is_none_or(|most| f.at - most < start)
            && f.socket.born.is_none_or(|born| born < start)
    };
    f.at - f.linger < start || f.at_least && may_have()
}
