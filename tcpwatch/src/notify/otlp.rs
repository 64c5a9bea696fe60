//! Findings as OpenTelemetry log records, and the numbers of an agent as metrics, over OTLP/HTTP with
//! protobuf.
//!
//! Sent in batches. What the protocol calls retryable (429, 502, 503, 504, no answer) is tried again,
//! after the time that the collector asks for or after a growing one; any other answer is final.
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
/// How long a batch is tried, also if a collector asks for more patience.
const PATIENCE: Duration = Duration::from_mins(5);

/// What was typed and what the environment says.
pub(crate) fn config(signal: Signal, url: &str, args: &NotifyArgs) -> anyhow::Result<Config> {
    Config::new(signal, url, &args.otlp_header, |name| std::env::var(name).ok())
}

/// Sends what comes until nothing more does.
pub(super) async fn run(mut inbox: Inbox, client: Client) {
    let resource = message::resource(client.config());
    while let Some(batch) = inbox.batch(FULL, OLD).await {
        let body = message::encode(&resource, &batch);
        deliver(&mut inbox, &client, &batch, body).await;
    }
}

async fn deliver(inbox: &mut Inbox, client: &Client, batch: &[Arc<Notice>], body: Vec<u8>) {
    let request = client.request_body(body);
    let sent = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match client.send(request.clone()).await {
            Answer::Taken => return inbox.tally.delivered(sent),
            Answer::TakenInPart { rejected, why } => {
                inbox.tally.delivered(sent.saturating_sub(rejected));
                if rejected > 0 || !why.is_empty() {
                    inbox.warn(&format!("{} rejected: {why}", count(rejected, "finding")));
                }
                return;
            }
            Answer::Refused(why) => return inbox.warn(&why),
            Answer::Later { why, after } => {
                let wait = after.unwrap_or_else(|| jitter(pause)).min(PATIENCE);
                if begun.elapsed() + wait > PATIENCE {
                    return inbox.warn(&format!("{why}; given up after {PATIENCE:?}"));
                }
                inbox.warn(&why);
                pause = (pause * 2).min(LONGEST_PAUSE);
                inbox.pause(wait).await;
            }
        }
    }
}

/// Between half of it and all of it, so that many hosts do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer() {
        let pauses: Vec<_> = (0..50).map(|_| jitter(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().all(|&pause| pause >= LONGEST_PAUSE / 2 && pause <= LONGEST_PAUSE));
        assert!(pauses.iter().any(|&pause| pause != pauses[0]));
    }
}
