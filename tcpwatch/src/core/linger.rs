//! Sockets that linger, and when to look at each again.
//!
//! A socket lingers in `CLOSE_WAIT`, or in `CLOSE` when the connection ended in a way that leaves
//! the fd open. When its deadline passes it is *due*; one pass confirms all that are due
//! together, and only then is a finding made. Nothing here reads a clock.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::{
    advice::processes,
    finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
    input::{Observation, Transition},
    listeners::{Known, Listeners},
    names::Names,
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
    /// It cannot have begun before this; `None` if that is not known.
    not_before: Option<Timestamp>,
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
    evidence: Evidence,
}

/// What is known beyond the socket, for a finding about it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who holds which listener.
    pub listeners: &'a Listeners,
    /// What processes said, and what namespaces are called.
    pub names: &'a Names,
    /// When the pass began.
    pub started: Timestamp,
}

impl Lingering {
    /// The process that a finding is about: who holds the socket, or the listener it waits at.
    fn process(&self, listeners: &Listeners) -> Option<u32> {
        let listening = || listeners.of(&self.socket)?.holder().map(|process| process.pid);
        match self.holders.first() {
            Some(_) => {
                let owner = self.socket.owner.map(|owner| owner.process.pid);
                let owner = owner.filter(|&pid| held_by(&self.holders, pid));
                owner.or_else(|| self.holders.first().map(|holder| holder.process.pid))
            }
            None if self.socket.has_file => None,
            None => listening(),
        }
    }

    /// The time of a finding about it: the deadline it passed, or when we learnt of it.
    fn stamp(&self) -> Timestamp {
        self.deadline.max(self.known_since)
    }
}

/// All sockets that linger.
#[derive(Debug, Default)]
pub struct LingerTable {
    threshold: Nanos,
    include_half_open: bool,
    /// Boxed: a table that grows moves pointers, not sockets.
    sockets: FxHashMap<SocketId, Box<Lingering>>,
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

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = SocketId> {
        self.sockets.keys().copied()
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
            let began = Began::at(transition.at);
            self.begin(id, transition.socket, State::CloseWait, transition.at, began);
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
            let began = Began::at(transition.at);
            self.begin(id, transition.socket, State::Close, transition.at, began);
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
        began: Began,
    ) {
        if self.sockets.contains_key(&id) {
            return;
        }
        let deadline = began.since + self.threshold;
        let opener = socket
            .owner
            .filter(|owner| matches!(owner.how, How::Connect | How::Accept))
            .map(|owner| owner.process);
        let entry = Lingering {
            expected_acked: socket.tcp.map(|tcp| tcp.bytes_acked + u64::from(tcp.unsent)),
            acked: socket.tcp.map(|tcp| tcp.bytes_acked),
            socket,
            state,
            since: began.since,
            at_least: began.at_least,
            not_before: began.not_before,
            opener,
            known_since,
            deadline,
            interval: self.threshold.max(Nanos::SECOND),
            due: deadline <= known_since,
            shown: None,
            seen: None,
            holders: Vec::new(),
            evidence: Evidence { opener, ..Evidence::default() },
        };
        if entry.due {
            self.due += 1;
        } else {
            self.deadlines.insert((deadline, id));
        }
        self.sockets.insert(id, Box::new(entry));
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
        entry.socket.owner = prefer(owner, observation.socket.owner);
        // A program that reads the error clears it; why the connection ended stays true.
        if entry.state == observation.state && entry.socket.error == 0 {
            entry.socket.error = error;
        }
        entry.state = observation.state;
        entry.holders.extend(observation.holder);
        entry.evidence.waiters = observation.waiters.or(entry.evidence.waiters);
        entry.evidence.activity = observation.activity;
        entry.evidence.send_window = observation.send_window;
        entry.evidence.details.clone_from(&observation.details);
    }

    /// The processes of what is due: who holds it, or the listener it waits at. Those of most
    /// sockets first.
    pub fn due_processes(&self, listeners: &Listeners) -> Vec<u32> {
        let mut counts: FxHashMap<u32, usize> = FxHashMap::default();
        for entry in self.sockets.values().filter(|entry| entry.due) {
            if let Some(pid) = entry.process(listeners) {
                *counts.entry(pid).or_default() += 1;
            }
        }
        let mut pids: Vec<_> = counts.into_iter().collect();
        pids.sort_unstable_by_key(|&(pid, count)| (std::cmp::Reverse(count), pid));
        pids.into_iter().map(|(pid, _)| pid).collect()
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
            .filter_map(|(stamp, id)| self.show(id, stamp, false, None))
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

    /// A pass is complete: decides about everything that was due in time, and hands what is to be
    /// shown to `show`.
    pub fn confirm(&mut self, context: &Context<'_>, mut show: impl FnMut(Finding)) {
        let started = context.started;
        for (stamp, id) in self.all_due() {
            let Some(entry) = self.sockets.get(&id) else { continue };
            match entry.seen {
                Some(seen) if seen >= started.max(stamp) => {
                    self.show(id, stamp, true, Some(context)).map(&mut show);
                }
                seen if stamp <= started && seen.is_none_or(|seen| seen < started) => {
                    self.end(id, started, gone_from(entry.state), None).map(&mut show);
                }
                // Due only since the pass has begun: the next one decides.
                _ => {}
            }
        }
        self.end_gone(started).into_iter().for_each(show);
    }

    /// Ends what a pass has not seen, though it is not due yet.
    fn end_gone(&mut self, started: Timestamp) -> Vec<Finding> {
        let mut gone: Vec<_> = self
            .sockets
            .iter()
            .filter(|(_, entry)| {
                entry.seen.is_some_and(|seen| seen < started) && entry.known_since < started
            })
            .map(|(&id, entry)| (id, entry.state))
            .collect();
        gone.sort_unstable_by_key(|&(id, _)| id);
        gone.into_iter()
            .filter_map(|(id, state)| self.end(id, started, gone_from(state), None))
            .collect()
    }

    /// Makes a finding and sets the next deadline.
    fn show(
        &mut self,
        id: SocketId,
        at: Timestamp,
        confirmed: bool,
        context: Option<&Context<'_>>,
    ) -> Option<Finding> {
        self.stop_timer(id);
        let entry = self.sockets.get_mut(&id)?;
        correct_owner(entry);
        let has_holder = !entry.holders.is_empty();
        let listener = context
            .filter(|_| !has_holder || entry.socket.role.is_none())
            .and_then(|context| context.listeners.of(&entry.socket));
        if let Some(context) = context {
            let pid = entry.process(context.listeners);
            let facts = pid.and_then(|pid| context.names.process(pid, context.started));
            entry.evidence.process = facts.cloned();
        }
        let verdict = confirmed.then(|| verdict(entry, context));
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
            at_most: entry.not_before.map(|begin| at.since(begin)),
            socket: entry.socket,
            holders: entry.holders.clone(),
            listener: listener.filter(|_| never_accepted).map(Known::describe),
            evidence: entry.evidence.clone(),
            netns_name: context.and_then(|context| context.names.namespace(entry.socket.netns)),
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
            at_most: entry.not_before.map(|begin| at.since(begin)),
            socket,
            holders: entry.holders,
            listener: None,
            evidence: entry.evidence,
            netns_name: None,
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

/// When a socket began to linger.
#[derive(Clone, Copy, Debug)]
struct Began {
    since: Timestamp,
    /// It may have been earlier,
    at_least: bool,
    /// but not before this.
    not_before: Option<Timestamp>,
}

impl Began {
    fn at(moment: Timestamp) -> Self {
        Self { since: moment, at_least: false, not_before: Some(moment) }
    }
}

/// When it began to linger, as far as that is known.
///
/// For a `CLOSE_WAIT` from before we looked: the peer's FIN carried the last ACK, so it is at
/// least as old as that (`net/ipv4/tcp_input.c`: `tcp_ack` sets `rcv_tstamp`). Later ACKs can only
/// answer something of ours; if nothing of ours is later, the age is exact. It is never older than
/// the last data, which came before the FIN (`tcp_event_data_recv`).
fn entered(observation: &Observation) -> Began {
    const SLACK: Nanos = Nanos(200_000_000);
    if let Some(entered) = observation.entered {
        return Began::at(entered);
    }
    let Some(activity) = observation.activity.filter(|_| observation.state == State::CloseWait)
    else {
        return Began { since: observation.at, at_least: true, not_before: None };
    };
    let unsent = observation.socket.tcp.is_none_or(|tcp| tcp.unsent > 0);
    let rtt = observation.socket.tcp.map_or(0, |tcp| u64::from(tcp.srtt_us) * 4_000);
    let quiet = activity.data_sent.0 > activity.ack_received.0.saturating_add(SLACK.0 + rtt);
    let exact = quiet && !unsent && !activity.keepalive;
    let since = observation.at - activity.ack_received;
    if exact {
        return Began::at(since);
    }
    let not_before = observation.at - activity.data_received.max(activity.ack_received);
    Began { since, at_least: true, not_before: Some(not_before) }
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
        (State::Close, Some(_), _) if transition.exiting => Cause::Exited,
        (State::Close, Some(_), _) => Cause::Aborted,
        (State::Close, None, ECONNABORTED) => Cause::Destroyed,
        (State::Close, None, ETIMEDOUT) => Cause::TimedOut,
        (State::Close, None, 0) => Cause::ListenerClosed,
        (State::Close, None, _) => Cause::Reset,
        _ if transition.exiting => Cause::Exited,
        _ => Cause::Closed,
    };
    Ending { cause, by: transition.actor }
}

/// How a socket ended that is not there any more.
fn gone_from(state: State) -> Ending {
    let cause = if state == State::Close { Cause::FdClosed } else { Cause::Gone };
    Ending { cause, by: None }
}

/// The verdict that the evidence of the last look supports.
fn verdict(entry: &Lingering, context: Option<&Context<'_>>) -> Verdict {
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
    if processes(&entry.holders) > 1 || stranger || holders_are_younger(entry, context) {
        return Verdict::Inherited;
    }
    match entry.socket.tcp {
        Some(tcp) if tcp.unread > 0 => Verdict::NotReading,
        _ => Verdict::NotClosed,
    }
}

/// Every holder was forked after the connection began to linger: none of them opened it.
fn holders_are_younger(entry: &Lingering, context: Option<&Context<'_>>) -> bool {
    // A process's start is known to a tick of the clock, 10 ms.
    const TICK: Nanos = Nanos(20_000_000);
    let Some(context) = context else { return false };
    !entry.holders.is_empty()
        && entry.holders.iter().all(|holder| {
            let facts = context.names.process(holder.process.pid, context.started);
            facts.and_then(|facts| facts.started).is_some_and(|at| at > entry.since + TICK)
        })
}

fn held_by(holders: &[Holder], pid: u32) -> bool {
    holders.iter().any(|holder| holder.process.pid == pid)
}

/// Which owner to keep when a look brings another: of several that were only found with an fd, the
/// first.
fn prefer(before: Option<Owner>, now: Option<Owner>) -> Option<Owner> {
    let found = |owner: &Owner| owner.how == How::Fd;
    match (before, now) {
        (Some(before), Some(now)) if found(&before) && found(&now) => Some(before),
        (before, now) => now.or(before),
    }
}

/// An owner that does not hold the socket gives way to one that does.
fn correct_owner(entry: &mut Lingering) {
    let owner_holds =
        entry.socket.owner.is_some_and(|owner| held_by(&entry.holders, owner.process.pid));
    if !owner_holds && let Some(holder) = entry.holders.first() {
        entry.socket.owner = Some(Owner { process: holder.process, how: How::Fd });
    }
}
