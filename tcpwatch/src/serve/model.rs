//! What is served, kept up to date by the run. The run tells it of findings, never of transitions, so
//! telling costs next to nothing; what takes time is done when somebody asks.

mod feed;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustc_hash::FxHashMap;

pub use self::feed::{Feed, Gauge};
use super::{
    lingering, own,
    page::Page,
    snapshot::{OTHER, Recording, Snapshot, UNCONFIRMED, verdict_word},
};
use crate::{
    core::{
        culprits::Culprits,
        finding::{Cause, Finding, Status, Verdict},
        socket::SocketId,
        time::{ClockMark, Nanos, Timestamp},
    },
    kernel::meters::Meters,
    source::monitor::Counts,
    trace::recorder::Standing,
};

/// Findings kept to be shown, the first ones; all are counted.
const MOST_FINDINGS: usize = 10_000;
/// Network namespaces that are told apart, those with most sockets.
const MOST_NAMESPACES: usize = 16;
/// Upper ends of the buckets for looks.
const PASS_ENDS: [f64; 6] = [0.001, 0.01, 0.1, 1.0, 10.0, f64::INFINITY];
/// A run that has said nothing for this long is stuck, or in a look that takes too long.
const SILENCE: Nanos = Nanos(10_000_000_000);
/// After a count that took this thread t of CPU time, none is made for this many t.
const REST_AFTER_COUNT: u64 = 200;

/// What to keep.
#[derive(Clone, Debug)]
pub struct Options {
    /// A connection that stays in `CLOSE_WAIT` this long is a finding.
    pub linger: Nanos,
    /// Culprits told apart.
    pub top: usize,
    /// How often sockets are counted.
    pub count_every: Nanos,
}

/// The model, for all threads.
pub struct Model {
    options: Options,
    now: Mutex<Now>,
    meters: OnceLock<Meters>,
    recording: Option<Standing>,
}

/// Findings that were open at a moment, the oldest first. They are shared with the model and with what
/// was open at other moments: only what has changed is there more than once.
#[derive(Clone, Debug)]
pub struct OpenFindings {
    /// What places them in wall time.
    pub clock: ClockMark,
    /// The moment.
    pub at: Timestamp,
    /// Each as it was last reported.
    pub findings: Vec<Arc<Finding>>,
    /// How many more there are.
    pub more: usize,
}

/// As it stands.
#[derive(Debug, Default)]
struct Now {
    clock: ClockMark,
    /// When the run has last said something.
    heard: Timestamp,
    /// Everything is attached, and every open socket was seen.
    ready: bool,
    culprits: Culprits,
    findings: FxHashMap<SocketId, Arc<Finding>>,
    opened: BTreeMap<Option<Verdict>, u64>,
    ended: [u64; Cause::ALL.len()],
    lost: u64,
    passes: [u64; PASS_ENDS.len()],
    pass_time: Nanos,
    pass_failures: u64,
    /// When a look has last succeeded, and when one has failed since.
    last_pass: Option<Timestamp>,
    failed_pass: Option<Timestamp>,
    counts: Option<Counts>,
    /// What network namespaces are called.
    names: BTreeMap<u32, String>,
    next_count: Timestamp,
}

impl Model {
    /// Nothing has happened yet.
    pub fn new(options: Options, recording: Option<Standing>) -> Self {
        Self { options, now: Mutex::default(), meters: OnceLock::new(), recording }
    }

    /// A panic elsewhere leaves it as it was.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything is attached, and every open socket was seen.
    pub fn is_ready(&self) {
        self.now().ready = true;
    }

    /// Why the run is not in order at this moment; `None` if it is.
    pub fn trouble(&self, at: Timestamp) -> Option<&'static str> {
        let now = self.now();
        let patience =
            Nanos(self.options.count_every.0.saturating_mul(4)).max(Nanos(SILENCE.0 * 6));
        if !now.ready {
            Some("starting: not every open socket was seen yet")
        } else if at.since(now.heard) > SILENCE {
            Some("the run has not moved for 10 s")
        } else if now.failed_pass.is_some() {
            Some("the last look at open sockets failed")
        } else if now.last_pass.is_none_or(|last| at.since(last) > patience) {
            Some("the last look at open sockets is too long ago")
        } else {
            None
        }
    }

    /// Whether it has anything to show.
    pub fn has_begun(&self) -> bool {
        self.now().ready
    }

    /// Everything for the metrics page.
    pub fn page(&self, at: Timestamp) -> Page {
        let meters = self.meters.get();
        let tally = meters
            .and_then(|meters| meters.tally().inspect_err(|error| log::warn!("{error:#}")).ok());
        Page {
            snapshot: self.snapshot(at),
            tally: tally.unwrap_or_default(),
            costs: meters.map(Meters::costs).unwrap_or_default(),
            usage: own::usage(),
        }
    }

    /// Open findings at this moment.
    pub fn findings(&self, at: Timestamp) -> OpenFindings {
        let now = self.now();
        let mut findings: Vec<_> = now.findings.values().map(Arc::clone).collect();
        let more = now.culprits.members().saturating_sub(findings.len());
        let clock = now.clock;
        drop(now);
        findings.sort_unstable_by_key(|finding| (finding.at - finding.linger, finding.socket.id));
        OpenFindings { clock, at, findings, more }
    }

    /// What it says at this moment.
    pub fn snapshot(&self, at: Timestamp) -> Snapshot {
        let now = self.now();
        let culprits = now.culprits.all(at);
        let (lingering, owners) = lingering::top(&culprits, self.options.top);
        let mut open: BTreeMap<&'static str, u64> =
            verdicts(&BTreeMap::new()).into_iter().collect();
        for culprit in &culprits {
            *open.entry(verdict_word(culprit.key.verdict)).or_default() += culprit.count as u64;
        }
        Snapshot {
            linger: self.options.linger,
            sockets: now.sockets(),
            open: open.into_iter().collect(),
            opened: verdicts(&now.opened),
            ended: Cause::ALL
                .iter()
                .zip(now.ended)
                .map(|(how, count)| (how.word(), count))
                .collect(),
            lingering,
            owners,
            lost: now.lost,
            passes: PASS_ENDS.into_iter().zip(now.passes).collect(),
            pass_seconds: seconds(now.pass_time.0),
            pass_failures: now.pass_failures,
            last_pass: now.last_pass.map(|at| seconds(now.clock.wall_ns(at))),
            recording: self.recording.as_ref().map(|standing| {
                let progress = standing.progress();
                Recording {
                    bytes: progress.bytes,
                    missing: progress.missing,
                    failing: progress.failing,
                }
            }),
        }
    }
}

impl Now {
    /// Takes in a finding: opened, changed, or ended.
    fn take(&mut self, finding: Finding) {
        match finding.status {
            Status::Open => *self.opened.entry(finding.verdict).or_default() += 1,
            Status::Still => {}
            Status::Ended => {
                let how = finding.ending.map(|ending| ending.cause);
                if let Some(at) = Cause::ALL.iter().position(|&cause| Some(cause) == how) {
                    self.ended[at] += 1;
                }
            }
        }
        self.culprits.apply(&finding, finding.at);
        let Some(id) = finding.socket.id else { return };
        if finding.status == Status::Ended {
            self.findings.remove(&id);
        } else if self.findings.len() < MOST_FINDINGS || self.findings.contains_key(&id) {
            self.findings.insert(id, Arc::new(finding));
        }
    }

    fn looked(&mut self, at: Timestamp, took: Nanos, succeeded: bool) {
        if !succeeded {
            self.pass_failures += 1;
            self.failed_pass = Some(at);
            return;
        }
        (self.last_pass, self.failed_pass) = (Some(at), None);
        self.pass_time = Nanos(self.pass_time.0.saturating_add(took.0));
        let took = seconds(took.0);
        if let Some(bucket) = PASS_ENDS.iter().position(|&end| took <= end) {
            self.passes[bucket] += 1;
        }
    }

    /// The largest namespaces, and the rest together.
    fn sockets(&self) -> Vec<(String, [Option<u64>; 12])> {
        let Some(counts) = &self.counts else { return Vec::new() };
        let mut namespaces: Vec<_> = counts.namespaces.iter().collect();
        let sockets = |states: &[Option<u64>; 12]| states.iter().flatten().sum::<u64>();
        namespaces.sort_by_key(|&(&netns, states)| (std::cmp::Reverse(sockets(states)), netns));
        let rest = namespaces.split_off(namespaces.len().min(MOST_NAMESPACES));
        let mut shown: Vec<_> = namespaces
            .into_iter()
            .map(|(netns, states)| {
                (self.names.get(netns).cloned().unwrap_or_else(|| netns.to_string()), *states)
            })
            .collect();
        if !rest.is_empty() {
            let mut all = [None; 12];
            for (_, states) in rest {
                for (all, state) in all.iter_mut().zip(states) {
                    *all = state.map_or(*all, |state| Some(all.unwrap_or(0) + state));
                }
            }
            shown.push((OTHER.to_owned(), all));
        }
        shown
    }
}

/// Counts of all verdicts, 0 included: a series that is always there.
fn verdicts(counts: &BTreeMap<Option<Verdict>, u64>) -> Vec<(&'static str, u64)> {
    let of = |verdict: Option<Verdict>| counts.get(&verdict).copied().unwrap_or(0);
    let known = Verdict::ALL.map(|verdict| (verdict.word(), of(Some(verdict))));
    known.into_iter().chain([(UNCONFIRMED, of(None))]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "seconds")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
