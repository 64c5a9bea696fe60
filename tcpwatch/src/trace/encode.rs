//! Inputs into the payload of a block.
//!
//! A socket's next record is expected to be as its last, and a new socket's first as the last first
//! of its kind; only what differs is written. What compresses best is what one does not write.

use std::{hash::Hash, net::IpAddr};

use rustc_hash::FxHashMap;

use super::{
    block::{BlockHeader, Kind, SNAPSHOT},
    codec::{self, Expected, FIRST, LOOK_COLUMNS, Look, LookRow, began_with, look, seen_in},
    facts,
    row::{self, Column, Numbers, Row, flag},
    wire,
};
use crate::core::{
    detail::TcpDetails,
    input::{Input, Observation, Scope, Transition},
    socket::{Process, SocketId},
    time::{ClockMark, Timestamp},
};

/// Fills one block after another.
#[derive(Default)]
pub struct Encoder {
    payload: Payload,
    expected: Expected,
    indexes: FxHashMap<SocketId, usize>,
    /// For records whose length comes first.
    scratch: Vec<u8>,
    last: u64,
    clock: ClockMark,
    inputs: u32,
    transitions: u32,
    lost: u32,
    snapshot: bool,
    span: Option<(u64, u64)>,
    before: u64,
}

/// A block that is full.
pub struct Sealed {
    /// Its header; lengths and sums are not known yet.
    pub header: BlockHeader,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Encoder {
    /// Begins at a time that is known.
    pub fn new(clock: ClockMark) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Takes one input.
    pub fn push(&mut self, input: &Input) {
        if self.inputs == 0 {
            self.begin();
        }
        let at = input.at().0;
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
        self.inputs += 1;
        match input {
            Input::Transition(transition) => self.transition(transition),
            Input::Observed(seen) => self.observed(seen),
            other => self.other(other),
        }
        self.last = at;
    }

    /// Bytes of the payload so far.
    pub fn len(&self) -> usize {
        self.payload.out.len()
    }

    /// Whether nothing was taken since the last block.
    pub fn is_empty(&self) -> bool {
        self.inputs == 0
    }

    /// Ends the block. `spare` is a payload that is not needed any more.
    pub fn seal(&mut self, spare: Vec<u8>) -> Sealed {
        let mut header = BlockHeader::new(Kind::Inputs);
        header.inputs = self.inputs.into();
        header.transitions = self.transitions.into();
        header.lost = self.lost.into();
        header.before = self.before.into();
        header.flags = if self.snapshot { SNAPSHOT } else { 0 }.into();
        let (first, last) = self.span.take().unwrap_or_default();
        (header.first_ns, header.last_ns) = (first.into(), last.into());
        header.wall_offset_ns = self.payload.wall_offset_ns.into();
        self.before += u64::from(self.transitions);
        (self.inputs, self.transitions, self.lost, self.snapshot) = (0, 0, 0, false);
        self.indexes.clear();
        self.expected = Expected::default();
        let payload = std::mem::replace(&mut self.payload, Payload::new(spare));
        Sealed { header, payload: payload.out }
    }

    /// Each block stands for itself: it begins with the clock that is in force.
    fn begin(&mut self) {
        let ClockMark { mono, boot, real_ns } = self.clock;
        for number in [mono.0, boot.0, real_ns] {
            wire::put(&mut self.payload.out, number);
        }
        self.payload.wall_offset_ns = real_ns.wrapping_sub(mono.0).cast_signed();
        self.last = mono.0;
    }

    /// The row that is expected of a socket, and its index if it is in the block.
    fn expect(&self, id: Option<SocketId>, kind: usize, at: Timestamp) -> (Row, Option<usize>) {
        let index = id.and_then(|id| self.indexes.get(&id).copied());
        let row = index.and_then(|index| self.expected.known(index)).copied();
        (row.unwrap_or_else(|| self.expected.first(kind, at.0)), index)
    }

    fn keep(
        &mut self,
        row: &Row,
        id: Option<SocketId>,
        kind: usize,
        index: Option<usize>,
    ) -> usize {
        if let Some(index) = index {
            self.expected.go_on(index, row);
            return index;
        }
        let index = self.expected.len();
        self.expected.begin(kind, row);
        if let Some(id) = id {
            self.indexes.insert(id, index);
        }
        index
    }

    fn transition(&mut self, t: &Transition) {
        self.transitions += 1;
        let (id, kind) = (t.socket.id, began_with(t.new));
        let (base, index) = self.expect(id, kind, t.at);
        let mut row = base;
        row::fill(&mut row, &t.socket, &mut self.payload);
        row[Column::Actor as usize] = self.payload.process(t.actor, base[Column::Actor as usize]);
        row[Column::State as usize] = t.old.number().into();
        row[Column::Flags as usize] |= if t.exiting { flag::EXITING } else { 0 };
        row[Column::Flags as usize] |= if t.disconnects { flag::DISCONNECTS } else { 0 };
        enter(&mut row, t.entered);
        let first = if index.is_none() { FIRST } else { 0 };
        let out = &mut self.payload.out;
        out.push(t.new.number() | first);
        wire::put_difference(out, t.at.0, self.last);
        if let Some(index) = index {
            wire::put(out, (self.expected.len() - 1 - index) as u64);
        }
        row::put_differences(out, &row, &base);
        let index = self.keep(&row, id, kind, index);
        self.expected.advance(index, t.new, t.at.0);
    }

    fn observed(&mut self, seen: &Observation) {
        let (id, kind) = (seen.socket.id, seen_in(seen.state));
        let (base, index) = self.expect(id, kind, seen.at);
        let mut row = base;
        row::fill(&mut row, &seen.socket, &mut self.payload);
        row[Column::State as usize] = seen.state.number().into();
        enter(&mut row, seen.entered);
        let looked = look_row(seen, &self.expected.look, &mut self.payload);
        let details = seen.details.as_ref().map(|details| numbers(details, &mut self.payload));
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        wire::put_difference(&mut body, seen.at.0, self.last);
        body.push(seen.state.number());
        wire::put(&mut body, index.map_or(0, |index| self.expected.len() - index) as u64);
        row::put_differences(&mut body, &row, &base);
        row::put_differences(&mut body, &looked, &self.expected.look);
        if let Some(details) = details {
            wire::put(&mut body, details.len() as u64);
            self.expected.details.resize(details.len(), 0);
            for (number, before) in details.iter().zip(&self.expected.details) {
                wire::put_difference(&mut body, *number, *before);
            }
            self.expected.details = details;
        }
        self.expected.look = looked;
        self.keep(&row, id, kind, index);
        self.payload.record(codec::OBSERVED, &body);
        self.scratch = body;
    }

    fn other(&mut self, input: &Input) {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        wire::put_difference(&mut body, input.at().0, self.last);
        let tag = match input {
            Input::Clock(mark) => {
                let since = |other: u64, mono: u64| other.wrapping_sub(mono);
                let (now, before) = (mark, self.clock);
                wire::put_difference(
                    &mut body,
                    since(now.boot.0, now.mono.0),
                    since(before.boot.0, before.mono.0),
                );
                wire::put_difference(
                    &mut body,
                    since(now.real_ns, now.mono.0),
                    since(before.real_ns, before.mono.0),
                );
                self.clock = *mark;
                codec::CLOCK
            }
            Input::PassBegin { scope, .. } => {
                self.snapshot |= *scope == Scope::Everything;
                body.push(match scope {
                    Scope::Everything => 0,
                    Scope::Lingering => 1,
                    Scope::Watched => 2,
                    Scope::Changes => 3,
                });
                codec::PASS_BEGIN
            }
            Input::PassEnd { .. } => codec::PASS_END,
            Input::Gone { id, .. } => {
                wire::put(&mut body, id.0);
                codec::GONE
            }
            Input::Unseen { what, .. } => {
                wire::put(&mut body, *what as u64);
                codec::UNSEEN
            }
            Input::PassFailed { .. } => codec::PASS_FAILED,
            Input::Lost { count, .. } => {
                wire::put(&mut body, *count);
                let more = u32::try_from(*count).unwrap_or(u32::MAX);
                self.lost = self.lost.saturating_add(more);
                codec::LOST
            }
            Input::Running { pid, .. } => {
                wire::put(&mut body, (*pid).into());
                codec::RUNNING
            }
            Input::Exited { pid, .. } => {
                wire::put(&mut body, (*pid).into());
                codec::EXITED
            }
            Input::Followed { pid, .. } => {
                wire::put(&mut body, (*pid).into());
                codec::FOLLOWED
            }
            Input::Process(process) => {
                body.extend(facts::to_json(process));
                codec::FACTS
            }
            Input::Namespace { inode, name, .. } => {
                wire::put(&mut body, (*inode).into());
                wire::put_bytes(&mut body, name.as_deref().unwrap_or_default().as_bytes());
                codec::NAMESPACE
            }
            Input::End { .. } => codec::END,
            // Those two have been written by then; and what is missing, the headers tell.
            Input::Transition(_) | Input::Observed(_) | Input::Gap { .. } => return,
        };
        self.payload.record(tag, &body);
        self.scratch = body;
    }
}

fn enter(row: &mut Row, entered: Option<Timestamp>) {
    if let Some(at) = entered {
        row[Column::Entered as usize] = at.0;
        row[Column::Flags as usize] |= flag::ENTERED;
    }
}

fn look_row(seen: &Observation, base: &LookRow, payload: &mut Payload) -> LookRow {
    let mut row = *base;
    let mut flags = 0;
    let holder = seen.holder.map(|holder| holder.process);
    row[Look::Holder as usize] = payload.process(holder, base[Look::Holder as usize]);
    if let Some(holder) = seen.holder {
        row[Look::Fd as usize] = holder.fd.into();
    }
    row[Look::QueueLen as usize] = seen.queue.0.into();
    row[Look::QueueLimit as usize] = seen.queue.1.into();
    if let Some(activity) = seen.activity {
        flags |= look::ACTIVITY;
        flags |= if activity.keepalive { look::KEEPALIVE } else { 0 };
        flags |= if activity.quiet_since_fin { look::QUIET_SINCE_FIN } else { 0 };
        row[Look::AckReceived as usize] = activity.ack_received.0;
        row[Look::DataReceived as usize] = activity.data_received.0;
        row[Look::DataSent as usize] = activity.data_sent.0;
    }
    if let Some(waiters) = seen.waiters {
        flags |= look::WAITERS;
        row[Look::Epoll as usize] = waiters.epoll.into();
        row[Look::EpollEvents as usize] = waiters.epoll_events.into();
        row[Look::Blocked as usize] = waiters.blocked.into();
        row[Look::Polled as usize] = waiters.polled.into();
        if let Some(pid) = waiters.blocked_pid {
            flags |= look::BLOCKED_PID;
            row[Look::BlockedPid as usize] = pid.into();
        }
    }
    if let Some(window) = seen.send_window {
        flags |= look::SEND_WINDOW;
        row[Look::SendWindow as usize] = window.into();
    }
    flags |= if seen.details.is_some() { look::DETAILS } else { 0 };
    row[Look::Flags as usize] = flags;
    const { assert!(LOOK_COLUMNS <= 64) };
    row
}

/// Details as numbers: [`codec::DETAILS_FIXED`], then pairs of name and value.
fn numbers(details: &TcpDetails, payload: &mut Payload) -> Vec<u64> {
    let mut row = Vec::with_capacity(codec::DETAILS_FIXED + 2 * details.numbers.len());
    let timer = details.timer;
    row.push(payload.text(details.congestion.bytes()));
    row.push(timer.map_or(0, |timer| 1 + payload.text(timer.kind.as_bytes())));
    row.push(timer.map_or(0, |timer| timer.expires_in.0));
    row.push(timer.map_or(0, |timer| timer.retries));
    for (name, value) in &details.numbers {
        row.push(payload.text(name.as_bytes()));
        row.push(value.map_or(0, |value| value.saturating_add(1)));
    }
    row
}

/// The bytes of a block, and what was defined in it.
#[derive(Default)]
struct Payload {
    out: Vec<u8>,
    addresses: Dictionary<IpAddr>,
    processes: Dictionary<Process>,
    texts: Dictionary<Vec<u8>>,
    wall_offset_ns: i64,
}

impl Payload {
    fn new(mut out: Vec<u8>) -> Self {
        out.clear();
        Self { out, ..Self::default() }
    }

    fn record(&mut self, tag: u8, body: &[u8]) {
        self.out.push(tag);
        wire::put_bytes(&mut self.out, body);
    }

    fn text(&mut self, text: &[u8]) -> u64 {
        let (number, new) = self.texts.number(text.to_vec());
        if new {
            self.record(codec::TEXT, text);
        }
        number
    }
}

impl Numbers for Payload {
    fn address(&mut self, ip: IpAddr, likely: u64) -> u64 {
        if self.addresses.is(likely, &ip) {
            return likely;
        }
        let (number, new) = self.addresses.number(ip);
        if new {
            match ip {
                IpAddr::V4(ip) => self.record(codec::ADDRESS, &ip.octets()),
                IpAddr::V6(ip) => self.record(codec::ADDRESS, &ip.octets()),
            }
        }
        number
    }

    fn process(&mut self, process: Option<Process>, likely: u64) -> u64 {
        let Some(process) = process else { return 0 };
        if likely.checked_sub(1).is_some_and(|likely| self.processes.is(likely, &process)) {
            return likely;
        }
        let (number, new) = self.processes.number(process);
        if new {
            let mut body = Vec::with_capacity(24);
            wire::put(&mut body, process.pid.into());
            body.extend_from_slice(process.comm.bytes());
            self.record(codec::PROCESS, &body);
        }
        number + 1
    }
}

/// Numbers things in the order in which they come.
struct Dictionary<T> {
    list: Vec<T>,
    numbers: FxHashMap<T, u64>,
}

impl<T> Default for Dictionary<T> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: FxHashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Dictionary<T> {
    fn is(&self, number: u64, thing: &T) -> bool {
        usize::try_from(number).ok().and_then(|number| self.list.get(number)) == Some(thing)
    }

    /// Its number, and whether it is new.
    fn number(&mut self, thing: T) -> (u64, bool) {
        let next = self.list.len() as u64;
        let number = *self.numbers.entry(thing.clone()).or_insert(next);
        if number == next {
            self.list.push(thing);
        }
        (number, number == next)
    }
}
