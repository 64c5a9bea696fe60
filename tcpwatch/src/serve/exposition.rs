//! The metrics page: `OpenMetrics` 1.0, and the older text format that is made of it.

use std::fmt::{self, Write as _};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, text},
    registry::Registry,
};
use tcpwatch_common::tally::Histogram;

use super::{
    metrics::{self, Family, Kind},
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

/// As `OpenMetrics` 1.0.
pub fn open_metrics(page: Page) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The same as the text format 0.0.4: there a counter's name has its `_total` everywhere, and there are
/// neither units, nor information, nor an end.
pub fn classic(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help: Option<&str> = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = line.strip_prefix("# HELP ");
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let words = help.take().and_then(|help| help.strip_prefix(name)).unwrap_or_default();
            writeln!(text, "# HELP {name}{suffix}{words}\n# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with('#') {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let snapshot = &self.snapshot;
        out.info(&metrics::BUILD, &[("version", env!("CARGO_PKG_VERSION"))])?;
        out.number(&metrics::LINGER_THRESHOLD, seconds(snapshot.linger))?;
        self.sockets(&mut out)?;
        out.histogram(&metrics::CLOSE_WAIT, &self.tally.spread(Histogram::CloseWait))?;
        out.histogram(&metrics::LIFETIME, &self.tally.spread(Histogram::Lifetime))?;
        for (family, label, counts) in [
            (&metrics::OPEN_FINDINGS, "verdict", &snapshot.open),
            (&metrics::FINDINGS, "verdict", &snapshot.opened),
            (&metrics::FINDINGS_ENDED, "how", &snapshot.ended),
        ] {
            out.family(family, counts.iter().map(|&(word, count)| ([(label, word)], count)))?;
        }
        self.lingering(&mut out)?;
        self.run(&mut out)?;
        self.own(&mut out)
    }
}

impl Page {
    fn sockets(&self, out: &mut Out<'_>) -> fmt::Result {
        let sockets = self.snapshot.sockets.iter().flat_map(|(netns, states)| {
            State::ALL.into_iter().filter_map(move |state| {
                let count = states[usize::from(state.number())]?;
                Some(([("state", state.name()), ("netns", netns.as_str())], count))
            })
        });
        out.family(&metrics::SOCKETS, sockets)?;
        let transitions = self.tally.transitions();
        let transitions = transitions
            .map(|(old, new, count)| ([("old", old.name()), ("new", new.name())], count));
        out.family(&metrics::TRANSITIONS, transitions)
    }

    fn lingering(&self, out: &mut Out<'_>) -> fmt::Result {
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
    fn run(&self, out: &mut Out<'_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        out.number(&metrics::LOST, snapshot.lost)?;
        let passes = Spread {
            buckets: snapshot.passes.clone(),
            sum: snapshot.pass_seconds,
            count: snapshot.passes.iter().map(|&(_, count)| count).sum(),
        };
        out.histogram(&metrics::PASS_DURATION, &passes)?;
        out.number(&metrics::PASS_FAILURES, snapshot.pass_failures)?;
        if let Some(at) = snapshot.last_pass {
            out.number(&metrics::LAST_PASS, at)?;
        }
        let costs = || self.costs.iter().map(|cost| ([("program", cost.program)], cost));
        let time = costs().map(|(labels, cost)| (labels, cost.ns as f64 / 1e9));
        out.family(&metrics::KERNEL_TIME, time)?;
        out.family(&metrics::KERNEL_RUNS, costs().map(|(labels, cost)| (labels, cost.runs)))?;
        let Some(recording) = snapshot.recording else { return Ok(()) };
        out.number(&metrics::RECORDING_SIZE, recording.bytes)?;
        out.number(&metrics::RECORDING_MISSING, recording.missing)?;
        out.number(&metrics::RECORDING_FAILING, u64::from(recording.failing))
    }

    fn own(&self, out: &mut Out<'_>) -> fmt::Result {
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

/// A number as the library takes it.
trait Value: Copy + EncodeGaugeValue {
    fn count(self, out: &mut MetricEncoder<'_>) -> fmt::Result;

    fn encode(self, kind: Kind, out: &mut MetricEncoder<'_>) -> fmt::Result {
        if kind == Kind::Counter { self.count(out) } else { out.encode_gauge(&self) }
    }
}

impl Value for u64 {
    fn count(self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        out.encode_counter::<NoLabels, u64, f64>(&self, None)
    }
}

impl Value for f64 {
    fn count(self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        out.encode_counter::<NoLabels, f64, f64>(&self, None)
    }
}

type NoLabels = [(&'static str, &'static str); 0];

/// Writes families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// Series with labels. A family that has none is left out.
    fn family<L: EncodeLabelSet, V: Value>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut series = series.peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        self.describe(family, |mut out| {
            series.try_for_each(|(labels, value)| {
                value.encode(family.kind, &mut out.encode_family(&labels)?)
            })
        })
    }

    /// The only series of a family.
    fn number(&mut self, family: &Family, value: impl Value) -> fmt::Result {
        self.describe(family, |mut out| value.encode(family.kind, &mut out))
    }

    fn info(&mut self, family: &Family, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.describe(family, |mut out| out.encode_info(labels))
    }

    fn histogram(&mut self, family: &Family, spread: &Spread) -> fmt::Result {
        let Spread { buckets, sum, count } = spread;
        self.describe(family, |mut out| {
            out.encode_histogram::<NoLabels>(*sum, *count, buckets, None)
        })
    }

    fn describe(
        &mut self,
        family: &Family,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = family.unit();
        let kind = family.kind.into();
        write(self.0.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?)
    }
}
