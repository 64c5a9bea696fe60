//! Whose socket is it, when only some processes are watched?
//!
//! A worker accepts connections that came in through its master's listener, and the kernel does
//! not say which worker until it closes them. Transitions of such sockets wait here until a
//! scan, or the process that closes the socket, settles whose it is.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    filter::Filter,
    input::{Observation, Scope, Transition},
    socket::{How, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
};

/// Transitions that may wait in all.
pub const MOST_WAITING: usize = 65_536;
/// How long a scan is asked for to find who holds a socket: one may be accepted a while after it was
/// established. What no scan has found by then waits on, and asks for none any more.
const PATIENCE: Nanos = Nanos(5_000_000_000);

/// What to do with a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Watched,
    Stranger,
    Unsettled,
}

/// The transitions of a socket that nobody has claimed yet.
#[derive(Debug, Default)]
struct Waiting {
    transitions: Vec<Transition>,
    /// When the last of them was.
    last: Timestamp,
    /// A watched process may have accepted it.
    in_reach: bool,
    /// No scan is asked for any more.
    rests: bool,
    /// The scan that saw somebody else hold the socket began then.
    other: Option<Timestamp>,
}

/// Sorts transitions into watched, others' and not yet known. Each that is handed in is handed out,
/// waits, or is counted.
#[derive(Debug, Default)]
pub struct Settler {
    /// Sockets that a watched process has had, until they close.
    watched: FxHashSet<SocketId>,
    waiting: FxHashMap<SocketId, Waiting>,
    /// Those of the waiting that rest, the longest first.
    resting: BTreeSet<(Timestamp, SocketId)>,
    /// Transitions that wait.
    held: usize,
    /// When the last scan began that has seen all that the watched processes hold.
    looked: Timestamp,
    /// Transitions of which nobody could tell whose they were: they are not shown.
    pub unclaimed: u64,
    /// Transitions of other processes' sockets.
    pub others: u64,
}

impl Settler {
    /// Takes a transition, where only some processes are watched, and returns what can be shown now,
    /// in order. `in_reach` says whether one of them may have accepted the connection.
    pub fn push(
        &mut self,
        filter: &Filter,
        transition: Transition,
        in_reach: impl FnOnce() -> bool,
    ) -> Vec<Transition> {
        let over = transition.new == State::Close;
        let Some(id) = transition.socket.id else {
            match claim(filter, &transition) {
                Claim::Watched => return vec![transition],
                Claim::Stranger => self.others += 1,
                Claim::Unsettled => self.count(1, in_reach()),
            }
            return Vec::new();
        };
        let claim =
            if self.watched.contains(&id) { Claim::Watched } else { claim(filter, &transition) };
        match claim {
            Claim::Watched => {
                let mut ready = self.claim_waiting(id, transition.old);
                ready.push(transition);
                if over {
                    self.watched.remove(&id);
                } else {
                    self.watched.insert(id);
                }
                return ready;
            }
            Claim::Stranger => self.others += self.release(id).len() as u64 + 1,
            Claim::Unsettled if over => {
                let waiting = self.take(id);
                let in_reach = waiting.as_ref().map_or_else(in_reach, |waiting| waiting.in_reach);
                let gone = waiting.map_or(0, |waiting| waiting.transitions.len()) + 1;
                // One that never had a file was in nobody's hands.
                self.count(gone, in_reach && transition.socket.has_file);
            }
            Claim::Unsettled => self.wait(id, &transition, in_reach()),
        }
        Vec::new()
    }

    fn wait(&mut self, id: SocketId, transition: &Transition, in_reach: bool) {
        if self.held >= MOST_WAITING {
            // What has rested longest gives way; if nothing rests, the newest finds no room.
            match self.resting.first() {
                Some(&(_, oldest)) => self.drop_waiting(oldest),
                None => return self.count(1, in_reach),
            }
        }
        let waiting = self.waiting.entry(id).or_default();
        if std::mem::take(&mut waiting.rests) {
            self.resting.remove(&(waiting.last, id));
        }
        waiting.last = waiting.last.max(transition.at);
        waiting.in_reach = in_reach;
        waiting.transitions.push(*transition);
        self.held += 1;
    }

    /// Notes who holds a socket and returns what that settles.
    pub fn observe(
        &mut self,
        filter: &Filter,
        observation: &Observation,
        scan_started: Timestamp,
    ) -> Vec<Transition> {
        let (Some(id), Some(holder)) = (observation.socket.id, observation.holder) else {
            return Vec::new();
        };
        if !filter.pids.contains(&holder.process.pid) {
            // A watched process may hold it, too: the end of the scan decides.
            if let Some(waiting) = self.waiting.get_mut(&id) {
                waiting.other = Some(scan_started);
            }
            return Vec::new();
        }
        if observation.state != State::Close {
            self.watched.insert(id);
        }
        self.claim_waiting(id, observation.state)
    }

    /// A scan is complete. What it saw with others only is theirs. What it did not see waits on: in an
    /// accept queue, or where this scan does not look; and if it has seen all that the watched
    /// processes hold, no more scans are asked for in a while.
    pub fn scanned(&mut self, started: Timestamp, scope: Scope) {
        let theirs = |waiting: &Waiting| waiting.other == Some(started);
        let ids = self.waiting.iter().filter(|(_, waiting)| theirs(waiting));
        let ids: Vec<_> = ids.map(|(&id, _)| id).collect();
        for id in ids {
            self.others += self.release(id).len() as u64;
        }
        if matches!(scope, Scope::Lingering | Scope::Changes) {
            return;
        }
        self.looked = self.looked.max(started);
        for (&id, waiting) in &mut self.waiting {
            if !waiting.rests && waiting.last + PATIENCE <= started {
                waiting.rests = true;
                self.resting.insert((waiting.last, id));
            }
        }
    }

    /// Forgets sockets that are gone. How those ended that still waited was not seen.
    pub fn retain(&mut self, alive: &FxHashSet<SocketId>, started: Timestamp) {
        self.watched.retain(|id| alive.contains(id));
        let gone = |id: &SocketId, waiting: &Waiting| waiting.last < started && !alive.contains(id);
        let ids = self.waiting.iter().filter(|(id, waiting)| gone(id, waiting));
        let ids: Vec<_> = ids.map(|(&id, _)| id).collect();
        for id in ids {
            self.forget(id);
        }
    }

    /// Forgets a socket that has closed, though that is not shown.
    pub fn forget(&mut self, id: SocketId) {
        self.watched.remove(&id);
        self.drop_waiting(id);
    }

    /// The run is over: what a scan has looked for in vain is others', of the rest nobody can tell.
    pub fn finish(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let doubtful = waiting.in_reach && waiting.last >= self.looked;
            self.count(waiting.transitions.len(), doubtful);
        }
        self.resting.clear();
        self.held = 0;
    }

    /// Counts transitions that are not shown.
    fn count(&mut self, transitions: usize, doubtful: bool) {
        *(if doubtful { &mut self.unclaimed } else { &mut self.others }) += transitions as u64;
    }

    fn drop_waiting(&mut self, id: SocketId) {
        if let Some(waiting) = self.take(id) {
            self.count(waiting.transitions.len(), waiting.in_reach);
        }
    }

    /// Whether transitions wait for a scan of what the watched processes hold.
    pub fn wants_scan(&self) -> bool {
        self.waiting.len() > self.resting.len()
    }

    /// Sockets that are known to be watched processes', and those that wait.
    pub fn entries(&self) -> usize {
        self.watched.len() + self.waiting.len() + self.held
    }

    /// Whether a socket is known to be a watched process's.
    pub fn is_watched(&self, filter: &Filter, socket: &Socket) -> bool {
        filter.watches_all()
            || socket.watched
            || socket.id.is_some_and(|id| self.watched.contains(&id))
            || socket.owner.is_some_and(|owner| filter.pids.contains(&owner.process.pid))
    }

    /// What has waited of a socket that is in this state now, and turns out to be a watched process's. The kernel
    /// program does not emit what another process does with it in the meantime, and what is shown has no gap.
    fn claim_waiting(&mut self, id: SocketId, state: State) -> Vec<Transition> {
        let transitions = self.release(id);
        if transitions.last().is_some_and(|last| last.new != state) {
            self.count(transitions.len(), true);
            return Vec::new();
        }
        transitions
    }

    fn release(&mut self, id: SocketId) -> Vec<Transition> {
        self.take(id).map_or_else(Vec::new, |waiting| waiting.transitions)
    }

    fn take(&mut self, id: SocketId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if waiting.rests {
            self.resting.remove(&(waiting.last, id));
        }
        self.held -= waiting.transitions.len();
        Some(waiting)
    }
}

fn claim(filter: &Filter, transition: &Transition) -> Claim {
    let socket = &transition.socket;
    let acted = transition.actor.is_some_and(|actor| filter.pids.contains(&actor.pid));
    let owned = socket.owner.is_some_and(|owner| filter.pids.contains(&owner.process.pid));
    if acted || owned || socket.watched {
        return Claim::Watched;
    }
    match socket.owner.map(|owner| owner.how) {
        None | Some(How::Listener) if transition.actor.is_none() => Claim::Unsettled,
        _ => Claim::Stranger,
    }
}
