//! Findings as OpenTelemetry log records, and the numbers of an agent as metrics, over OTLP/HTTP with
//! protobuf.
//!
//! Sent in batches. What the protocol calls retryable (429, 502, 503, 504, no answer) is tried again,
//! after the time that the collector asks for or after a growing one; any other answer is final. That
//! time is the collector's, and not the batch's: no other batch is sent before it is over.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>

mod client;
mod config;
mod message;
mod metrics;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::client::Answer;
pub(crate) use self::{
    client::Client,
    config::{Config, Signal},
    metrics::{every, push},
};
use super::{notice::Notice, queue::Inbox};
use crate::{cli::NotifyArgs, core::advice::count};

/// A batch is sent when it has so many,
const FULL: usize = 512;
/// or when its first is this old.
const OLD: Duration = Duration::from_secs(1);
/// How long to wait before the second try; doubled for each further one,
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest wait that a collector can ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// A batch is given up when it is refused this long after its first try.
const PATIENCE: Duration = Duration::from_mins(5);

/// What was typed and what the environment says.
pub(crate) fn config(signal: Signal, url: &str, args: &NotifyArgs) -> anyhow::Result<Config> {
    Config::new(signal, url, &args.otlp_header, |name| std::env::var(name).ok())
}

/// Who takes findings.
pub(super) trait Collector {
    /// A batch as it is sent.
    type Body: Clone + Send;

    /// Makes it.
    fn pack(&self, batch: &[Arc<Notice>]) -> Self::Body;

    /// Sends it once.
    fn send(&self, body: Self::Body) -> impl Future<Output = Answer> + Send;
}

/// Sends what comes until nothing more does.
pub(super) async fn run(mut inbox: Inbox, collector: impl Collector) {
    let mut pace = Pace::default();
    while let Some(batch) = inbox.batch(FULL, OLD).await {
        let (sent, body) = (u64::try_from(batch.len()).unwrap_or(u64::MAX), collector.pack(&batch));
        let mut begun = None;
        loop {
            if !pace.wait(&mut inbox).await {
                // The run ends before the collector may be asked again.
                return;
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            let answer = collector.send(body.clone()).await;
            let Answer::Later { why, after } = answer else {
                pace = Pace::default();
                settle(&mut inbox, sent, answer);
                break;
            };
            let why = pace.later(why, after);
            if begun.elapsed() >= PATIENCE {
                inbox.warn(&format!("{why}; {} given up", count(sent, "finding")));
                break;
            }
            inbox.warn(&why);
        }
    }
}

/// Accounts for a batch whose answer is final.
fn settle(inbox: &mut Inbox, sent: u64, answer: Answer) {
    match answer {
        Answer::Taken => inbox.tally.delivered(sent),
        Answer::TakenInPart { rejected, why } => {
            inbox.tally.delivered(sent.saturating_sub(rejected));
            if rejected > 0 || !why.is_empty() {
                inbox.warn(&format!("{} rejected: {why}", count(rejected, "finding")));
            }
        }
        Answer::Refused(why) | Answer::Later { why, .. } => inbox.warn(&why),
    }
}

/// When a collector may be asked again.
#[derive(Default)]
struct Pace {
    /// Answers in a row that were no use.
    failures: u32,
    next: Option<Next>,
}

/// The end of a wait,
enum Next {
    /// of our own choice,
    Chosen(Instant),
    /// or that the collector asked for, and its words.
    Asked(Instant, String),
}

impl Pace {
    /// Waits for it. False if the run ends before.
    async fn wait(&mut self, inbox: &mut Inbox) -> bool {
        match self.next.take() {
            None => true,
            Some(Next::Chosen(until)) => {
                inbox.pause(until.saturating_duration_since(Instant::now())).await;
                true
            }
            Some(Next::Asked(until, why)) => inbox.wait(until, &why).await,
        }
    }

    /// It may be asked later, and says perhaps when. What there is to say of it.
    fn later(&mut self, why: String, after: Option<Duration>) -> String {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        if let Some(after) = after {
            // At least a moment: it may say 0.
            let wait = after.clamp(FIRST_PAUSE, LONGEST_WAIT);
            let why = format!("{why}; asked to wait, nothing is sent for {wait:?}");
            self.next = Some(Next::Asked(now + wait, why.clone()));
            why
        } else {
            self.next = Some(Next::Chosen(now + jitter(doubled.min(LONGEST_PAUSE))));
            why
        }
    }
}

/// Between half of it and all of it, so that many hosts do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests;
