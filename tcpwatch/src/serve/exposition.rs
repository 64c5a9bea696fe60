//! The metrics page: `OpenMetrics` 1.0, and the older text format that is made of it.

use std::fmt::{self, Write as _};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    registry::Registry,
};

use super::{
    metrics::{Family, Kind},
    page::{Labels, Number, Page, Writer},
};
use crate::kernel::meters::Spread;

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
        self.write(&mut Out(encoder))
    }
}

type NoLabels = [(&'static str, &'static str); 0];

/// Writes families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Writer for Out<'_> {
    type Error = fmt::Error;

    fn info(&mut self, family: &Family, labels: Labels<'_>) -> fmt::Result {
        self.describe(family, |mut out| out.encode_info(&labels))
    }

    fn series(&mut self, family: &Family, series: Vec<(Labels<'_>, Number)>) -> fmt::Result {
        self.describe(family, |mut out| {
            series.iter().try_for_each(|(labels, value)| {
                if labels.is_empty() {
                    return encode(family.kind, *value, &mut out);
                }
                encode(family.kind, *value, &mut out.encode_family(labels)?)
            })
        })
    }

    fn histogram(&mut self, family: &Family, spread: &Spread) -> fmt::Result {
        let Spread { buckets, sum, count } = spread;
        self.describe(family, |mut out| {
            out.encode_histogram::<NoLabels>(*sum, *count, buckets, None)
        })
    }
}

impl Out<'_> {
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

fn encode(kind: Kind, value: Number, out: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Number::Count(count)) => {
            out.encode_counter::<NoLabels, u64, f64>(&count, None)
        }
        (Kind::Counter, Number::Measure(measure)) => {
            out.encode_counter::<NoLabels, f64, f64>(&measure, None)
        }
        (_, Number::Count(count)) => out.encode_gauge(&count),
        (_, Number::Measure(measure)) => out.encode_gauge(&measure),
    }
}
