//! CSV: one header, one row per transition and per finding.
//!
//! Both kinds share the columns; what does not apply is empty. `type` is `transition` or
//! `finding`; a finding's state is in `new`. Losses and the summary have no row: they go to
//! standard error.
//!
//! A spreadsheet takes text that begins with `=`, `+`, `-` or `@` for a formula, and runs it. Where a
//! process's name may stand first (`owner_comm`, `by_comm`, `summary`), such a character is escaped as
//! any other that does harm: `\x3dcmd` is the name `=cmd`.

use std::io::{self, Write};

use super::rfc3339;
use crate::{
    core::{
        advice,
        finding::{Finding, Verdict},
        input::Transition,
        record::Record,
        socket::{Process, Role, Socket},
        time::{ClockMark, Timestamp},
    },
    sink::Sink,
};

const HEADER: [&str; 33] = [
    "type",
    "ts",
    "mono_ns",
    "socket",
    "cookie",
    "netns",
    "family",
    "protocol",
    "local_addr",
    "local_port",
    "remote_addr",
    "remote_port",
    "owner_pid",
    "owner_comm",
    "owner_how",
    "uid",
    "cgroup",
    "role",
    "unread",
    "unsent",
    "old",
    "new",
    "in_state_ns",
    "lifetime_ns",
    "by_pid",
    "by_comm",
    "verdict",
    "status",
    "linger_ns",
    "linger_at_least",
    "holders",
    "ended",
    "summary",
];

/// Writes CSV (RFC 4180).
pub struct CsvSink<W: Write> {
    out: csv::Writer<W>,
    started: bool,
}

impl<W: Write> CsvSink<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out: csv::Writer::from_writer(out), started: false }
    }

    fn header(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.started, true) {
            self.out.write_record(HEADER).map_err(cause)?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for CsvSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.header()?;
        match record {
            Record::Transition(t) => {
                let row = identity("transition", clock, t.at, &t.socket);
                self.out.write_record(row.into_iter().chain(transition(t))).map_err(cause)?;
            }
            Record::Finding(f) => {
                let row = identity("finding", clock, f.at, &f.socket);
                self.out.write_record(row.into_iter().chain(finding(f))).map_err(cause)?;
            }
            Record::Culprit(_) | Record::Lost(_) | Record::Summary(_) => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.header()?;
        self.out.flush()
    }
}

/// What is wrong with the output itself: a closed pipe must be known as such.
fn cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Text that may begin with what somebody else chose.
fn plain(text: &str) -> String {
    match text.chars().next() {
        Some(first @ ('=' | '+' | '-' | '@')) => {
            format!("\\x{:02x}{}", u32::from(first), &text[1..])
        }
        _ => text.to_owned(),
    }
}

fn name(process: Process) -> String {
    plain(&process.comm.to_string())
}

fn identity(kind: &str, clock: &ClockMark, at: Timestamp, s: &Socket) -> Vec<String> {
    let owner = s.owner;
    vec![
        kind.to_owned(),
        rfc3339(clock, at),
        at.0.to_string(),
        optional(s.id.map(|id| id.0)),
        optional(s.cookie),
        s.netns.to_string(),
        s.family().to_string(),
        s.protocol.word().to_owned(),
        s.local.ip().to_string(),
        s.local.port().to_string(),
        s.remote.ip().to_string(),
        s.remote.port().to_string(),
        optional(owner.map(|owner| owner.process.pid)),
        optional(owner.map(|owner| name(owner.process))),
        optional(owner.map(|owner| owner.how.word())),
        s.uid.to_string(),
        optional(s.cgroup),
        optional(s.role.map(Role::word)),
        optional(s.tcp.map(|tcp| tcp.unread)),
        optional(s.tcp.map(|tcp| tcp.unsent)),
    ]
}

fn transition(t: &Transition) -> Vec<String> {
    let mut row = vec![
        t.old.to_string(),
        t.new.to_string(),
        optional(t.in_state().map(|span| span.0)),
        optional(t.lifetime().map(|span| span.0)),
        optional(t.actor.map(|actor| actor.pid)),
        optional(t.actor.map(name)),
    ];
    row.resize(HEADER.len() - 20, String::new());
    row
}

fn finding(f: &Finding) -> Vec<String> {
    let by = f.ending.and_then(|ending| ending.by);
    vec![
        String::new(),
        f.state.to_string(),
        String::new(),
        String::new(),
        optional(by.map(|by| by.pid)),
        optional(by.map(name)),
        optional(f.verdict.map(Verdict::word)),
        f.status.word().to_owned(),
        f.linger.0.to_string(),
        f.at_least.to_string(),
        f.holders
            .iter()
            .map(|h| format!("{}:{}", h.process.pid, h.fd))
            .collect::<Vec<_>>()
            .join(" "),
        optional(f.ending.map(|ending| ending.cause.word())),
        plain(&advice::summary(f)),
    ]
}
