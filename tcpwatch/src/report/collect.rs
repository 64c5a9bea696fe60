//! The sink that makes a report.
//!
//! Nothing is kept of a transition but counts, and nothing is formatted or, as a rule, allocated
//! for one. What is kept is bounded, however long the recording is and however many peers it has:
//!
//! | what | at most | beyond it |
//! |---|---|---|
//! | time line | 240 buckets | they become twice as wide |
//! | groups | 8,192 | the smaller half is added to `other` of the same process and role |
//! | such `other` groups | 256 | one for all |
//! | durations of a group | 64 values, then a histogram of at most 17 KB | |
//! | sockets in `CLOSE_WAIT` | 1,048,576 | counted in `not_followed` |
//! | culprits | 1,024, each with one example | counted in one `other` |
//! | open findings | 1,048,576 | their ends count for the culprit they would open now |
//! | gaps listed | 100 | counted |
//! | notes on what is missing | 100 | counted |
//!
//! A collector for a page also keeps some findings one by one, and a finer time line:
//!
//! | what | at most | beyond it |
//! |---|---|---|
//! | time line | 960 buckets | they become twice as wide |
//! | findings | 2,000 | those that lingered least go, of the culprit with the most |

mod culprits;
mod durations;
mod groups;
mod listing;
mod spread;
mod timeline;

use std::io;

use self::{culprits::Culprits, groups::Groups, listing::Listing, timeline::Timeline};
use super::model::{CountsByWord, Gap, Gaps, Incomplete, Listed, Rates, Report, Totals, Wall};
use crate::{
    core::{
        finding::Verdict,
        input::Transition,
        record::{Lost, Record, Summary},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
    },
    sink::Sink,
};

const MOST_GAPS: usize = 100;
/// For a page,
const PAGE_BUCKETS: u64 = 960;
/// which lists so many findings.
const PAGE_FINDINGS: usize = 2000;

/// Collects what a report says. It is a sink of its own, or one beside others.
#[derive(Debug)]
pub struct Collector {
    linger: Nanos,
    /// When what is reported begins, if that was told.
    begin: Option<Timestamp>,
    /// The clocks when the first record came, and when the last did.
    clocks: Option<(ClockMark, ClockMark)>,
    /// The times of the first and of the last record.
    seen: Option<(Timestamp, Timestamp)>,
    transitions: u64,
    opened: u64,
    closed: u64,
    failed: u64,
    busiest: Busiest,
    gaps: Gaps,
    timeline: Timeline,
    groups: Groups,
    culprits: Culprits,
    listing: Option<Listing>,
    summary: Option<Summary>,
    incomplete: Incomplete,
}

impl Collector {
    /// Of a pipeline for which what lingers for `linger` is a finding.
    pub fn new(linger: Nanos) -> Self {
        Self {
            linger,
            begin: None,
            clocks: None,
            seen: None,
            transitions: 0,
            opened: 0,
            closed: 0,
            failed: 0,
            busiest: Busiest::default(),
            gaps: Gaps::default(),
            timeline: Timeline::new(timeline::MOST_BUCKETS),
            groups: Groups::default(),
            culprits: Culprits::default(),
            listing: None,
            summary: None,
            incomplete: Incomplete::default(),
        }
    }

    /// The same, with what a page shows beyond the report.
    pub fn for_page(linger: Nanos) -> Self {
        Self {
            timeline: Timeline::new(PAGE_BUCKETS),
            listing: Some(Listing::new(PAGE_FINDINGS)),
            ..Self::new(linger)
        }
    }

    /// What is reported begins here: what lingered earlier is from before. Without it that is the
    /// first record, and a finding that comes first looks older than the recording.
    pub fn begin(&mut self, at: Timestamp) {
        self.begin = Some(at);
    }

    /// Something of the recording is missing, as a sentence says.
    pub fn note(&mut self, missing: &str) {
        self.incomplete.note(missing);
    }

    /// The report. Before the summary has come in, what only the pipeline knows is missing.
    pub fn report(&self) -> Report {
        let (first_clock, last_clock) = self.clocks.unwrap_or_default();
        let (from, to) = self.range();
        let timeline = self.timeline.between(from, to, last_clock);
        let states = self.summary.as_ref().filter(|summary| !summary.findings_only);
        let whole = self.gaps.count == 0 && self.incomplete.is_empty();
        let certain = whole && states.is_some_and(|summary| summary.evicted == 0);
        Report {
            r#type: "report",
            linger_ns: self.linger.0,
            from: Wall(first_clock.wall_ns(from)),
            to: Wall(last_clock.wall_ns(to)),
            from_mono_ns: from.0,
            duration_ns: to.since(from).0,
            totals: self.totals(),
            rates: self.rates(to.since(from)),
            gaps: self.gaps.clone(),
            unseen: self.summary.iter().flat_map(|summary| &summary.unseen).copied().collect(),
            incomplete: self.incomplete.clone(),
            culprits: self.culprits.report(&timeline, to),
            spreads: (!self.findings_only()).then(|| self.groups.spreads(to)),
            groups: if self.findings_only() { Vec::new() } else { self.groups.report(to) },
            timeline: timeline.report(states.map(|summary| &summary.now), certain),
        }
    }

    /// Findings one by one, those of the first culprit first and the longest of each first: as many
    /// as a page takes, none for a report that is no page.
    pub fn listed(&self) -> Vec<Listed> {
        let (_, end) = self.range();
        let numbers = self.culprits.numbers(end);
        self.listing.as_ref().map_or_else(Vec::new, |listing| listing.report(numbers, end))
    }

    /// From where to where the recording goes.
    fn range(&self) -> (Timestamp, Timestamp) {
        let (first, last) = self.seen.unwrap_or_default();
        let (first, last) = match &self.summary {
            Some(summary) => (summary.at - summary.duration, summary.at),
            None => (first, last),
        };
        let from = self.begin.unwrap_or(first);
        (from, last.max(from))
    }

    fn findings_only(&self) -> bool {
        self.summary.as_ref().is_some_and(|summary| summary.findings_only)
    }

    fn rates(&self, duration: Nanos) -> Rates {
        Rates {
            transitions_mean: per_second(self.transitions, duration),
            transitions_peak: self.busiest.transitions,
            opened_mean: per_second(self.opened, duration),
            opened_peak: self.busiest.opened,
        }
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            transitions: self.transitions,
            opened: self.opened,
            closed: self.closed,
            failed: self.failed,
            not_followed: self.groups.not_followed,
            before: self.culprits.before(),
            ..Totals::default()
        };
        let Some(summary) = &self.summary else {
            self.culprits.count(&mut totals);
            return totals;
        };
        let words = |counts: &std::collections::BTreeMap<State, u64>| -> CountsByWord {
            counts.iter().map(|(state, &count)| (state.name(), count)).collect()
        };
        let mut verdicts: CountsByWord =
            summary.verdicts.iter().map(|(verdict, &count)| (verdict.word(), count)).collect();
        if summary.unconfirmed > 0 {
            verdicts.insert("unconfirmed", summary.unconfirmed);
        }
        totals.findings_only = summary.findings_only;
        totals.sockets = (!summary.findings_only).then_some(summary.sockets);
        totals.entered = words(&summary.entered);
        totals.now = words(&summary.now);
        totals.findings = summary.findings();
        for (&verdict, &count) in self.culprits.carried() {
            totals.findings += count;
            *verdicts.entry(verdict).or_default() += count;
        }
        totals.verdicts = verdicts;
        totals.ended = summary.ended;
        totals.retracted = summary.retracted;
        totals.undecided = summary.undecided;
        totals.uncertain = summary.uncertain;
        totals.evicted = summary.evicted;
        totals.unclaimed = summary.unclaimed;
        totals
    }

    fn transition(&mut self, clock: &ClockMark, transition: &Transition) {
        let (old, new) = (transition.old, transition.new);
        let opened = new == State::SynSent || new == State::SynRecv && old != State::SynSent;
        let closed = new == State::Close && old != State::Listen;
        let failed = closed && matches!(old, State::SynSent | State::SynRecv);
        self.transitions += 1;
        self.opened += u64::from(opened);
        self.closed += u64::from(closed);
        self.failed += u64::from(failed);
        self.busiest.count(transition.at, opened);
        self.timeline.transition(clock, transition, opened, closed);
        if opened || closed || old == State::CloseWait || new == State::CloseWait {
            self.groups.apply(transition, opened, closed, failed);
        }
    }

    fn lost(&mut self, clock: &ClockMark, lost: Lost) {
        self.gaps.lost = self.gaps.lost.saturating_add(lost.count);
        self.gaps.count += 1;
        self.gaps.unknown += u64::from(lost.count == 0);
        self.timeline.slot(clock, lost.at).lost(lost.count);
        if self.gaps.first.len() < MOST_GAPS {
            let (ts, mono_ns) = (Wall(clock.wall_ns(lost.at)), lost.at.0);
            let lost = (lost.count > 0).then_some(lost.count);
            self.gaps.first.push(Gap { ts, mono_ns, lost });
        }
    }

    fn note_time(&mut self, clock: &ClockMark, at: Timestamp) {
        let clocks = self.clocks.get_or_insert((*clock, *clock));
        clocks.1 = *clock;
        let (first, last) = self.seen.get_or_insert((at, at));
        *first = at.min(*first);
        *last = at.max(*last);
    }
}

impl Sink for Collector {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(transition) => {
                self.note_time(clock, transition.at);
                self.transition(clock, transition);
            }
            Record::Finding(finding) => {
                self.note_time(clock, finding.at);
                let start = self.begin.or(self.seen.map(|seen| seen.0)).unwrap_or(finding.at);
                let told = self.culprits.apply(clock, &mut self.timeline, start, finding);
                if let Some(listing) = &mut self.listing {
                    listing.note(told, finding);
                }
                self.groups.finding(finding);
            }
            Record::Culprit(culprit) => self.culprits.grew(clock, culprit),
            Record::Lost(lost) => {
                self.note_time(clock, lost.at);
                self.lost(clock, *lost);
            }
            Record::Summary(summary) => {
                self.note_time(clock, summary.at);
                self.summary = Some((*summary).clone());
            }
        }
        Ok(())
    }
}

/// The second in which most happened. What comes in late, because nobody knew whose it was, does
/// not count.
#[derive(Debug, Default)]
struct Busiest {
    /// The present second.
    begins: u64,
    now: (u64, u64),
    transitions: u64,
    opened: u64,
}

impl Busiest {
    fn count(&mut self, at: Timestamp, opened: bool) {
        let into = at.0.wrapping_sub(self.begins);
        if into >= Nanos::SECOND.0 {
            if at.0 < self.begins {
                return;
            }
            self.begins = at.0 / Nanos::SECOND.0 * Nanos::SECOND.0;
            self.now = (0, 0);
        }
        self.now.0 += 1;
        self.now.1 += u64::from(opened);
        self.transitions = self.transitions.max(self.now.0);
        self.opened = self.opened.max(self.now.1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, duration: Nanos) -> f64 {
    if duration.0 == 0 { 0.0 } else { count as f64 * 1e9 / duration.0 as f64 }
}

/// The words of verdicts when no summary tells them.
fn verdict_word(verdict: Option<Verdict>) -> &'static str {
    verdict.map_or("unconfirmed", Verdict::word)
}
