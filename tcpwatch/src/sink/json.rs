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
//!  "srtt_us":40,"retransmits":0,"error":0,"uncertain":false}
//! ```
//!
//! - `transition`: `lifetime_ns` only at `new` = `CLOSE`; `by` is the process that made the
//!   change, only where that is certain; counters are those of the moment before the change, and
//!   `null` for MPTCP, and as the kernel and `ss -i` have them: the peer's FIN counts as a byte received,
//!   the SYN of who connected as one acknowledged. `owner.how` is `connect`, `listen`, `accept`, `fd` or `listener`; the last
//!   means that the process holds the listener and a worker may have accepted the connection, or that nobody
//!   has (`never-accepted`): then it is the process that should, also if its beginning was not seen.
//! - `finding`: the identity fields of a transition and `verdict` (one of the eight, `null` when
//!   no pass could confirm it), `status` (`open`, `still`, `ended`), `state`, `linger_ns`,
//!   `linger_at_least` and `linger_at_most_ns` (a bound, where TCP's own times give one), `unread`,
//!   `unsent`, `role`, `holders` (`pid`, `comm`, `fd`), `listener` (for `never-accepted`: `local`,
//!   `holders`, of which the first `accepting` are known to accept connections there, `queue_len`,
//!   `queue_limit`, `waiters`), `ended` (`how`: `closed`, `exited`,
//!   `aborted`, `disconnected` (by the program, which keeps the fd), `reset`, `timed-out`, `destroyed`, `listener-closed`, `fd-closed`,
//!   `in-use`, `gone`; `by`),
//!   `same_owner` (open findings of this owner), `netns_name`, `inode`, `evidence`, `process` and
//!   `summary`, one sentence. `ts` is the deadline that passed (of `leaks` the last look), or the moment it ended;
//!   what a pass does not find any more ended when that began, so `ts` may be before the line above.
//!   - `evidence`: `waiters` (`waiting`: `nobody`, `epoll-level`, `epoll-edge`, `epoll-disarmed`,
//!     `epoll-not-reading`, `epoll-several`, `blocked` or `polled`; `epoll`, `blocked` and `polled` count them;
//!     `epoll_events` without `EPOLL`), `opener`, `server` (whose listener the connection came in
//!     through, if every holder was started later), the times since the last ACK and data (as of `ts`, 0 if
//!     they came after it; `null` if the last scan was more than 2 s before it), `keepalive`,
//!     `send_window` (what the peer takes), counters, `error` (an errno), and `tcp`: what `ss -i` and
//!     `ss -o` show (`congestion`, `timer`, and numbers under their names, `null` where the kernel
//!     has none).
//!   - `process` (who holds the socket, or the listener): `cgroup_path`, `container` (`id`,
//!     `runtime`, `pod_uid`, and what Kubernetes calls it: `namespace`, `pod`, `name`), `fds` in use and
//!     `fd_limit`, `stopped`, `frozen`, `threads` (`count`, `state`, `wait`: the kernel function),
//!     `threads_unseen`.
//! - `lost`: `count` more transitions are missing here, `total` so far; 0 if part of a recording is
//!   missing and nobody knows how many that were. `where` they were lost: in the `ring` between the
//!   kernel and us, in the `recording`, or at the `output`, as nobody read it; the last have a `total`
//!   of their own. A transition or finding with `uncertain` is of a socket some of whose transitions
//!   were lost before they reached us: its path has a gap, its times are still the kernel's.
//! - `culprit`: open findings that share owner, verdict, role and `end` (the remote end of clients,
//!   the local end of servers): `count`, `share` of all, `oldest_ns`, `p50_ns`, `p99_ns`,
//!   `at_least`, `growth_per_minute` (`null` unless it grows), `fds` in use and `fd_limit` of the
//!   process, `reaches_limit_in_ns`, `example` (the oldest's `socket`) and its `summary`. Live, when a
//!   group reaches ten, when it has doubled, while it grows once a minute, and at the end.
//! - `summary`: the last line. `entered` and `now` are counts per state, `verdicts` per verdict,
//!   `owners` a list of `pid`, `comm` and `findings` (of the first 1,024 owners). `lost` is without
//!   the `unshown`, which are among the `transitions` but were not shown, as nobody read the output.
//!   `unclaimed` transitions, with `--pid` or `run`, are not shown and are in no other count: nobody
//!   could tell whether a watched process had the socket.
//!   `unseen` lists what the scans could
//!   not see, so that no finding is no proof: `other-pid-namespaces` (what only processes outside this pid
//!   namespace hold) and `other-accept-queues` (long ones, in other network namespaces). `undecided` are
//!   sockets that may have lingered for long enough: TCP's times do not tell.

mod finding;

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use self::finding::FindingLine;
use super::{culprit::CulpritLine, rfc3339};
use crate::{
    core::{
        input::Transition,
        record::{Lost, Record, Summary},
        socket::{Owner, Process, Socket},
        state::State,
        time::{ClockMark, Timestamp},
    },
    sink::Sink,
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

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Sink for JsonSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(transition) => self.line(&TransitionLine::new(clock, transition)),
            Record::Finding(finding) => self.line(&FindingLine::new(clock, finding)),
            Record::Culprit(culprit) => self.line(&CulpritLine::new(clock, culprit)),
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
    uncertain: bool,
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
            uncertain: t.socket.uncertain,
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
    r#where: &'static str,
}

impl LostLine {
    fn new(clock: &ClockMark, lost: &Lost) -> Self {
        Self {
            r#type: "lost",
            ts: rfc3339(clock, lost.at),
            mono_ns: lost.at.0,
            count: lost.count,
            total: lost.total,
            r#where: lost.place.word(),
        }
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
    retracted: u64,
    undecided: u64,
    owners: Vec<OwnerCount>,
    lost: u64,
    unshown: u64,
    uncertain: u64,
    evicted: u64,
    unclaimed: u64,
    unseen: Vec<&'static str>,
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
            retracted: summary.retracted,
            undecided: summary.undecided,
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
            unshown: summary.unshown,
            uncertain: summary.uncertain,
            evicted: summary.evicted,
            unclaimed: summary.unclaimed,
            unseen: summary.unseen.iter().map(|unseen| unseen.word()).collect(),
        }
    }
}
