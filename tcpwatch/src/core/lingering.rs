//! One socket that lingers: what is known of it, and what that says.

use super::{
    finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
    listeners::{Known, Listeners},
    names::Names,
    socket::{Holder, Process, Socket},
    state::State,
    time::{Nanos, Timestamp},
    verdict::{Facts, START_TICK, death, held_by},
};

/// What the user was told last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) verdict: Option<Verdict>,
    pub(super) owner: Option<Process>,
}

/// One lingering socket.
#[derive(Clone, Debug)]
pub(super) struct Lingering {
    pub(super) socket: Socket,
    pub(super) state: State,
    pub(super) since: Timestamp,
    pub(super) at_least: bool,
    /// It cannot have begun before this; `None` if that is not known.
    pub(super) not_before: Option<Timestamp>,
    /// When the connection died under its fd, if that was seen.
    pub(super) died: Option<Timestamp>,
    /// The process that connected it, as the transitions said.
    pub(super) connected: Option<Process>,
    /// Bytes that would be acknowledged without anything new being sent, as of the last look.
    pub(super) expected_acked: Option<u64>,
    /// Bytes acknowledged as of the last look.
    pub(super) acked: Option<u64>,
    /// When we learnt that it lingers, which may be long after it began.
    pub(super) known_since: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) interval: Nanos,
    pub(super) due: bool,
    pub(super) shown: Option<Shown>,
    /// The last look, and whom its pass saw holding the socket.
    pub(super) seen: Option<Timestamp>,
    pub(super) holders: Vec<Holder>,
    pub(super) evidence: Evidence,
}

/// A holder this young may be a child on its way to exec.
const PASSING: Nanos = Nanos(500_000_000);

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
    /// The processes that a finding is about: who holds the socket, its owner first, or the
    /// listener it waits at.
    pub(super) fn processes<'a>(
        &'a self,
        listeners: &'a Listeners,
    ) -> impl Iterator<Item = u32> + 'a {
        const MOST: usize = 16;
        let waits = self.holders.is_empty() && !self.socket.has_file;
        let listener = Some(listeners).filter(|_| waits);
        let known = listener.and_then(|listeners| listeners.of(&self.socket));
        let owner = self.socket.owner.map(|owner| owner.process.pid);
        let owner = owner.filter(|&pid| held_by(&self.holders, pid));
        let mut last = owner;
        let others = self.holders.iter().map(|holder| holder.process.pid);
        let others =
            others.filter(move |&pid| Some(pid) != owner && last.replace(pid) != Some(pid));
        let listening = known.into_iter().flat_map(Known::pids);
        owner.into_iter().chain(others).chain(listening).take(MOST)
    }

    /// The finding about it at a moment.
    pub(super) fn finding(
        &self,
        at: Timestamp,
        status: Status,
        verdict: Option<Verdict>,
    ) -> Finding {
        Finding {
            at,
            status,
            verdict,
            state: self.state,
            linger: at.since(self.died.unwrap_or(self.since)),
            at_least: self.at_least && self.died.is_none(),
            at_most: self.died.or(self.not_before).map(|begin| at.since(begin)),
            socket: self.socket,
            holders: self.holders.clone(),
            listener: None,
            evidence: self.evidence.clone(),
            netns_name: None,
            ending: None,
            same_owner: 1,
        }
    }

    /// Whether a pass that began then proves, by not having seen it, that it is gone. One that is
    /// connected and was never seen may be where no pass looks, until it is due.
    pub(super) fn is_gone(&self, started: Timestamp) -> bool {
        let dead = self.state == State::Close && self.died.is_none_or(|died| died < started);
        self.known_since < started && self.seen.map_or(dead, |seen| seen < started)
    }

    pub(super) fn facts<'a>(&'a self, context: Option<&Context<'_>>) -> Facts<'a> {
        Facts {
            socket: &self.socket,
            state: self.state,
            holders: &self.holders,
            connected: self.connected,
            younger_holders: context.is_some_and(|context| self.holders_are_younger(context)),
            expected_acked: self.expected_acked,
            acked: self.acked,
        }
    }

    /// Between fork and exec a child has a copy of every descriptor, however short-lived and properly
    /// marked: who has only just been forked, or has ended since, is no holder yet. Nobody is dropped
    /// if all are like that, or if nobody could be asked.
    pub(super) fn forget_passing_holders(&mut self, context: &Context<'_>) {
        if self.holders.len() < 2 {
            return;
        }
        let settled = |holder: &Holder| {
            let facts = context.names.process(holder.process.pid, context.started);
            let started = facts.and_then(|facts| facts.started);
            started.is_some_and(|at| context.started.since(at) >= PASSING)
        };
        if self.holders.iter().any(settled) {
            self.holders.retain(settled);
        }
    }

    /// Every holder was forked after the connection began to linger.
    pub(super) fn holders_are_younger(&self, context: &Context<'_>) -> bool {
        !self.holders.is_empty()
            && self.holders.iter().all(|holder| {
                let facts = context.names.process(holder.process.pid, context.started);
                let started = facts.and_then(|facts| facts.started);
                started.is_some_and(|at| at > self.since + START_TICK)
            })
    }

    /// How it ended if it is not there any more.
    pub(super) fn gone(&self) -> Ending {
        let told_dead = self.shown.is_some_and(|shown| shown.verdict == Some(Verdict::DeadFd));
        let cause = match (self.state, self.died) {
            // An MPTCP socket that its own program disconnects has no error.
            (State::Close, Some(_)) if !told_dead && self.socket.error != 0 => {
                death(self.socket.error)
            }
            (State::Close, _) => Cause::FdClosed,
            _ => Cause::Gone,
        };
        Ending { cause, by: None }
    }

    /// The time of a finding about it: the deadline it passed, or when we learnt of it.
    pub(super) fn stamp(&self) -> Timestamp {
        self.deadline.max(self.known_since)
    }
}
