//! The time line: equal buckets that become twice as wide when they are too many.
//!
//! A bucket holds changes, not counts: how many sockets entered each state less how many left it.
//! Counts are made at the end, back from what the pipeline says is there then. So a socket that
//! was in `ESTABLISHED` long before its first transition is counted there all the time, without
//! anything being kept of it.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    core::{
        input::Transition,
        state::State,
        time::{ClockMark, Timestamp},
    },
    report::model::{self, CountsByWord, Wall},
};

/// Buckets at most, unless somebody wants to look closer.
pub(super) const MOST_BUCKETS: u64 = 240;
/// The first width: a sixty-fourth of a second, so that doubling leads to whole seconds.
const NARROWEST: u64 = 15_625_000;
/// States whose greatest number is kept, not only that at the end of a bucket.
const FOLLOWED: [State; 2] = [State::Established, State::CloseWait];

/// What happened in a bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    transitions: u64,
    opened: u64,
    closed: u64,
    /// Transitions lost,
    lost: u64,
    /// and how often.
    gaps: u64,
    /// Findings opened,
    pub(super) findings: u64,
    /// and by how many more are open.
    pub(super) open: i64,
    /// By how many more sockets are in each state, by its number.
    states: [i64; 12],
    /// The most in each of [`FOLLOWED`], against the beginning of the recording; `None` if that did
    /// not change here.
    most: [Option<i64>; FOLLOWED.len()],
    /// The clocks when it was first used.
    clock: Option<ClockMark>,
}

impl Slot {
    /// Counts a gap.
    pub(super) fn lost(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        self.gaps += 1;
    }

    fn absorb(&mut self, next: &Self) {
        self.transitions += next.transitions;
        self.opened += next.opened;
        self.closed += next.closed;
        self.lost = self.lost.saturating_add(next.lost);
        self.gaps += next.gaps;
        self.findings += next.findings;
        self.open += next.open;
        for (sum, change) in self.states.iter_mut().zip(next.states) {
            *sum += change;
        }
        for (most, next) in self.most.iter_mut().zip(next.most) {
            *most = (*most).max(next);
        }
        self.clock = self.clock.or(next.clock);
    }
}

/// The buckets. Those of any width begin at multiples of it, so two become one without a rest.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Buckets at most.
    most: u64,
    /// Width of a bucket, ns.
    pub(super) width: u64,
    /// The number of the first bucket: its beginning, in widths.
    pub(super) first: u64,
    slots: VecDeque<Slot>,
    /// The bucket in use, and when it begins.
    here: (usize, u64),
    /// Sockets in each of [`FOLLOWED`] now, against the beginning.
    followed: [i64; FOLLOWED.len()],
    /// For buckets in which nothing happened.
    clock: ClockMark,
}

impl Timeline {
    /// Of so many buckets at most.
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            width: NARROWEST,
            first: 0,
            slots: VecDeque::new(),
            here: (0, 0),
            followed: [0; FOLLOWED.len()],
            clock: ClockMark::default(),
        }
    }

    /// Counts a transition.
    pub(super) fn transition(
        &mut self,
        clock: &ClockMark,
        transition: &Transition,
        opened: bool,
        closed: bool,
    ) {
        let (old, new) = (transition.old, transition.new);
        let known = transition.socket.id.is_some();
        if known {
            for (count, state) in self.followed.iter_mut().zip(FOLLOWED) {
                *count += i64::from(new == state) - i64::from(old == state);
            }
        }
        let followed = self.followed;
        let slot = self.slot(clock, transition.at);
        slot.transitions += 1;
        slot.opened += u64::from(opened);
        slot.closed += u64::from(closed);
        if known {
            // A connection that came in was never its listener.
            if old != State::Listen || new == State::Close {
                slot.states[usize::from(old.number())] -= 1;
            }
            slot.states[usize::from(new.number())] += 1;
            for ((most, state), count) in slot.most.iter_mut().zip(FOLLOWED).zip(followed) {
                if new == state || old == state {
                    *most = (*most).max(Some(count + i64::from(old == state)));
                }
            }
        }
    }

    /// The bucket of a moment.
    pub(super) fn slot(&mut self, clock: &ClockMark, at: Timestamp) -> &mut Slot {
        let (index, begins) = self.here;
        if at.0.wrapping_sub(begins) >= self.width || index >= self.slots.len() {
            self.reach(at);
            let number = at.0 / self.width;
            let index = usize::try_from(number - self.first).unwrap_or(0);
            self.here = (index, number * self.width);
            self.slots[index].clock.get_or_insert(*clock);
        }
        &mut self.slots[self.here.0]
    }

    /// Makes the time line so long that it has this moment.
    fn reach(&mut self, at: Timestamp) {
        loop {
            let number = at.0 / self.width;
            if self.slots.is_empty() {
                self.first = number;
            }
            let end = self.first + self.slots.len() as u64;
            let (from, to) = (self.first.min(number), end.max(number + 1));
            if to - from <= self.most {
                for _ in from..self.first {
                    self.slots.push_front(Slot::default());
                }
                self.first = from;
                for _ in end..to {
                    self.slots.push_back(Slot::default());
                }
                return;
            }
            self.double();
        }
    }

    fn double(&mut self) {
        let mut wider = VecDeque::with_capacity(self.slots.len() / 2 + 1);
        for (number, slot) in (self.first..).zip(self.slots.drain(..)) {
            match wider.back_mut() {
                Some((last, before)) if *last == number / 2 => Slot::absorb(before, &slot),
                _ => wider.push_back((number / 2, slot)),
            }
        }
        self.slots = wider.into_iter().map(|(_, slot)| slot).collect();
        self.first /= 2;
        self.width *= 2;
        // The bucket in use is another now.
        self.here = (usize::MAX, 0);
    }

    /// The same from the beginning of the recording to its end.
    pub(super) fn between(&self, from: Timestamp, to: Timestamp, clock: ClockMark) -> Self {
        let mut whole = self.clone();
        whole.reach(from);
        whole.reach(to);
        whole.clock = clock;
        whole
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What it shows, if at the end there are `now` sockets in each state. `certain` if no
    /// transition was lost.
    pub(super) fn report(
        &self,
        now: Option<&BTreeMap<State, u64>>,
        certain: bool,
    ) -> model::Timeline {
        let mut counts = [0i64; 12];
        for slot in &self.slots {
            for (sum, change) in counts.iter_mut().zip(slot.states) {
                *sum += change;
            }
        }
        // What was there before anything changed.
        for state in State::ALL {
            let number = usize::from(state.number());
            let at_end = now.and_then(|now| now.get(&state)).copied().unwrap_or(0);
            counts[number] = i64::try_from(at_end).unwrap_or(i64::MAX) - counts[number];
        }
        let at_first = counts;
        let (mut open, mut clock) = (0i64, self.slots.iter().find_map(|slot| slot.clock));
        let mut plausible = true;
        let buckets = (self.first..)
            .zip(&self.slots)
            .map(|(number, slot)| {
                let before = counts;
                for (count, change) in counts.iter_mut().zip(slot.states) {
                    *count += change;
                }
                plausible &= real(&counts).all(|(_, count)| count >= 0);
                open += slot.open;
                clock = slot.clock.or(clock);
                let begins = Timestamp(number.saturating_mul(self.width));
                let [established_max, close_wait_max] = [0, 1].map(|which| {
                    let state = usize::from(FOLLOWED[which].number());
                    let changed = slot.most[which].map(|most| most + at_first[state]);
                    natural(changed.unwrap_or(before[state]).max(before[state]))
                });
                model::Bucket {
                    ts: Wall(clock.unwrap_or(self.clock).wall_ns(begins)),
                    mono_ns: begins.0,
                    transitions: slot.transitions,
                    opened: slot.opened,
                    closed: slot.closed,
                    lost: slot.lost,
                    gaps: slot.gaps,
                    findings: slot.findings,
                    open: natural(open),
                    established_max,
                    close_wait_max,
                    states: by_word(&counts),
                }
            })
            .collect();
        let states_uncertain = !certain || !plausible;
        model::Timeline { width_ns: self.width, states_uncertain, buckets }
    }
}

/// Counts of the states in which a socket is something.
fn real(counts: &[i64; 12]) -> impl Iterator<Item = (State, i64)> {
    State::ALL
        .into_iter()
        .filter(|&state| state != State::Close)
        .map(|state| (state, counts[usize::from(state.number())]))
}

fn by_word(counts: &[i64; 12]) -> CountsByWord {
    real(counts)
        .filter(|&(_, count)| count > 0)
        .map(|(state, count)| (state.name(), natural(count)))
        .collect()
}

fn natural(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Changes of one count over the same buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Width of the buckets when something last changed.
    width: u64,
    /// Bucket and change, in order.
    list: Vec<(u64, i64)>,
}

impl Changes {
    /// Notes a change at a moment, on a time line that has reached it.
    pub(super) fn add(&mut self, timeline: &Timeline, at: Timestamp, change: i64) {
        self.widen(timeline.width);
        let number = at.0 / self.width;
        let index = self.list.partition_point(|&(bucket, _)| bucket < number);
        match self.list.get_mut(index) {
            Some((bucket, sum)) if *bucket == number => *sum += change,
            _ => self.list.insert(index, (number, change)),
        }
    }

    fn widen(&mut self, width: u64) {
        if self.list.is_empty() {
            self.width = width;
        }
        while self.width < width {
            self.width *= 2;
            let mut wider: Vec<(u64, i64)> = Vec::with_capacity(self.list.len());
            for &(bucket, change) in &self.list {
                match wider.last_mut() {
                    Some((last, sum)) if *last == bucket / 2 => *sum += change,
                    _ => wider.push((bucket / 2, change)),
                }
            }
            self.list = wider;
        }
    }

    /// The count at the end of each bucket.
    pub(super) fn counts(&self, timeline: &Timeline) -> Vec<u64> {
        let mut changes = self.clone();
        changes.widen(timeline.width);
        let mut list = changes.list.into_iter().peekable();
        let mut count = 0;
        (timeline.first..)
            .take(timeline.len())
            .map(|number| {
                while let Some((_, change)) = list.next_if(|&(bucket, _)| bucket <= number) {
                    count += change;
                }
                natural(count)
            })
            .collect()
    }
}
