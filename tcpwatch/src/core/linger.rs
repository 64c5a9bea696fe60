//! Sockets that linger, and when to look at each again.
//!
//! A socket lingers in `CLOSE_WAIT`, or in `CLOSE` when the connection ended in a way that leaves
//! the fd open. When its deadline passes it is *due*; one pass confirms all that are due
//! together, and only then is a finding made. Nothing here reads a clock.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::{
    advice::processes,
    finding::{Cause, Ending, Finding, Status, Verdict},
    input::{Observation, Transition},
    listeners::{Known, Listeners},
    socket::{Holder, How, Owner, Process, Role, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
};

/// The longest interval between two `still`.
const LONGEST_INTERVAL: Nanos = Nanos(3_600_000_000_000);

/// What the user was told last.
#[derive(Clone, Copy, Debug)]
struct Shown {
    verdict: Option<Verdict>,
    owner: Option<Process>,
}

/// One lingering socket.
#[derive(Clone, Debug)]
struct Lingering {
    socket: Socket,
    state: State,
    since: Timestamp,
    at_least: bool,
    /// The process that opened it (connect or accept), as the transitions said.
    opener: Option<Process>,
    /// Bytes that would be acknowledged without anything new being sent, as of the last look.
    expected_acked: Option<u64>,
    /// Bytes acknowledged as of the last look.
    acked: Option<u64>,
    /// When we learnt that it lingers, which may be long after it began.
    known_since: Timestamp,
    deadline: Timestamp,
    interval: Nanos,
    due: bool,
    shown: Option<Shown>,
    /// The last look, and whom its pass saw holding the socket.
    seen: Option<Timestamp>,
    holders: Vec<Holder>,
}

impl Lingering {
    /// The time of a finding about it: the deadline it passed, or when we learnt of it.
    fn stamp(&self) -> Timestamp {
        self.deadline.max(self.known_since)
    }
}

/// All sockets that linger.
#[derive(Debug)]
pub struct LingerTable {
    threshold: Nanos,
    include_half_open: bool,
    sockets: FxHashMap<SocketId, Lingering>,
    deadlines: BTreeSet<(Timestamp, SocketId)>,
    due: usize,
    open_by_owner: FxHashMap<Option<Process>, usize>,
}

impl LingerTable {
    /// A table in which a socket is due after `threshold`. Deliberate half-closes are looked at
    /// again but make no findings, unless `include_half_open`.
    pub fn new(threshold: Nanos, include_half_open: bool) -> Self {
        Self {
            threshold,
            include_half_open,
            sockets: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            due: 0,
            open_by_owner: FxHashMap::default(),
        }
    }

    /// Whether some are due and wait for a pass.
    pub fn wants_pass(&self) -> bool {
        self.due > 0
    }

    /// When [`Self::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Applies a transition: lingering begins, changes its state, or ends.
    pub fn apply(&mut self, transition: &Transition) -> Option<Finding> {
        let id = transition.socket.id?;
        if transition.new == State::CloseWait {
            self.begin(
                id,
                transition.socket,
                State::CloseWait,
                transition.at,
                (transition.at, false),
            );
            return None;
        }
        let leaves = transition.old == State::CloseWait;
        if leaves_fd_open(transition) {
            if leaves && let Some(entry) = self.sockets.get_mut(&id) {
                entry.state = State::Close;
                let owner = entry.socket.owner;
                entry.socket = transition.socket;
                entry.socket.owner = entry.socket.owner.or(owner);
                if entry.shown.is_some() {
                    self.reschedule(id, transition.at);
                }
                return None;
            }
            self.begin(id, transition.socket, State::Close, transition.at, (transition.at, false));
            return None;
        }
        if leaves {
            return self.end(id, transition.at, ending(transition), Some(&transition.socket));
        }
        None
    }

    /// Takes in a socket, unless it lingers already: its first moment counts.
    fn begin(
        &mut self,
        id: SocketId,
        socket: Socket,
        state: State,
        known_since: Timestamp,
        (since, at_least): (Timestamp, bool),
    ) {
        if self.sockets.contains_key(&id) {
            return;
        }
        let deadline = since + self.threshold;
        let opener = socket
            .owner
            .filter(|owner| matches!(owner.how, How::Connect | How::Accept))
            .map(|owner| owner.process);
        let entry = Lingering {
            expected_acked: socket.tcp.map(|tcp| tcp.bytes_acked + u64::from(tcp.unsent)),
            acked: socket.tcp.map(|tcp| tcp.bytes_acked),
            socket,
            state,
            since,
            at_least,
            opener,
            known_since,
            deadline,
            interval: self.threshold.max(Nanos::SECOND),
            due: false,
            shown: None,
            seen: None,
            holders: Vec::new(),
        };
        self.sockets.insert(id, entry);
        self.deadlines.insert((deadline, id));
    }

    /// Makes the socket due at `at`.
    fn reschedule(&mut self, id: SocketId, at: Timestamp) {
        self.stop_timer(id);
        let Some(entry) = self.sockets.get_mut(&id) else { return };
        entry.deadline = at;
        self.deadlines.insert((at, id));
    }

    fn stop_timer(&mut self, id: SocketId) {
        if let Some(entry) = self.sockets.get_mut(&id) {
            self.deadlines.remove(&(entry.deadline, id));
            self.due -= usize::from(std::mem::take(&mut entry.due));
        }
    }

    /// Notes one look. A socket that lingers already when first seen is taken in.
    pub fn observe(&mut self, observation: &Observation, pass_started: Timestamp) {
        let Some(id) = observation.socket.id else { return };
        let lingers = observation.state == State::CloseWait
            || observation.state == State::Close && is_dead(observation);
        if !lingers {
            return;
        }
        let began = entered(observation);
        self.begin(id, observation.socket, observation.state, observation.at, began);
        let Some(entry) = self.sockets.get_mut(&id) else { return };
        if entry.seen.is_none_or(|seen| seen < pass_started) {
            entry.holders.clear();
        }
        entry.seen = Some(observation.at);
        let (owner, error) = (entry.socket.owner, entry.socket.error);
        entry.socket = observation.socket;
        entry.socket.owner = entry.socket.owner.or(owner);
        // A program that reads the error clears it; why the connection ended stays true.
        if entry.state == observation.state && entry.socket.error == 0 {
            entry.socket.error = error;
        }
        entry.state = observation.state;
        entry.holders.extend(observation.holder);
    }

    /// Moves time on: what has passed its deadline becomes due, and waits for a pass.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.sockets.get_mut(&id) {
                entry.due = true;
                self.due += 1;
            }
        }
    }

    /// There will be no pass: shows what is due without confirmation.
    pub fn give_up(&mut self) -> Vec<Finding> {
        self.all_due()
            .into_iter()
            .filter_map(|(stamp, id)| self.show(id, stamp, None, None))
            .collect()
    }

    /// What is due, in the order of its time.
    fn all_due(&self) -> Vec<(Timestamp, SocketId)> {
        let mut due: Vec<_> = self
            .sockets
            .iter()
            .filter(|(_, entry)| entry.due)
            .map(|(&id, entry)| (entry.stamp(), id))
            .collect();
        due.sort_unstable();
        due
    }

    /// A pass is complete: decides about everything that was due in time.
    pub fn confirm(&mut self, started: Timestamp, listeners: &Listeners) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (stamp, id) in self.all_due() {
            let Some(entry) = self.sockets.get(&id) else { continue };
            match entry.seen {
                Some(seen) if seen >= started.max(stamp) => {
                    let verdict = verdict(entry);
                    findings.extend(self.show(id, stamp, Some(verdict), Some(listeners)));
                }
                seen if stamp <= started && seen.is_none_or(|seen| seen < started) => {
                    let dead = entry.state == State::Close;
                    let cause = if dead { Cause::FdClosed } else { Cause::Gone };
                    findings.extend(self.end(id, started, Ending { cause, by: None }, None));
                }
                // Due only since the pass has begun: the next one decides.
                _ => {}
            }
        }
        findings
    }

    /// Makes a finding and sets the next deadline.
    fn show(
        &mut self,
        id: SocketId,
        at: Timestamp,
        verdict: Option<Verdict>,
        listeners: Option<&Listeners>,
    ) -> Option<Finding> {
        self.stop_timer(id);
        let entry = self.sockets.get_mut(&id)?;
        correct_owner(entry);
        let listener = listeners.and_then(|listeners| listeners.of(&entry.socket));
        if entry.socket.role.is_none() && listener.is_some() {
            entry.socket.role = Some(Role::Server);
        }
        entry.expected_acked = entry.socket.tcp.map(|tcp| tcp.bytes_acked + u64::from(tcp.unsent));
        entry.acked = entry.socket.tcp.map(|tcp| tcp.bytes_acked);
        entry.deadline = at + entry.interval;
        self.deadlines.insert((entry.deadline, id));
        let in_use = verdict == Some(Verdict::HalfOpenInUse);
        if in_use && !self.include_half_open && entry.shown.is_none() {
            return None;
        }
        entry.interval = entry.interval.doubled().min(LONGEST_INTERVAL);
        let owner = entry.socket.owner.map(|owner| owner.process);
        let before = entry.shown.replace(Shown { verdict, owner });
        if let Some(before) = before {
            leave(&mut self.open_by_owner, before.owner);
        }
        let same_owner = self.open_by_owner.entry(owner).or_default();
        *same_owner += 1;
        let never_accepted = verdict == Some(Verdict::NeverAccepted);
        Some(Finding {
            at,
            status: if before.is_none() { Status::Open } else { Status::Still },
            verdict,
            state: entry.state,
            linger: at.since(entry.since),
            at_least: entry.at_least,
            socket: entry.socket,
            holders: entry.holders.clone(),
            listener: listener.filter(|_| never_accepted).map(Known::describe),
            ending: None,
            same_owner: *same_owner,
        })
    }

    fn end(
        &mut self,
        id: SocketId,
        at: Timestamp,
        ending: Ending,
        last: Option<&Socket>,
    ) -> Option<Finding> {
        self.stop_timer(id);
        let entry = self.sockets.remove(&id)?;
        let Shown { verdict, owner } = entry.shown?;
        let mut socket = last.copied().unwrap_or(entry.socket);
        socket.owner = entry.socket.owner;
        let same_owner = leave(&mut self.open_by_owner, owner);
        Some(Finding {
            at,
            status: Status::Ended,
            verdict,
            state: entry.state,
            linger: at.since(entry.since),
            at_least: entry.at_least,
            socket,
            holders: entry.holders,
            listener: None,
            ending: Some(ending),
            same_owner,
        })
    }
}

/// Takes one from an owner's count of open findings; returns what is left.
fn leave(counts: &mut FxHashMap<Option<Process>, usize>, owner: Option<Process>) -> usize {
    let left = counts.get(&owner).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        counts.remove(&owner);
    } else {
        counts.insert(owner, left);
    }
    left
}

/// When it began to linger, and whether that may have been earlier.
///
/// For a `CLOSE_WAIT` from before we looked: the peer's FIN carried the last ACK, so it is at
/// least as old as that (`net/ipv4/tcp_input.c`: `tcp_ack` sets `rcv_tstamp`). Later ACKs can only
/// answer something of ours; if nothing of ours is later, the age is exact.
fn entered(observation: &Observation) -> (Timestamp, bool) {
    const SLACK: Nanos = Nanos(200_000_000);
    if let Some(entered) = observation.entered {
        return (entered, false);
    }
    let Some(activity) = observation.activity.filter(|_| observation.state == State::CloseWait)
    else {
        return (observation.at, true);
    };
    let unsent = observation.socket.tcp.is_none_or(|tcp| tcp.unsent > 0);
    let rtt = observation.socket.tcp.map_or(0, |tcp| u64::from(tcp.srtt_us) * 4_000);
    let quiet = activity.data_sent.0 > activity.ack_received.0.saturating_add(SLACK.0 + rtt);
    let exact = quiet && !unsent && !activity.keepalive;
    (observation.at - activity.ack_received, !exact)
}

/// A dead socket that an iterator finds: closed, with an fd, and once connected, since only a
/// handshake or data yields a round-trip time.
fn is_dead(observation: &Observation) -> bool {
    observation.holder.is_some() && observation.socket.tcp.is_some_and(|tcp| tcp.srtt_us > 0)
}

/// The change leaves a file descriptor behind on a socket without a connection.
pub fn leaves_fd_open(transition: &Transition) -> bool {
    transition.new == State::Close
        && transition.socket.has_file
        && transition.actor.is_none()
        && !matches!(transition.old, State::SynSent | State::SynRecv | State::Listen | State::Close)
}

/// How `CLOSE_WAIT` ended, from what was so at that moment.
fn ending(transition: &Transition) -> Ending {
    const ECONNABORTED: u32 = 103;
    const ETIMEDOUT: u32 = 110;
    let cause = match (transition.new, transition.actor, transition.socket.error) {
        (State::Close, Some(_), _) => Cause::Aborted,
        (State::Close, None, ECONNABORTED) => Cause::Destroyed,
        (State::Close, None, ETIMEDOUT) => Cause::TimedOut,
        (State::Close, None, 0) => Cause::ListenerClosed,
        (State::Close, None, _) => Cause::Reset,
        _ => Cause::Closed,
    };
    Ending { cause, by: transition.actor }
}

/// The verdict that the evidence of the last look supports.
fn verdict(entry: &Lingering) -> Verdict {
    if entry.state == State::Close {
        return Verdict::DeadFd;
    }
    if entry.holders.is_empty() && !entry.socket.has_file {
        return Verdict::NeverAccepted;
    }
    if let Some(tcp) = entry.socket.tcp {
        let sent_more = entry.expected_acked.is_some_and(|expected| tcp.bytes_acked > expected);
        let takes = entry.acked.is_some_and(|acked| tcp.bytes_acked > acked);
        if sent_more || tcp.unsent > 0 && takes {
            return Verdict::HalfOpenInUse;
        }
        if tcp.unsent > 0 {
            return Verdict::WriteBlocked;
        }
    }
    let stranger = entry
        .opener
        .is_some_and(|opener| !entry.holders.is_empty() && !held_by(&entry.holders, opener.pid));
    if processes(&entry.holders) > 1 || stranger {
        return Verdict::Inherited;
    }
    match entry.socket.tcp {
        Some(tcp) if tcp.unread > 0 => Verdict::NotReading,
        _ => Verdict::NotClosed,
    }
}

fn held_by(holders: &[Holder], pid: u32) -> bool {
    holders.iter().any(|holder| holder.process.pid == pid)
}

/// An owner that does not hold the socket gives way to one that does.
fn correct_owner(entry: &mut Lingering) {
    let owner_holds =
        entry.socket.owner.is_some_and(|owner| held_by(&entry.holders, owner.process.pid));
    if !owner_holds && let Some(holder) = entry.holders.first() {
        entry.socket.owner = Some(Owner { process: holder.process, how: How::Fd });
    }
}
