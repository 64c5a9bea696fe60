//! JSON lines.
//!
//! One object per line; `type` says which. Fields are only ever added. Durations end in `_ns`,
//! `ts` is RFC 3339 in UTC with nanoseconds, `mono_ns` is `CLOCK_MONOTONIC`. A value that is not
//! known is `null`, never 0. Process names are escaped: a byte that is not printable UTF-8 is
//! `\xNN`, a character that would move the cursor or the direction of text is `\u{N}`, and a
//! backslash is doubled.
//!
//! ```json
//! {"type":"transition","ts":"2026-11-22T17:30:00.000000001Z","mono_ns":1,"socket":7,
//!  "cookie":4711,"netns":4026531840,"family":4,"protocol":"tcp",
//!  "local":{"addr":"127.0.0.1","port":8080},"remote":{"addr":"127.0.0.1","port":51234},
//!  "old":"ESTABLISHED","new":"CLOSE_WAIT","in_state_ns":1000,"lifetime_ns":null,
//!  "owner":{"pid":4242,"comm":"python3","how":"fd"},"uid":0,"cgroup":1,
//!  "role":"server","by":null,"bytes_received":5,"bytes_acked":0,"unread":1,"unsent":0,
//!  "srtt_us":40,"retransmits":0,"error":0}
//! ```
//!
//! - `transition`: `lifetime_ns` only at `new` = `CLOSE`; `by` is the process that made the
//!   change, only where that is certain; counters are those of the moment before the change, and
//!   `null` for MPTCP. `owner.how` is `connect`, `listen`, `accept`, `fd` or `listener`; the last
//!   means that the process holds the listener and a worker may have accepted the connection.
//! - `finding`: the identity fields of a transition and `verdict` (one of the seven, `null` when
//!   no pass could confirm it), `status` (`open`, `still`, `ended`), `state`, `linger_ns`,
//!   `linger_at_least`, `unread`, `unsent`, `role`, `holders` (`pid`, `comm`, `fd`), `listener`
//!   (for `never-accepted`: `local`, `holders`, `queue_len`, `queue_limit`), `ended` (`how`:
//!   `closed`, `aborted`, `reset`, `timed-out`, `destroyed`, `listener-closed`, `fd-closed`,
//!   `gone`; `by`), `same_owner` (open findings of this owner) and `summary`, one sentence. `ts` is
//!   the deadline that passed, or the moment it ended.
//! - `lost`: `count` more transitions never reached us, `total` so far.
//! - `culprit` (of `tcpwatch leaks`): findings that share owner, verdict, role and `end` (the
//!   remote end of clients, the local end of servers): `count`, `share` of all, `oldest_ns`,
//!   `p50_ns`, `p99_ns`, `at_least`, `fds` in use and `fd_limit` of the process.
//! - `summary`: the last line. `entered` and `now` are counts per state, `verdicts` per verdict,
//!   `owners` a list of `pid`, `comm` and `findings`.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::rfc3339;
use crate::core::{
    advice,
    finding::{Ending, Finding, Listener},
    input::Transition,
    record::{Lost, Record, Sink, Summary},
    socket::{Holder, Owner, Process, Socket},
    state::State,
    time::{ClockMark, Timestamp},
};

/// Writes JSON lines.
pub struct JsonSink<W: Write> {
    out: W,
}

impl<W: Write> JsonSink<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes any value as a line of its own.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Sink for JsonSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(transition) => self.line(&TransitionLine::new(clock, transition)),
            Record::Finding(finding) => self.line(&FindingLine::new(clock, finding)),
            Record::Lost(lost) => self.line(&LostLine::new(clock, lost)),
            Record::Summary(summary) => self.line(&SummaryLine::new(clock, summary)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[derive(Serialize)]
struct Identity {
    socket: Option<u64>,
    cookie: Option<u64>,
    netns: u32,
    family: u8,
    protocol: &'static str,
    local: Endpoint,
    remote: Endpoint,
    owner: Option<OwnerField>,
    uid: u32,
    cgroup: Option<u64>,
    role: Option<&'static str>,
}

impl Identity {
    fn new(socket: &Socket) -> Self {
        Self {
            socket: socket.id.map(|id| id.0),
            cookie: socket.cookie,
            netns: socket.netns,
            family: socket.family(),
            protocol: socket.protocol.word(),
            local: socket.local.into(),
            remote: socket.remote.into(),
            owner: socket.owner.map(OwnerField::from),
            uid: socket.uid,
            cgroup: socket.cgroup,
            role: socket.role.map(crate::core::socket::Role::word),
        }
    }
}

#[derive(Serialize)]
struct Endpoint {
    addr: std::net::IpAddr,
    port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { addr: addr.ip(), port: addr.port() }
    }
}

#[derive(Serialize)]
struct OwnerField {
    pid: u32,
    comm: String,
    how: &'static str,
}

impl From<Owner> for OwnerField {
    fn from(owner: Owner) -> Self {
        let Process { pid, comm } = owner.process;
        Self { pid, comm: comm.to_string(), how: owner.how.word() }
    }
}

#[derive(Serialize)]
struct ProcessField {
    pid: u32,
    comm: String,
}

impl From<Process> for ProcessField {
    fn from(process: Process) -> Self {
        Self { pid: process.pid, comm: process.comm.to_string() }
    }
}

#[derive(Serialize)]
struct HolderField {
    pid: u32,
    comm: String,
    fd: u32,
}

impl From<&Holder> for HolderField {
    fn from(holder: &Holder) -> Self {
        Self { pid: holder.process.pid, comm: holder.process.comm.to_string(), fd: holder.fd }
    }
}

#[derive(Serialize)]
struct TransitionLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    #[serde(flatten)]
    identity: Identity,
    old: &'static str,
    new: &'static str,
    in_state_ns: Option<u64>,
    lifetime_ns: Option<u64>,
    by: Option<ProcessField>,
    bytes_received: Option<u64>,
    bytes_acked: Option<u64>,
    unread: Option<u32>,
    unsent: Option<u32>,
    srtt_us: Option<u32>,
    retransmits: Option<u32>,
    error: u32,
}

impl TransitionLine {
    fn new(clock: &ClockMark, t: &Transition) -> Self {
        let tcp = t.socket.tcp;
        Self {
            r#type: "transition",
            ts: rfc3339(clock, t.at),
            mono_ns: t.at.0,
            identity: Identity::new(&t.socket),
            old: t.old.name(),
            new: t.new.name(),
            in_state_ns: t.in_state().map(|span| span.0),
            lifetime_ns: t.lifetime().map(|span| span.0),
            by: t.actor.map(ProcessField::from),
            bytes_received: tcp.map(|tcp| tcp.bytes_received),
            bytes_acked: tcp.map(|tcp| tcp.bytes_acked),
            unread: tcp.map(|tcp| tcp.unread),
            unsent: tcp.map(|tcp| tcp.unsent),
            srtt_us: tcp.map(|tcp| tcp.srtt_us),
            retransmits: tcp.map(|tcp| tcp.retransmits),
            error: t.socket.error,
        }
    }
}

#[derive(Serialize)]
struct FindingLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    #[serde(flatten)]
    identity: Identity,
    verdict: Option<&'static str>,
    status: &'static str,
    state: &'static str,
    linger_ns: u64,
    linger_at_least: bool,
    unread: Option<u32>,
    unsent: Option<u32>,
    holders: Vec<HolderField>,
    listener: Option<ListenerField>,
    ended: Option<EndedField>,
    same_owner: usize,
    summary: String,
}

#[derive(Serialize)]
struct ListenerField {
    local: Endpoint,
    holders: Vec<HolderField>,
    queue_len: u32,
    queue_limit: u32,
}

impl From<&Listener> for ListenerField {
    fn from(listener: &Listener) -> Self {
        Self {
            local: listener.local.into(),
            holders: listener.holders.iter().map(HolderField::from).collect(),
            queue_len: listener.queue_len,
            queue_limit: listener.queue_limit,
        }
    }
}

#[derive(Serialize)]
struct EndedField {
    how: &'static str,
    by: Option<ProcessField>,
}

impl From<Ending> for EndedField {
    fn from(ending: Ending) -> Self {
        Self { how: ending.cause.word(), by: ending.by.map(ProcessField::from) }
    }
}

impl FindingLine {
    fn new(clock: &ClockMark, finding: &Finding) -> Self {
        Self {
            r#type: "finding",
            ts: rfc3339(clock, finding.at),
            mono_ns: finding.at.0,
            identity: Identity::new(&finding.socket),
            verdict: finding.verdict.map(crate::core::finding::Verdict::word),
            status: finding.status.word(),
            state: finding.state.name(),
            linger_ns: finding.linger.0,
            linger_at_least: finding.at_least,
            unread: finding.socket.tcp.map(|tcp| tcp.unread),
            unsent: finding.socket.tcp.map(|tcp| tcp.unsent),
            holders: finding.holders.iter().map(HolderField::from).collect(),
            listener: finding.listener.as_ref().map(ListenerField::from),
            ended: finding.ending.map(EndedField::from),
            same_owner: finding.same_owner,
            summary: advice::summary(finding),
        }
    }
}

#[derive(Serialize)]
struct LostLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    count: u64,
    total: u64,
}

impl LostLine {
    fn new(clock: &ClockMark, lost: &Lost) -> Self {
        let ts = rfc3339(clock, lost.at);
        Self { r#type: "lost", ts, mono_ns: lost.at.0, count: lost.count, total: lost.total }
    }
}

#[derive(Serialize)]
struct SummaryLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    duration_ns: u64,
    transitions: u64,
    sockets: u64,
    entered: Counts<&'static str>,
    now: Counts<&'static str>,
    findings: u64,
    verdicts: Counts<&'static str>,
    unconfirmed: u64,
    ended: u64,
    owners: Vec<OwnerCount>,
    lost: u64,
    evicted: u64,
    unclaimed: u64,
}

#[derive(Serialize)]
struct OwnerCount {
    pid: Option<u32>,
    comm: Option<String>,
    findings: u64,
}

/// A map that keeps its order.
struct Counts<K>(Vec<(K, u64)>);

impl<K: Serialize> Serialize for Counts<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, count) in &self.0 {
            map.serialize_entry(key, count)?;
        }
        map.end()
    }
}

impl SummaryLine {
    fn new(clock: &ClockMark, summary: &Summary) -> Self {
        let states = |counts: &std::collections::BTreeMap<State, u64>| {
            Counts(counts.iter().map(|(state, &count)| (state.name(), count)).collect())
        };
        Self {
            r#type: "summary",
            ts: rfc3339(clock, summary.at),
            mono_ns: Timestamp::since(summary.at, Timestamp(0)).0,
            duration_ns: summary.duration.0,
            transitions: summary.transitions,
            sockets: summary.sockets,
            entered: states(&summary.entered),
            now: states(&summary.now),
            findings: summary.findings(),
            verdicts: Counts(
                summary.verdicts.iter().map(|(verdict, &count)| (verdict.word(), count)).collect(),
            ),
            unconfirmed: summary.unconfirmed,
            ended: summary.ended,
            owners: summary
                .owners
                .iter()
                .map(|(owner, &findings)| OwnerCount {
                    pid: owner.map(|process| process.pid),
                    comm: owner.map(|process| process.comm.to_string()),
                    findings,
                })
                .collect(),
            lost: summary.lost,
            evicted: summary.evicted,
            unclaimed: summary.unclaimed,
        }
    }
}
