//! What an agent serves as metrics, sent to a collector: the same families with the same labels.
//!
//! A Prometheus that takes OTLP adds unit and `_total` to names, and so gets what it would scrape. All
//! sums are cumulative, so a request that does not arrive loses resolution and nothing else: none is
//! tried again. A collector that asks to wait is not sent anything before that is over.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    Collector as _, LONGEST_WAIT,
    client::{Answer, Client},
    message::{resource, scope, text},
};
use crate::{
    kernel::{clock, meters::Spread},
    serve::{
        metrics::{Family, Kind},
        page::{Labels, Number, Page, Writer},
    },
};

/// The variable that says how often, in ms.
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
/// How often if nobody says.
const EVERY: Duration = Duration::from_mins(1);

/// How often to send, as the environment says.
pub(crate) fn every(variable: impl Fn(&str) -> Option<String>) -> Result<Duration> {
    let Some(text) = variable(INTERVAL).filter(|text| !text.trim().is_empty()) else {
        return Ok(EVERY);
    };
    let ms = text.trim().parse().ok().filter(|&ms| ms > 0);
    ms.map(Duration::from_millis)
        .with_context(|| format!("{INTERVAL} is '{text}': use milliseconds, such as 60000"))
}

/// Sends what `page` says, again and again; nothing while it says nothing. What it counts began at
/// `begun`, in ns since 1970.
pub(crate) async fn push(
    client: Client,
    every: Duration,
    begun: u64,
    page: impl Fn() -> Option<Page>,
) {
    let resource = resource(client.config());
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble: Option<String> = None;
    loop {
        tick.tick().await;
        let Some(page) = page() else { continue };
        let body = Numbers::of(&page, begun, clock::mark().real_ns).encode(&resource);
        let answer = client.send(client.request_body(body)).await;
        let asked = match &answer {
            Answer::Later { after, .. } => after.unwrap_or_default().min(LONGEST_WAIT),
            _ => Duration::ZERO,
        };
        let now = match answer {
            Answer::Taken => None,
            Answer::TakenInPart { rejected: 0, why } if why.is_empty() => None,
            Answer::TakenInPart { rejected, why } => Some(format!("{rejected} rejected: {why}")),
            Answer::Refused(why) | Answer::Later { why, .. } => Some(why),
        };
        // Once for each reason, not every time.
        if let Some(why) = now.as_ref().filter(|why| trouble.as_ref() != Some(*why)) {
            log::warn!("metrics for {}: {why}", client.config().endpoint());
        }
        trouble = now;
        sleep(asked).await;
    }
}

/// Families as OpenTelemetry has them.
struct Numbers {
    /// When what is counted began, and now; ns since 1970.
    begun: u64,
    now: u64,
    metrics: Vec<Metric>,
}

impl Numbers {
    fn of(page: &Page, begun: u64, now: u64) -> Self {
        let mut numbers = Self { begun, now, metrics: Vec::new() };
        let Ok(()) = page.write(&mut numbers);
        numbers
    }

    fn encode(self, resource: &Resource) -> Vec<u8> {
        let scope_metrics = vec![ScopeMetrics {
            scope: Some(scope()),
            metrics: self.metrics,
            schema_url: String::new(),
        }];
        let metrics = ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics,
            schema_url: String::new(),
        };
        ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec()
    }

    fn add(&mut self, family: &Family, data: Data) {
        self.metrics.push(Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: unit(family.unit).to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }

    fn point(&self, labels: &Labels<'_>, value: Number) -> NumberDataPoint {
        let value = match value {
            Number::Count(count) => Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
            Number::Measure(measure) => Value::AsDouble(measure),
        };
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.begun,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }
}

/// An empty label is none.
fn attributes(labels: &Labels<'_>) -> Vec<KeyValue> {
    let said = labels.iter().filter(|(_, value)| !value.is_empty());
    said.map(|&(name, value)| text(name, value)).collect()
}

/// As UCUM writes it.
fn unit(unit: Option<&str>) -> &str {
    match unit {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some(other) => other,
        None => "",
    }
}

impl Writer for Numbers {
    type Error = Infallible;

    /// The resource says what is running.
    fn info(&mut self, _: &Family, _: Labels<'_>) -> Result<(), Infallible> {
        Ok(())
    }

    fn series(
        &mut self,
        family: &Family,
        series: Vec<(Labels<'_>, Number)>,
    ) -> Result<(), Infallible> {
        let points = series.iter().map(|(labels, value)| self.point(labels, *value));
        let data_points = points.collect();
        let data = if family.kind == Kind::Counter {
            Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            })
        } else {
            Data::Gauge(Gauge { data_points })
        };
        self.add(family, data);
        Ok(())
    }

    fn histogram(&mut self, family: &Family, spread: &Spread) -> Result<(), Infallible> {
        let point = HistogramDataPoint {
            start_time_unix_nano: self.begun,
            time_unix_nano: self.now,
            count: spread.count,
            sum: Some(spread.sum),
            bucket_counts: spread.buckets.iter().map(|&(_, count)| count).collect(),
            // The last has no end.
            explicit_bounds: spread
                .buckets
                .iter()
                .map(|&(end, _)| end)
                .filter(|end| end.is_finite())
                .collect(),
            ..HistogramDataPoint::default()
        };
        let data = Data::Histogram(Histogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        });
        self.add(family, data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_how_often() {
        let said = |text: &str| every(|name| (name == INTERVAL).then(|| text.to_owned()));
        assert_eq!(said("2500").unwrap(), Duration::from_millis(2500));
        assert_eq!(said(" ").unwrap(), EVERY);
        for wrong in ["0", "1m", "-1"] {
            assert!(said(wrong).unwrap_err().to_string().contains("milliseconds"), "{wrong}");
        }
    }

    #[test]
    fn a_histogram_has_one_end_less_than_buckets() {
        let mut numbers = Numbers { begun: 1, now: 2, metrics: Vec::new() };
        let buckets = vec![(0.5, 3), (1.0, 2), (f64::INFINITY, 1)];
        let spread = Spread { buckets, sum: 4.25, count: 6 };
        let Ok(()) = numbers.histogram(&crate::serve::metrics::CLOSE_WAIT, &spread);
        let metric = &numbers.metrics[0];
        assert_eq!((&metric.name[..], &metric.unit[..]), ("tcpwatch_close_wait", "s"));
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [0.5, 1.0]);
        assert_eq!((&point.bucket_counts[..], point.count), (&[3, 2, 1][..], 6));
    }

    #[test]
    fn an_empty_label_is_no_attribute() {
        assert_eq!(attributes(&vec![("process", "api"), ("pod", "")]), [text("process", "api")]);
    }
}
