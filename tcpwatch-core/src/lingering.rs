//! One socket that lingers: what is known of it, and what that says.

use rustc_hash::FxHashSet;

use super::{
    finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
    holders::Holders,
    input::Scope,
    listeners::{Known, Listeners},
    names::Names,
    process::Standing,
    socket::{Holder, Process, Role, Socket},
    state::State,
    time::{Nanos, Timestamp},
    verdict::{Facts, START_TICK, death, held_by},
};

/// What the user was told last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) verdict: Option<Verdict>,
    pub(super) owner: Option<Process>,
    /// Whether the connection was gone then.
    pub(super) dead: bool,
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
    pub(super) holders: Holders,
    /// The scan before the last found no fd that leads to it.
    pub(super) was_unheld: bool,
    pub(super) evidence: Evidence,
}

/// A holder this young may be a child on its way to exec.
const PASSING: Nanos = Nanos(500_000_000);

/// A server that forks for each connection does so within this time.
const AT_ONCE: Nanos = Nanos::SECOND;

/// What is known beyond the socket, for a finding about it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who holds which listener.
    pub listeners: &'a Listeners,
    /// What processes said, and what namespaces are called.
    pub names: &'a Names,
    /// Processes that have ended since the pass began.
    pub gone: &'a FxHashSet<u32>,
    /// When the pass began.
    pub started: Timestamp,
    /// What it covered.
    pub scope: Scope,
}

impl<'a> Context<'a> {
    fn standing(&self, pid: u32) -> Standing<'a> {
        match self.names.process(pid, self.started) {
            _ if self.gone.contains(&pid) => Standing::Gone,
            Some(facts) => Standing::Known(facts),
            None => Standing::NotAsked,
        }
    }
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
        let listening = known.into_iter().flat_map(Known::accepting);
        let listening = listening.map(|holder| holder.process.pid);
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
            holders: self.holders.to_vec(),
            listener: None,
            evidence: self.evidence.clone(),
            netns_name: None,
            ending: None,
            same_owner: 1,
        }
    }

    /// Whether a scan saw it in its present state: only then a scan that does not mention it says that
    /// nothing changed.
    pub(super) fn was_seen_so(&self) -> bool {
        self.seen.is_some_and(|seen| self.died.is_none_or(|died| died <= seen))
    }

    /// Whether a scan proves that it is gone: by not having seen it, or by saying that it is `missing`. One that is
    /// connected and was never seen may be where no scan looks, until it is due.
    pub(super) fn is_gone(&self, scan: &Context<'_>, missing: bool) -> bool {
        let started = scan.started;
        let dead = self.state == State::Close && self.died.is_none_or(|died| died < started);
        let missing = match self.seen {
            None => dead,
            Some(_) if scan.scope == Scope::Changes && self.was_seen_so() => missing,
            Some(_) if scan.scope == Scope::Changes => dead,
            Some(seen) => seen < started,
        };
        self.known_since < started && missing
    }

    pub(super) fn facts<'a>(&'a self, context: Option<&Context<'_>>) -> Facts<'a> {
        Facts {
            socket: &self.socket,
            state: self.state,
            holders: &self.holders,
            connected: self.connected,
            younger_holders: self.evidence.server.is_some()
                || context.is_some_and(|context| self.holders_are_younger(context)),
            expected_acked: self.expected_acked,
            acked: self.acked,
        }
    }

    /// No file descriptor leads to it, though it is in no accept queue.
    pub(super) fn is_unheld(&self) -> bool {
        self.holders.is_empty() && self.socket.has_file
    }

    /// Whether one more scan is needed. A descriptor that was made, or moved between processes, while
    /// a scan ran may have been missed by it, but not by the next one, too.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_unheld() && !self.was_unheld
    }

    /// Between fork and exec a child has a copy of every descriptor, however short-lived and properly
    /// marked: a process that has only just been forked, or has ended since, is no holder yet. Nobody
    /// is dropped if all are like that, and nobody who was not asked.
    pub(super) fn forget_passing_holders(&mut self, context: &Context<'_>) {
        let passes = |holder: &Holder| match context.standing(holder.process.pid) {
            Standing::Known(facts) => {
                facts.started.is_some_and(|at| context.started.since(at) < PASSING)
            }
            Standing::Gone => true,
            Standing::NotAsked => false,
        };
        if !self.holders.iter().all(passes) {
            self.holders.retain(|holder| !passes(holder));
        }
    }

    /// Every holder was forked after the connection began to linger.
    pub(super) fn holders_are_younger(&self, context: &Context<'_>) -> bool {
        let younger = |holder: &Holder| {
            let started = context.standing(holder.process.pid).started();
            started.is_some_and(|at| at > self.since + START_TICK)
        };
        !self.holders.is_empty() && self.holders.iter().all(younger)
    }

    /// The server that it came in through, if every holder was started later: a helper that got it
    /// from the server, on purpose or by accident. A process that holds the listener may have
    /// accepted it whenever it was started. A child with the server's name that was forked at once
    /// is what serves the connection.
    pub(super) fn server_before(&self, context: &Context<'_>) -> Option<Process> {
        if self.socket.role != Some(Role::Server) || self.holders.is_empty() {
            return None;
        }
        let listener = context.listeners.of(&self.socket)?;
        let server = self.evidence.opener.or(listener.answerable())?;
        let came_in = self.socket.born.unwrap_or(self.since);
        let is_later = |holder: &Holder| {
            let Holder { process, .. } = holder;
            let started = context.standing(process.pid).started();
            let later = started.is_some_and(|at| {
                if process.comm == server.comm {
                    at > came_in + AT_ONCE
                } else {
                    at + START_TICK > came_in
                }
            });
            later && process.pid != server.pid && !listener.is_held_by(process.pid)
        };
        self.holders.iter().all(is_later).then_some(server)
    }

    /// How it ended if it is not there any more.
    pub(super) fn gone(&self) -> Ending {
        let told_dead = self.shown.is_some_and(|shown| shown.dead);
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
