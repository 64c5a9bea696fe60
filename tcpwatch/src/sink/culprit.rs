//! A culprit, as text and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{rfc3339, text::wrap};
use crate::core::{
    advice,
    culprits::{Culprit, Growth},
    evidence,
    finding::Verdict,
    time::ClockMark,
};

/// Columns to the left of what follows the title.
const INDENT: usize = 7;

/// Three or four lines for people: what, how old, and the oldest as an example; broken at spaces
/// for a terminal of this width.
pub fn write_text(out: &mut dyn Write, culprit: &Culprit, width: usize) -> io::Result<()> {
    writeln!(out, "{:>6} {}", culprit.count, title(culprit))?;
    let mut indented = |text: &str| {
        wrap(text, width.saturating_sub(INDENT))
            .iter()
            .try_for_each(|line| writeln!(out, "{:INDENT$}{line}", ""))
    };

    indented(&ages(culprit))?;
    if let Some(example) = &culprit.example {
        indented(&advice::summary(example))?;
        let evidence = evidence::dated_line(example);
        if !evidence.is_empty() {
            indented(&format!("seen: {evidence}"))?;
        }
    }
    Ok(())
}

/// Verdict, whose, and with whom: `not-closed api[4242] to 10.2.3.4:5432 (91.0 %)`.
pub fn title(culprit: &Culprit) -> String {
    let key = &culprit.key;
    let owner = key.owner.map_or_else(|| "nobody known".to_owned(), |owner| owner.to_string());
    let arrow = match key.client {
        Some(true) => "to",
        Some(false) => "at",
        None => "with",
    };
    format!(
        "{} {owner} {arrow} {} ({}.{} %)",
        key.verdict.map_or("unconfirmed", Verdict::word),
        key.end,
        culprit.share / 10,
        culprit.share % 10
    )
}

/// `oldest 4h12m, median 2h05m, p99 4h08m; +14.0 per minute: 1024 fds are used up in about 52m`.
pub fn ages(culprit: &Culprit) -> String {
    let at_least = if culprit.at_least { ">= " } else { "" };
    let growth = culprit.growth.map_or_else(String::new, |growth| {
        let rate = growth.milli_per_minute();
        format!("; +{}.{} per minute", rate / 1000, rate % 1000 / 100)
    });
    let limit = match (culprit.reaches_limit_in, fds(culprit)) {
        (Some(within), Some((_, limit))) => {
            format!(": its {limit} fds are used up in about {within}")
        }
        _ => String::new(),
    };
    let Culprit { oldest, p50, p99, .. } = culprit;
    match culprit.count {
        1 => format!("for {at_least}{oldest}{growth}{limit}"),
        _ => format!("oldest {at_least}{oldest}, median {p50}, p99 {p99}{growth}{limit}"),
    }
}

/// Descriptors in use and their limit, as of the last look.
fn fds(culprit: &Culprit) -> Option<(u64, u64)> {
    let process = culprit.process.as_ref()?;
    process.fds.zip(process.fd_limit)
}

/// A line of JSON; `sink/json.rs` says what it means.
#[derive(Serialize)]
pub(super) struct CulpritLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    pid: Option<u32>,
    comm: Option<String>,
    verdict: Option<&'static str>,
    role: Option<&'static str>,
    end: String,
    count: usize,
    share: f64,
    oldest_ns: u64,
    p50_ns: u64,
    p99_ns: u64,
    at_least: bool,
    growth_per_minute: Option<f64>,
    reaches_limit_in_ns: Option<u64>,
    fds: Option<u64>,
    fd_limit: Option<u64>,
    example: Option<u64>,
    summary: Option<String>,
}

impl CulpritLine {
    pub(super) fn new(clock: &ClockMark, culprit: &Culprit) -> Self {
        let key = &culprit.key;
        let fds = fds(culprit);
        #[expect(clippy::cast_precision_loss, reason = "thousandths of a socket per minute")]
        let per_minute = |growth: Growth| growth.milli_per_minute() as f64 / 1000.0;
        Self {
            r#type: "culprit",
            ts: rfc3339(clock, culprit.at),
            mono_ns: culprit.at.0,
            pid: key.owner.map(|owner| owner.pid),
            comm: key.owner.map(|owner| owner.comm.to_string()),
            verdict: key.verdict.map(Verdict::word),
            role: key.client.map(|client| if client { "client" } else { "server" }),
            end: key.end.to_string(),
            count: culprit.count,
            share: f64::from(culprit.share) / 1000.0,
            oldest_ns: culprit.oldest.0,
            p50_ns: culprit.p50.0,
            p99_ns: culprit.p99.0,
            at_least: culprit.at_least,
            growth_per_minute: culprit.growth.map(per_minute),
            reaches_limit_in_ns: culprit.reaches_limit_in.map(|span| span.0),
            fds: fds.map(|(fds, _)| fds),
            fd_limit: fds.map(|(_, limit)| limit),
            example: culprit.example.as_ref().and_then(|example| Some(example.socket.id?.0)),
            summary: culprit.example.as_ref().map(advice::summary),
        }
    }
}
