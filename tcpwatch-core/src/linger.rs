//! Sockets that linger, and when to look at each again.
//!
//! A socket lingers in `CLOSE_WAIT`, or in `CLOSE` when the connection ended in a way that leaves
//! the fd open. When its deadline passes it is *due*; one pass confirms all that are due
//! together, and only then is a finding made. Nothing here reads a clock.

use std::{collections::BTreeSet, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
    holders::Holders,
    input::{Observation, Scope, Transition},
    lingering::{Context, Lingering, Shown},
    listeners::{Known, Listeners},
    socket::{Holder, How, Owner, Process, Role, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
    tracker::Rules,
    verdict::{
        Began, correct_owner, ending, entered, has_file, is_dead, leaves_fd_open, prefer, verdict,
    },
};

/// The longest interval between two `still`.
const LONGEST_INTERVAL: Nanos = Nanos(3_600_000_000_000);

/// Sockets that may linger at once, about 800 bytes each: more than a host can have, but not more
/// than a forged recording.
const MOST_LINGERING: usize = 1 << 20;

/// All sockets that linger.
#[derive(Debug, Default)]
pub struct LingerTable {
    threshold: Nanos,
    include_half_open: bool,
    hides_holders: bool,
    /// Boxed: a table that grows moves pointers, not sockets.
    sockets: FxHashMap<SocketId, Box<Lingering>>,
    deadlines: BTreeSet<(Timestamp, SocketId)>,
    due: usize,
    open_by_owner: FxHashMap<Option<Process>, usize>,
    /// Sockets that the present scan did not find any more.
    gone: FxHashSet<SocketId>,
    /// Part of the inputs before this is missing: what was observed earlier may have changed.
    doubted: Timestamp,
    /// Sockets that found no room.
    pub overflowed: u64,
}

impl LingerTable {
    /// A table in which a socket is due as the rules say. Deliberate half-closes are looked at again
    /// but make no findings, unless the rules include them.
    pub fn new(rules: &Rules) -> Self {
        Self {
            threshold: rules.linger,
            include_half_open: rules.include_half_open,
            hides_holders: rules.filter.hides_holders,
            sockets: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            due: 0,
            open_by_owner: FxHashMap::default(),
            gone: FxHashSet::default(),
            doubted: Timestamp::default(),
            overflowed: 0,
        }
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = SocketId> {
        self.sockets.keys().copied()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether one of them is in this network namespace.
    pub fn has_any_in(&self, netns: u32) -> bool {
        self.sockets.values().any(|entry| entry.socket.netns == netns)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether one of them is due and waits for a pass.
    pub fn is_due(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|entry| entry.due)
    }

    /// Notes that a scan did not find a socket any more.
    pub fn gone(&mut self, id: SocketId) {
        self.gone.insert(id);
    }

    /// Part of the inputs before `at` is missing.
    pub fn doubt(&mut self, at: Timestamp) {
        self.doubted = at;
    }

    /// How many of those that are `wanted` are not due, but may have lingered for long enough: their age
    /// is not known well enough.
    pub fn undecided(&self, now: Timestamp, wanted: impl Fn(&Socket, &[Holder]) -> bool) -> usize {
        let old_enough = |begin: Timestamp| now.since(begin) >= self.threshold;
        let undecided = |entry: &Lingering| {
            entry.shown.is_none()
                && !entry.due
                && entry.at_least
                && entry.not_before.is_some_and(old_enough)
                && wanted(&entry.socket, &entry.holders)
        };
        self.sockets.values().filter(|entry| undecided(entry)).count()
    }

    /// Those of which nobody knows which side connected.
    pub fn without_role(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.values().map(|entry| &entry.socket).filter(|socket| socket.role.is_none())
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
                entry.died = Some(transition.at);
                let owner = entry.socket.owner;
                entry.socket = transition.socket;
                entry.socket.owner = entry.socket.owner.or(owner);
                // A program that sees the error usually closes at once: then it was only reset.
                let soon = self.threshold.min(Nanos::SECOND);
                if entry.shown.is_some() {
                    self.reschedule(id, transition.at + soon);
                } else {
                    let deadline = entry.deadline.max(transition.at + soon);
                    self.reschedule(id, deadline);
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
        if self.sockets.len() >= MOST_LINGERING {
            self.overflowed += 1;
            return;
        }
        let deadline = began.since + self.threshold;
        let by = |how| socket.owner.filter(|owner| owner.how == how).map(|owner| owner.process);
        let connected = by(How::Connect);
        let opener = connected.or_else(|| by(How::Accept));
        let entry = Lingering {
            expected_acked: socket.tcp.map(|tcp| tcp.bytes_acked.saturating_add(tcp.unsent.into())),
            acked: socket.tcp.map(|tcp| tcp.bytes_acked),
            socket,
            state,
            since: began.since,
            at_least: began.at_least,
            not_before: began.not_before,
            died: None,
            connected,
            known_since,
            deadline,
            interval: self.threshold.max(Nanos::SECOND),
            due: deadline <= known_since,
            shown: None,
            seen: None,
            holders: Holders::default(),
            was_unheld: false,
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
        // Of one that was seen to die it need not show that it was connected: of MPTCP nothing does.
        let died = || self.sockets.get(&id).is_some_and(|entry| entry.died.is_some());
        let lingers = match observation.state {
            State::CloseWait => true,
            State::Close => is_dead(observation) || has_file(observation) && died(),
            _ => false,
        };
        if !lingers {
            return;
        }
        let began = entered(observation);
        self.begin(id, observation.socket, observation.state, observation.at, began);
        let Some(entry) = self.sockets.get_mut(&id) else { return };
        if entry.seen.is_none_or(|seen| seen < pass_started) {
            entry.was_unheld = entry.seen.is_some() && entry.is_unheld();
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
        // The kernel lists the files of a process whose main thread has ended once per thread.
        if let Some(holder) = observation.holder {
            entry.holders.insert(holder);
        }
        entry.evidence.waiters = observation.waiters.or(entry.evidence.waiters);
        entry.evidence.seen = observation.at;
        entry.evidence.activity = observation.activity;
        entry.evidence.send_window = observation.send_window;
        entry.evidence.details.clone_from(&observation.details);
    }

    /// The processes of what is due: who holds it, or the listener it waits at. Those of most
    /// sockets first.
    pub fn due_processes(&self, listeners: &Listeners) -> Vec<u32> {
        let mut counts: FxHashMap<u32, usize> = FxHashMap::default();
        for entry in self.sockets.values().filter(|entry| entry.due) {
            for pid in entry.processes(listeners) {
                *counts.entry(pid).or_default() += 1;
            }
        }
        let mut pids: Vec<_> = counts.into_iter().collect();
        pids.sort_unstable_by_key(|&(pid, count)| (std::cmp::Reverse(count), pid));
        pids.into_iter().map(|(pid, _)| pid).collect()
    }

    /// Connections that nobody has accepted for long, at listeners of which it is not known who
    /// accepts.
    pub fn without_acceptors(&self, listeners: &Listeners) -> impl Iterator<Item = &Socket> {
        self.sockets.values().filter(|entry| entry.due).map(|entry| &entry.socket).filter(
            |socket| !socket.has_file && listeners.of(socket).is_some_and(Known::wants_acceptors),
        )
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

    /// There will be no pass for what was due by `until`: shows it without confirmation, once. Whether
    /// a connection that is gone still has an fd only a pass can tell.
    pub fn give_up(&mut self, until: Timestamp) -> Vec<Finding> {
        let mut due = self.all_due();
        due.retain(|&(stamp, id)| {
            let entry = self.sockets.get(&id);
            stamp <= until
                && entry.is_some_and(|entry| entry.shown.is_none() && entry.state != State::Close)
        });
        due.into_iter().filter_map(|(stamp, id)| self.show(id, stamp, false, None)).collect()
    }

    /// Everything that is open, as it stands at a moment, for who begins to look only then.
    pub fn open_at(&self, at: Timestamp) -> Vec<Finding> {
        let mut open: Vec<_> = self
            .sockets
            .values()
            .filter_map(|entry| {
                let Shown { verdict, owner, .. } = entry.shown?;
                let same_owner = self.open_by_owner.get(&owner).copied().unwrap_or(1);
                Some(Finding { same_owner, ..entry.finding(at, Status::Still, verdict) })
            })
            .collect();
        open.sort_unstable_by_key(|finding| finding.socket.id);
        open
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
            let unchanged =
                context.scope == Scope::Changes && !self.gone.contains(&id) && entry.was_seen_so();
            match entry.seen {
                Some(seen) if seen >= started.max(stamp) && !entry.is_in_doubt() => {
                    self.show(id, stamp, true, Some(context)).map(&mut show);
                }
                // After a gap in a recording only a scan of everything can tell.
                Some(seen) if unchanged && seen < self.doubted => {}
                Some(seen) if unchanged && seen < started && stamp <= started => {
                    if let Some(entry) = self.sockets.get_mut(&id) {
                        entry.evidence.stands(started);
                    }
                    self.show(id, stamp, true, Some(context)).map(&mut show);
                }
                seen if stamp <= started && seen.is_none_or(|seen| seen < started) => {
                    let ending = entry.gone();
                    self.end(id, started, ending, None).map(&mut show);
                }
                // Due only since the pass has begun: the next one decides.
                _ => {}
            }
        }
        self.end_gone(context).into_iter().for_each(show);
        self.gone.clear();
    }

    /// Ends what a pass has not seen, though it is not due yet.
    fn end_gone(&mut self, scan: &Context<'_>) -> Vec<Finding> {
        let mut gone: Vec<_> = self
            .sockets
            .iter()
            .filter(|&(id, entry)| entry.is_gone(scan, self.gone.contains(id)))
            .map(|(&id, entry)| (id, entry.gone()))
            .collect();
        gone.sort_unstable_by_key(|&(id, _)| id);
        gone.into_iter()
            .filter_map(|(id, ending)| self.end(id, scan.started, ending, None))
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
        if let Some(context) = context {
            entry.forget_passing_holders(context);
        }
        correct_owner(&mut entry.socket, &entry.holders);
        let has_holder = !entry.holders.is_empty();
        let listener = context
            .filter(|_| !has_holder || entry.socket.role.is_none())
            .and_then(|context| context.listeners.of(&entry.socket));
        if let Some(context) = context {
            let facts = entry
                .processes(context.listeners)
                .filter_map(|pid| context.names.process(pid, context.started));
            let (mut first, mut asked, mut halted) = (None, 0, 0);
            for facts in facts {
                first = first.or(Some(facts));
                asked += 1;
                halted += usize::from(facts.halted().is_some());
            }
            let first = first.map(Arc::clone);
            entry.evidence.process = first;
            (entry.evidence.asked, entry.evidence.halted) = (asked, halted);
            entry.evidence.server = entry.server_before(context);
            if !has_holder {
                let waits = listener.filter(|_| !entry.socket.has_file);
                entry.socket.owner = match waits.and_then(Known::answerable) {
                    Some(process) => Some(Owner { process, how: How::Listener }),
                    None => context.listeners.settle(&entry.socket),
                };
            }
        }
        // Where holders are hidden, none that was found says nothing.
        let confirmed = confirmed && !(self.hides_holders && entry.is_unheld());
        let verdict = confirmed.then(|| verdict(&entry.facts(context)));
        let never_accepted = verdict == Some(Verdict::NeverAccepted);
        let listening = listener.filter(|_| never_accepted).map(Known::describe);
        if entry.socket.role.is_none() && listener.is_some() {
            entry.socket.role = Some(Role::Server);
        }
        entry.expected_acked =
            entry.socket.tcp.map(|tcp| tcp.bytes_acked.saturating_add(tcp.unsent.into()));
        entry.acked = entry.socket.tcp.map(|tcp| tcp.bytes_acked);
        entry.deadline = at + entry.interval;
        let in_use = verdict == Some(Verdict::HalfOpenInUse);
        if in_use && let Some(seen) = entry.seen {
            // Progress takes time: after a look that came late the next must not come at once.
            entry.deadline = entry.deadline.max(seen + Nanos(entry.interval.0 / 2));
        }
        self.deadlines.insert((entry.deadline, id));
        if in_use && !self.include_half_open {
            return self.retract(id, at);
        }
        entry.interval = entry.interval.doubled().min(LONGEST_INTERVAL);
        let owner = entry.socket.owner.map(|owner| owner.process);
        let dead = entry.state == State::Close;
        let before = entry.shown.replace(Shown { verdict, owner, dead });
        if let Some(before) = before {
            leave(&mut self.open_by_owner, before.owner);
        }
        let same_owner = self.open_by_owner.entry(owner).or_default();
        *same_owner += 1;
        let status = if before.is_none() { Status::Open } else { Status::Still };
        Some(Finding {
            listener: listening,
            netns_name: context.and_then(|context| context.names.namespace(entry.socket.netns)),
            same_owner: *same_owner,
            ..entry.finding(at, status, verdict)
        })
    }

    /// What was shown turns out to be in use: that finding is over, but the socket stays watched.
    fn retract(&mut self, id: SocketId, at: Timestamp) -> Option<Finding> {
        let entry = self.sockets.get(&id)?.clone();
        let finding = self.end(id, at, Ending { cause: Cause::InUse, by: None }, None);
        self.deadlines.insert((entry.deadline, id));
        self.sockets.insert(id, Box::new(Lingering { shown: None, due: false, ..*entry }));
        finding
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
        let Shown { verdict, owner, dead } = entry.shown?;
        // One that was not told as a dead fd has lingered until it died.
        let (since, until) = match entry.died {
            Some(died) if dead => (died, at),
            Some(died) => (entry.since, died),
            None => (entry.since, at),
        };
        let mut socket = last.copied().unwrap_or(entry.socket);
        socket.owner = entry.socket.owner;
        let same_owner = leave(&mut self.open_by_owner, owner);
        Some(Finding {
            at,
            status: Status::Ended,
            verdict,
            state: entry.state,
            linger: until.since(since),
            at_least: entry.at_least && since == entry.since,
            at_most: if since == entry.since { entry.not_before } else { Some(since) }
                .map(|begin| until.since(begin)),
            socket,
            holders: entry.holders.into(),
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
