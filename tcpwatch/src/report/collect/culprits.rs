//! Findings by culprit, over the whole recording.
//!
//! `core/culprits.rs` knows the groups that are open; here those stay that are over, with how they
//! ended. Growth is the core's: it is taken from its records and never computed again.

use std::{cmp::Reverse, collections::hash_map::Entry as Place, net::SocketAddr};

use rustc_hash::FxHashMap;

use super::{
    timeline::{Changes, Timeline},
    verdict_word,
};
use crate::{
    core::{
        advice,
        culprits::{Culprit, Key},
        evidence,
        finding::{Cause, Finding, Status, Verdict},
        socket::{Process, SocketId},
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

#[derive(Debug, Default)]
struct Group {
    /// `None` for all that are not kept apart.
    key: Option<Key>,
    opened: u64,
    before: u64,
    open: u64,
    endings: [Endings; Cause::ALL.len()],
    longest: Nanos,
    at_least: bool,
    first: Option<Wall>,
    last: Option<Wall>,
    changes: Changes,
    growth: Option<Box<(Culprit, Wall)>>,
    example: Option<Box<(Finding, Wall)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Endings {
    count: u64,
    /// Who made them; `None` if nobody knows, or if it was not always the same.
    by: Option<Process>,
}

/// A finding that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    group: u32,
    /// It is from before what is reported.
    before: bool,
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
    ) {
        let known = f.socket.id.and_then(|id| self.open.get(&id).copied());
        if f.status != Status::Ended {
            return self.enter(clock, timeline, start, known, f);
        }
        let number = known.map_or_else(|| self.number(f), |known| known.group);
        self.end(clock, timeline, number, f);
    }

    fn enter(
        &mut self,
        clock: &ClockMark,
        timeline: &mut Timeline,
        start: Timestamp,
        known: Option<Open>,
        f: &Finding,
    ) {
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
        let before = match known {
            Some(known) if !opens => known.before,
            _ => carried && f.at <= start || began_before(f, start),
        };
        if let Some(id) = id {
            self.open.insert(id, Open { group: number, before });
        }
        // What turned out to be another's moves there.
        let moved = known.filter(|known| known.group != number);
        let recounted = moved.is_some_and(|old| self.leave(timeline, old, f));
        let Some(group) = self.groups.get_mut(number as usize) else { return };
        if arrives || moved.is_some() {
            group.open += 1;
            group.changes.add(timeline, f.at, 1);
        }
        if counts || recounted {
            let wall = Wall(clock.wall_ns(f.at));
            group.opened += 1;
            group.before += u64::from(before);
            group.first = Some(group.first.map_or(wall, |first| first.min(wall)));
            group.last = group.last.max(Some(wall));
        }
        group.note(clock, f);
    }

    /// Takes one from the group in which it was; returns whether it is not counted there any more.
    fn leave(&mut self, timeline: &Timeline, old: Open, f: &Finding) -> bool {
        let Some(group) = self.groups.get_mut(old.group as usize) else { return false };
        group.open = group.open.saturating_sub(1);
        group.changes.add(timeline, f.at, -1);
        // Opened anew: its end was not shown, and it counts twice.
        if f.status == Status::Open || group.opened == 0 {
            return false;
        }
        group.opened -= 1;
        group.before = group.before.saturating_sub(u64::from(old.before));
        true
    }

    fn end(&mut self, clock: &ClockMark, timeline: &mut Timeline, number: u32, f: &Finding) {
        let was_open = f.socket.id.is_some_and(|id| self.open.remove(&id).is_some());
        timeline.slot(clock, f.at).open -= i64::from(was_open);
        let Some(group) = self.groups.get_mut(number as usize) else { return };
        if was_open {
            group.open = group.open.saturating_sub(1);
            group.changes.add(timeline, f.at, -1);
        }
        group.note(clock, f);
        let Some(ending) = f.ending else { return };
        let place = Cause::ALL.iter().position(|&cause| cause == ending.cause);
        if let Some(endings) = place.and_then(|place| group.endings.get_mut(place)) {
            endings.by = ending.by.filter(|_| endings.count == 0 || endings.by == ending.by);
            endings.count += 1;
        }
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

    /// The culprits as of the end, what hurts most first: those that will exhaust their process,
    /// those with the most open, those that had the most.
    pub(super) fn report(&self, timeline: &Timeline, end: Timestamp) -> Vec<model::Culprit> {
        let exhausts = |group: &Group| {
            let (culprit, _) = group.growth.as_deref()?;
            culprit.reaches_limit_in.filter(|_| culprit.at == end)
        };
        let mut order: Vec<_> = self.groups.iter().filter(|group| !group.is_empty()).collect();
        order.sort_by_key(|group| {
            (
                group.key.is_none(),
                exhausts(group).unwrap_or(Nanos(u64::MAX)),
                Reverse(group.open),
                Reverse(group.opened),
                Reverse(group.longest),
                group.key,
            )
        });
        order.into_iter().map(|group| group.report(timeline, end)).collect()
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

impl Group {
    fn is_empty(&self) -> bool {
        self.opened == 0 && self.open == 0 && self.endings.iter().all(|ending| ending.count == 0)
    }

    /// Notes how long it lingered, and the oldest as an example.
    fn note(&mut self, clock: &ClockMark, f: &Finding) {
        if self.key.is_none() {
            return;
        }
        if f.linger >= self.longest {
            (self.longest, self.at_least) = (f.linger, f.at_least);
        }
        if f.status == Status::Ended {
            return;
        }
        let begin = f.at - f.linger;
        let replaces = self.example.as_ref().is_none_or(|known| {
            known.0.socket.id == f.socket.id || begin < known.0.at - known.0.linger
        });
        if replaces {
            self.example = Some(Box::new((f.clone(), Wall(clock.wall_ns(f.at)))));
        }
    }

    fn report(&self, timeline: &Timeline, end: Timestamp) -> model::Culprit {
        let key = self.key.as_ref();
        let endings = Cause::ALL.iter().zip(self.endings).filter(|(_, ending)| ending.count > 0);
        model::Culprit {
            other: key.is_none(),
            pid: key.and_then(|key| Some(key.owner?.pid)),
            comm: key.and_then(|key| Some(key.owner?.comm.to_string())),
            verdict: key.and_then(|key| key.verdict).map(Verdict::word),
            role: key.and_then(|key| key.client).map(|is| if is { "client" } else { "server" }),
            end: key.map(|key| key.end.to_string()),
            opened: self.opened,
            before: self.before,
            open: self.open,
            endings: endings
                .map(|(cause, ending)| model::Ending {
                    how: cause.word(),
                    count: ending.count,
                    by: ending.by.map(|process| process.to_string()),
                })
                .collect(),
            longest_ns: self.longest.0,
            longest_at_least: self.at_least,
            first: self.first,
            last: self.last,
            open_by_bucket: self.changes.counts(timeline),
            growth: self.growth.as_deref().and_then(|(culprit, wall)| growth(culprit, *wall, end)),
            example: self.example.as_deref().map(|(finding, wall)| example(finding, *wall)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "thousandths of a socket per minute")]
fn growth(culprit: &Culprit, ts: Wall, end: Timestamp) -> Option<model::Growth> {
    let growth = culprit.growth?;
    Some(model::Growth {
        per_minute: growth.milli_per_minute() as f64 / 1000.0,
        over_ns: growth.over.0,
        ts,
        at_end: culprit.at == end,
        reaches_limit_in_ns: culprit.reaches_limit_in.map(|span| span.0),
        fd_limit: culprit.process.as_ref().and_then(|process| process.fd_limit),
    })
}

fn example(finding: &Finding, ts: Wall) -> model::Example {
    model::Example {
        socket: finding.socket.id.map(|id| id.0),
        local: finding.socket.local.to_string(),
        remote: finding.socket.remote.to_string(),
        ts,
        linger_ns: finding.linger.0,
        summary: advice::summary(finding),
        evidence: evidence::line(finding),
    }
}
