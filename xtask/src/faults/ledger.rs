//! What tcpwatch showed (`-j`), summed up, and held against itself.
//!
//! A record that was lost may hide a change, but never bend one: whatever is shown of a socket must
//! follow from what was shown before, or say that it is uncertain.

use std::{
    collections::{BTreeMap, HashMap},
    io::BufRead,
    net::SocketAddr,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::hold::{Held, Leak};

/// Contradictions that are told.
const MOST_TOLD: usize = 3;
/// What TCP's own times are exact to.
const JIFFY_NS: u64 = 10_000_000;
/// How late a packet may be handled on a busy machine.
const LATE_NS: u64 = 100_000_000;

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) transitions: u64,
    pub(super) uncertain: u64,
    /// Into the state that it was in: `close` after `shutdown` does that, if it comes soon.
    pub(super) again: u64,
    /// As the records tell of it where it happened: what never reached tcpwatch,
    pub(super) lost: u64,
    pub(super) losses: u64,
    /// and what it did not show.
    pub(super) unshown: u64,
    /// As the kernel's own trace counts what no tracer sees.
    pub(super) hidden: u64,
    /// Unless they are only counted.
    pub(super) findings: Vec<Value>,
    only_counts: bool,
    counts: BTreeMap<String, u64>,
    pub(super) culprits: Vec<Value>,
    summary: Option<Value>,
    contradictions: u64,
    told: Vec<String>,
    /// How many transitions have an end at an address.
    at: BTreeMap<String, u64>,
    /// What is known of each socket: when it changed, and into what.
    sockets: HashMap<u64, (u64, String)>,
}

/// What is needed of a transition.
#[derive(Deserialize)]
struct Transition<'a> {
    mono_ns: u64,
    socket: Option<u64>,
    old: &'a str,
    new: &'a str,
    in_state_ns: Option<u64>,
    uncertain: bool,
    #[serde(borrow)]
    local: End<'a>,
    #[serde(borrow)]
    remote: End<'a>,
}

#[derive(Deserialize)]
struct End<'a> {
    addr: &'a str,
}

impl Ledger {
    /// One that keeps no findings, where there are too many.
    pub(super) fn counting() -> Self {
        Self { only_counts: true, ..Self::default() }
    }

    /// Takes in all lines.
    pub(super) fn read(&mut self, mut from: impl BufRead) -> Result<()> {
        let mut line = String::new();
        while from.read_line(&mut line)? > 0 {
            self.take(line.trim_end()).with_context(|| format!("read {line}"))?;
            line.clear();
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<()> {
        ensure!(self.summary.is_none(), "the summary is not the last line");
        if line.starts_with(r#"{"type":"transition""#) {
            self.transition(&serde_json::from_str(line)?, line);
            return Ok(());
        }
        let value: Value = serde_json::from_str(line)?;
        match text(&value["type"])? {
            "finding" => self.finding(value, line)?,
            "culprit" => self.culprits.push(value),
            "lost" => self.lost(&value)?,
            "summary" => self.summary = Some(value),
            _ => bail!("a line of no known type"),
        }
        Ok(())
    }

    fn transition(&mut self, t: &Transition<'_>, line: &str) {
        self.transitions += 1;
        self.uncertain += u64::from(t.uncertain);
        for end in [&t.local, &t.remote] {
            match self.at.get_mut(end.addr) {
                Some(count) => *count += 1,
                None => drop(self.at.insert(end.addr.to_owned(), 1)),
            }
        }
        let Some(socket) = t.socket else { return self.wrong("a transition of no socket", line) };
        let before = if t.new == "CLOSE" {
            self.sockets.remove(&socket)
        } else if t.new == t.old {
            self.again += 1;
            self.sockets.get(&socket).cloned()
        } else {
            self.sockets.insert(socket, (t.mono_ns, t.new.to_owned()))
        };
        match before {
            _ if t.uncertain => {}
            Some((_, state)) if state != t.old => self.wrong("a gap that is not told", line),
            Some((at, _)) if t.in_state_ns != Some(t.mono_ns.saturating_sub(at)) => {
                self.wrong("a time that does not follow from the one before", line);
            }
            // It had changed before, and was not from before the start.
            None if t.in_state_ns.is_some() && self.unshown == 0 => {
                self.wrong("a gap that is not told", line);
            }
            _ => {}
        }
    }

    fn lost(&mut self, lost: &Value) -> Result<()> {
        let count = number(&lost["count"])?;
        match text(&lost["where"])? {
            "ring" => {
                self.lost += count;
                self.losses += 1;
            }
            "output" => {
                self.unshown += count;
                // What was seen but not shown is not uncertain.
                self.sockets.clear();
            }
            _ => bail!("transitions are lost in an unknown place"),
        }
        Ok(())
    }

    /// One whose way into its state was not shown must say so.
    fn finding(&mut self, finding: Value, line: &str) -> Result<()> {
        let status = text(&finding["status"])?;
        let known = finding["socket"].as_u64().and_then(|id| self.sockets.get(&id));
        let whole = known.is_some_and(|(_, state)| finding["state"] == *state);
        // Unless there are no transitions, or it is from before the start.
        let silent = self.transitions == 0 || self.unshown > 0 || finding["uncertain"] == true;
        let gap = status == "open" && !whole && !silent;
        *self.counts.entry(status.to_owned()).or_default() += 1;
        if gap {
            self.wrong("a finding of a socket with a gap", line);
        }
        if !self.only_counts {
            self.findings.push(finding);
        }
        Ok(())
    }

    fn wrong(&mut self, what: &str, line: &str) {
        self.contradictions += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(format!("{what}: {line}"));
        }
    }

    pub(super) fn summary(&self) -> Result<&Value> {
        self.summary.as_ref().context("it ended without a summary")
    }

    /// Findings with this status.
    pub(super) fn with_status(&self, status: &str) -> impl Iterator<Item = &Value> {
        self.findings.iter().filter(move |finding| finding["status"] == *status)
    }

    /// How many there were.
    pub(super) fn count_of(&self, status: &str) -> u64 {
        self.counts.get(status).copied().unwrap_or(0)
    }

    /// Findings about the sockets of a process.
    pub(super) fn of(&self, held: &Held) -> impl Iterator<Item = &Value> + Clone {
        let listener = held.listener;
        self.findings.iter().filter(move |f| ends(f).is_ok_and(|ends| ends.contains(&listener)))
    }

    /// How many transitions were shown of the sockets of a process.
    pub(super) fn transitions_of(&self, held: &Held) -> u64 {
        self.at.get(&held.listener.ip().to_string()).copied().unwrap_or(0)
    }

    /// Findings of sockets whose path has a gap.
    pub(super) fn uncertain_findings(&self) -> u64 {
        self.with_status("open").map(|finding| u64::from(finding["uncertain"] == true)).sum()
    }

    /// Nothing contradicts itself, and the sums agree: all that was sent is here or counted, but for what the
    /// kernel hides from every tracer.
    pub(super) fn is_complete(&self, sent: u64) -> Result<()> {
        self.is_consistent()?;
        let summary = self.summary()?;
        let (seen, lost) = (number(&summary["transitions"])?, number(&summary["lost"])?);
        let shown = self.transitions + self.unshown;
        ensure!(summary["unshown"] == self.unshown, "{} not shown: {summary}", self.unshown);
        ensure!(seen == shown, "{shown} lines or unshown, but {seen} are told");
        ensure!(lost == self.lost, "{} lost where it happened, {lost} in all", self.lost);
        let unseen = sent.checked_sub(seen + lost).filter(|unseen| *unseen <= self.hidden);
        ensure!(
            unseen.is_some(),
            "{seen} seen + {lost} lost is not {sent} sent, and {} are hidden from all tracers",
            self.hidden
        );
        Ok(())
    }

    /// Nothing contradicts itself.
    pub(super) fn is_consistent(&self) -> Result<()> {
        let count = self.contradictions;
        ensure!(count == 0, "{count} contradictions, such as {:#?}", self.told);
        Ok(())
    }

    /// Each leak of these processes was found, once, of the right age and with the right process; and
    /// nothing else was.
    pub(super) fn has_found(&self, holders: &[(&Held, u32)]) -> Result<()> {
        let mut leaks = 0;
        for &(held, pid) in holders {
            self.has_found_of(held, pid)?;
            leaks += held.leaks.len() as u64;
        }
        let opened = self.count_of("open");
        ensure!(opened == leaks, "{opened} findings of {leaks} leaks");
        Ok(())
    }

    /// The same of one process, whatever else was found.
    pub(super) fn has_found_of(&self, held: &Held, pid: u32) -> Result<()> {
        let mut open = HashMap::new();
        for finding in self.of(held).filter(|finding| finding["status"] == "open") {
            let [_, remote] = ends(finding)?;
            ensure!(open.insert(remote.port(), finding).is_none(), "found twice: {finding}");
        }
        for leak in &held.leaks {
            let finding = open.remove(&leak.port);
            let finding = finding.with_context(|| format!("not found: {leak:?}"))?;
            ensure!(!finding["verdict"].is_null(), "not confirmed: {finding}");
            ensure!(finding["holders"][0]["pid"] == pid, "not held by {pid}: {finding}");
            ensure!(finding["owner"]["pid"] == pid, "not owned by {pid}: {finding}");
            check_age(finding, leak)?;
        }
        ensure!(open.is_empty(), "what does not leak was found: {:?}", open.values().next());
        Ok(())
    }
}

/// A finding tells since when the peer has closed, or that it is longer.
fn check_age(finding: &Value, leak: &Leak) -> Result<()> {
    let since = number(&finding["mono_ns"])?.saturating_sub(number(&finding["linger_ns"])?);
    let (before, after) = leak.closed_ns;
    let early = since + JIFFY_NS < before;
    let late = since > after + LATE_NS && finding["linger_at_least"] == false;
    ensure!(!early && !late, "the peer closed at {before}..{after} and not at {since}: {finding}");
    Ok(())
}

/// The ends of a connection: local and remote.
pub(super) fn ends(record: &Value) -> Result<[SocketAddr; 2]> {
    Ok([end(&record["local"])?, end(&record["remote"])?])
}

fn end(end: &Value) -> Result<SocketAddr> {
    let port = u16::try_from(number(&end["port"])?)?;
    Ok(SocketAddr::new(text(&end["addr"])?.parse()?, port))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

pub(super) fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_must_be_counted_or_hidden() {
        let of = |hidden| {
            let summary = json!({"transitions": 3, "lost": 2, "unshown": 0});
            let summary = Some(summary);
            Ledger { transitions: 3, lost: 2, hidden, summary, ..Ledger::default() }
        };
        assert!(of(0).is_complete(5).is_ok());
        assert!(of(0).is_complete(6).is_err());
        assert!(of(1).is_complete(6).is_ok());
        assert!(of(1).is_complete(4).is_err());
    }
}
