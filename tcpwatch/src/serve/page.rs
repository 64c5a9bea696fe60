//! Everything that the agent has to say in numbers, family by family, for whichever format writes it.

use tcpwatch_common::tally::Histogram;

use super::{
    metrics::{self, Family},
    own::Usage,
    snapshot::{OwnerLabels, Snapshot},
};
use crate::{
    core::{state::State, time::Nanos},
    kernel::meters::{Cost, Spread, Tally},
};

/// Everything that is on the page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What the model says.
    pub snapshot: Snapshot,
    /// What the kernel program counted.
    pub tally: Tally,
    /// What it cost, if that is measured.
    pub costs: Vec<Cost>,
    /// What the agent uses, if that can be told.
    pub usage: Option<Usage>,
}

/// The value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Of things.
    Count(u64),
    /// Of a unit.
    Measure(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Number {
    fn from(measure: f64) -> Self {
        Self::Measure(measure)
    }
}

/// Names and values; a name is there once.
pub type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A format. Each family comes once, and not at all if it has nothing to say.
pub trait Writer {
    /// Why it cannot be written.
    type Error;

    /// A family that only has labels.
    fn info(&mut self, family: &Family, labels: Labels<'_>) -> Result<(), Self::Error>;

    /// Series with labels.
    fn series(
        &mut self,
        family: &Family,
        series: Vec<(Labels<'_>, Number)>,
    ) -> Result<(), Self::Error>;

    /// A histogram; there are none with labels.
    fn histogram(&mut self, family: &Family, spread: &Spread) -> Result<(), Self::Error>;
}

impl Page {
    /// All of it, in the order of [`metrics::ALL`].
    pub fn write<W: Writer>(&self, writer: &mut W) -> Result<(), W::Error> {
        let mut out = Out(writer);
        let snapshot = &self.snapshot;
        out.0.info(&metrics::BUILD, vec![("version", env!("CARGO_PKG_VERSION"))])?;
        out.number(&metrics::LINGER_THRESHOLD, seconds(snapshot.linger))?;
        self.sockets(&mut out)?;
        out.0.histogram(&metrics::CLOSE_WAIT, &self.tally.spread(Histogram::CloseWait))?;
        out.0.histogram(&metrics::LIFETIME, &self.tally.spread(Histogram::Lifetime))?;
        for (family, label, counts) in [
            (&metrics::OPEN_FINDINGS, "verdict", &snapshot.open),
            (&metrics::FINDINGS, "verdict", &snapshot.opened),
            (&metrics::FINDINGS_ENDED, "how", &snapshot.ended),
        ] {
            out.family(family, counts.iter().map(|&(word, count)| (vec![(label, word)], count)))?;
        }
        self.lingering(&mut out)?;
        self.run(&mut out)?;
        self.own(&mut out)
    }

    fn sockets<W: Writer>(&self, out: &mut Out<'_, W>) -> Result<(), W::Error> {
        let sockets = self.snapshot.sockets.iter().flat_map(|(netns, states)| {
            State::ALL.into_iter().filter_map(move |state| {
                let count = states[usize::from(state.number())]?;
                Some((vec![("state", state.name()), ("netns", netns.as_str())], count))
            })
        });
        out.family(&metrics::SOCKETS, sockets)?;
        let transitions = self.tally.transitions();
        let transitions = transitions
            .map(|(old, new, count)| (vec![("old", old.name()), ("new", new.name())], count));
        out.family(&metrics::TRANSITIONS, transitions)
    }

    fn lingering<W: Writer>(&self, out: &mut Out<'_, W>) -> Result<(), W::Error> {
        let groups = &self.snapshot.lingering;
        let labels = |at: usize| {
            let labels = &groups[at].labels;
            let mut all = owner(&labels.owner);
            all.extend([("role", labels.role), ("verdict", labels.verdict)]);
            all.push(("service", labels.service.as_str()));
            all
        };
        let all = || groups.iter().enumerate();
        out.family(&metrics::LINGERING, all().map(|(at, group)| (labels(at), group.count)))?;
        let oldest = all().map(|(at, group)| (labels(at), seconds(group.oldest)));
        out.family(&metrics::LINGERING_OLDEST, oldest)?;
        let growth = all().filter_map(|(at, group)| Some((labels(at), group.growth?)));
        out.family(&metrics::LINGERING_GROWTH, growth)?;
        let left = all().filter_map(|(at, group)| Some((labels(at), seconds(group.exhausted_in?))));
        out.family(&metrics::LINGERING_EXHAUSTION, left)?;
        let owners = || self.snapshot.owners.iter();
        out.family(&metrics::OWNER_OPEN_FDS, owners().map(|of| (owner(&of.labels), of.fds)))?;
        out.family(&metrics::OWNER_MAX_FDS, owners().map(|of| (owner(&of.labels), of.limit)))
    }

    /// How the run itself goes.
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn run<W: Writer>(&self, out: &mut Out<'_, W>) -> Result<(), W::Error> {
        let snapshot = &self.snapshot;
        out.number(&metrics::LOST, snapshot.lost)?;
        let passes = Spread {
            buckets: snapshot.passes.clone(),
            sum: snapshot.pass_seconds,
            count: snapshot.passes.iter().map(|&(_, count)| count).sum(),
        };
        out.0.histogram(&metrics::PASS_DURATION, &passes)?;
        out.number(&metrics::PASS_FAILURES, snapshot.pass_failures)?;
        if let Some(at) = snapshot.last_pass {
            out.number(&metrics::LAST_PASS, at)?;
        }
        let costs = || self.costs.iter().map(|cost| (vec![("program", cost.program)], cost));
        let time = costs().map(|(labels, cost)| (labels, cost.ns as f64 / 1e9));
        out.family(&metrics::KERNEL_TIME, time)?;
        out.family(&metrics::KERNEL_RUNS, costs().map(|(labels, cost)| (labels, cost.runs)))?;
        let Some(recording) = snapshot.recording else { return Ok(()) };
        out.number(&metrics::RECORDING_SIZE, recording.bytes)?;
        out.number(&metrics::RECORDING_MISSING, recording.missing)?;
        out.number(&metrics::RECORDING_FAILING, u64::from(recording.failing))
    }

    fn own<W: Writer>(&self, out: &mut Out<'_, W>) -> Result<(), W::Error> {
        let Some(usage) = self.usage else { return Ok(()) };
        out.number(&metrics::CPU, usage.cpu_seconds)?;
        out.number(&metrics::RESIDENT, usage.resident_bytes)?;
        out.number(&metrics::VIRTUAL, usage.virtual_bytes)?;
        out.number(&metrics::STARTED, usage.started)?;
        out.number(&metrics::OPEN_FDS, usage.open_fds)?;
        if let Some(limit) = usage.max_fds {
            out.number(&metrics::MAX_FDS, limit)?;
        }
        out.number(&metrics::THREADS, usage.threads)
    }
}

/// What Kubernetes calls it is there only where that is known: to Prometheus no label and an empty one
/// are the same.
fn owner(labels: &OwnerLabels) -> Vec<(&'static str, &str)> {
    let mut all: Vec<(_, &str)> =
        vec![("process", &labels.process), ("container", &labels.container), ("pod", &labels.pod)];
    let names = [
        ("container_name", &labels.container_name),
        ("pod_namespace", &labels.pod_namespace),
        ("pod_name", &labels.pod_name),
    ];
    let known = names.into_iter().filter(|(_, name)| !name.is_empty());
    all.extend(known.map(|(label, name)| (label, name.as_str())));
    all
}

#[expect(clippy::cast_precision_loss, reason = "seconds")]
fn seconds(span: Nanos) -> f64 {
    span.0 as f64 / 1e9
}

/// Leaves out what has nothing to say.
struct Out<'a, W>(&'a mut W);

impl<W: Writer> Out<'_, W> {
    fn family<'s, V: Into<Number>>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = (Labels<'s>, V)>,
    ) -> Result<(), W::Error> {
        let series: Vec<_> = series.map(|(labels, value)| (labels, value.into())).collect();
        if series.is_empty() { Ok(()) } else { self.0.series(family, series) }
    }

    fn number(&mut self, family: &Family, value: impl Into<Number>) -> Result<(), W::Error> {
        self.0.series(family, vec![(Vec::new(), value.into())])
    }
}
