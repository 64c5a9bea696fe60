//! The findings that a page lists, as JSON, as many as there is room for.

use std::io;

use serde::Serialize;

use super::{data::Micros, shell::harmless};
use crate::report::{Report, model::Listed};

/// A finding. Moments are µs from the beginning of what is reported.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    culprit: usize,
    /// As text: it has more digits than a number in a browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holders: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    local: &'a str,
    remote: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    born: Option<Micros>,
    since: Micros,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    died: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Micros>,
    linger_ns: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'a str>,
    summary: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    evidence: &'a str,
    seen: Micros,
}

/// The rows of what is listed.
pub(super) fn rows<'a>(report: &'a Report, listed: &'a [Listed]) -> impl Iterator<Item = Row<'a>> {
    let at = |moment| Micros::since(report.from_mono_ns, moment);
    listed.iter().map(move |f| Row {
        culprit: f.culprit,
        socket: f.socket.map(|id| id.to_string()),
        owner: f.owner.as_deref(),
        holders: f.holders.as_deref(),
        role: f.role,
        local: &f.local,
        remote: &f.remote,
        netns: f.netns.as_deref(),
        verdict: f.verdict.unwrap_or("unconfirmed"),
        born: f.born.map(at),
        since: at(f.since),
        at_least: f.at_least,
        found: f.found.map(at),
        died: f.died.map(at),
        until: f.until.map(at),
        linger_ns: f.linger.0,
        open: f.open,
        how: f.how,
        ended: f.ended.as_deref(),
        summary: &f.summary,
        evidence: &f.evidence,
        seen: at(f.seen),
    })
}

/// Those that fit into so many bytes: the first of every culprit, then the second, and so on.
pub(super) fn within<'a>(
    room: usize,
    rows: impl Iterator<Item = Row<'a>>,
) -> io::Result<Vec<String>> {
    const BETWEEN: usize = 2;
    let (mut texts, mut turns) = (Vec::new(), Vec::new());
    let (mut culprit, mut turn) = (None, 0);
    for row in rows {
        turn = if culprit == Some(row.culprit) { turn + 1 } else { 0 };
        culprit = Some(row.culprit);
        turns.push((turn, texts.len()));
        texts.push(harmless(&serde_json::to_string(&row)?));
    }
    turns.sort_unstable();
    let mut taken = 0;
    for (_, place) in turns {
        let size = texts[place].len() + BETWEEN;
        if taken + size > room {
            texts[place].clear();
        } else {
            taken += size;
        }
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts)
}
