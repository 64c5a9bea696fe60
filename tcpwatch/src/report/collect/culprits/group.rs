//! One culprit over the whole recording.

use crate::{
    core::{
        advice,
        culprits::{Culprit, Key},
        evidence,
        finding::{Cause, Ending, Finding, Status, Verdict},
        socket::Process,
        time::{ClockMark, Nanos, Timestamp},
    },
    report::{
        collect::timeline::{Changes, Timeline},
        model::{self, Wall},
    },
};

/// What is kept of it.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// `None` for all that are not kept apart.
    pub(super) key: Option<Key>,
    pub(super) opened: u64,
    pub(super) before: u64,
    pub(super) open: u64,
    pub(super) endings: [Endings; Cause::ALL.len()],
    pub(super) longest: Nanos,
    pub(super) at_least: bool,
    pub(super) first: Option<Wall>,
    pub(super) last: Option<Wall>,
    /// How many are open,
    pub(super) changes: Changes,
    /// and how many linger, from when they began to, though they were found later.
    pub(super) lingering: Changes,
    pub(super) growth: Option<Box<(Culprit, Wall)>>,
    pub(super) example: Option<Box<(Finding, Wall)>>,
}

/// Those that ended in one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Endings {
    pub(super) count: u64,
    /// Who made them; `None` if nobody knows, or if it was not always the same.
    pub(super) by: Option<Process>,
}

impl Group {
    /// Nothing of it is left: all its findings turned out to be another's.
    pub(super) fn is_empty(&self) -> bool {
        self.opened == 0 && self.open == 0 && self.endings.iter().all(|ending| ending.count == 0)
    }

    /// Notes how long it lingered, and the oldest as an example.
    pub(super) fn note(&mut self, clock: &ClockMark, f: &Finding) {
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

    /// Counts an end.
    pub(super) fn count_end(&mut self, ending: Ending) {
        let place = Cause::ALL.iter().position(|&cause| cause == ending.cause);
        if let Some(endings) = place.and_then(|place| self.endings.get_mut(place)) {
            endings.by = ending.by.filter(|_| endings.count == 0 || endings.by == ending.by);
            endings.count += 1;
        }
    }

    /// As of the end.
    pub(super) fn report(&self, timeline: &Timeline, end: Timestamp) -> model::Culprit {
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
            lingering_by_bucket: self.lingering.counts(timeline),
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
