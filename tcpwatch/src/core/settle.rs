//! Whose socket is it, when only some processes are watched?
//!
//! A worker accepts connections that came in through its master's listener, and the kernel does
//! not say which worker until it closes them. Transitions of such sockets wait here until a
//! pass, or the process that closes the socket, settles whose it is.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    filter::Filter,
    input::{Observation, Transition},
    socket::{How, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
};

/// Transitions that may wait in all; beyond it the newest are not kept.
const MOST_WAITING: usize = 65_536;
/// How long a transition waits for somebody to claim its socket.
const PATIENCE: Nanos = Nanos(5_000_000_000);

/// What to do with a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Watched,
    Stranger,
    Unsettled,
}

/// Sorts transitions into watched, strangers' and not yet known.
#[derive(Debug, Default)]
pub struct Settler {
    watched: FxHashSet<SocketId>,
    waiting: FxHashMap<SocketId, Vec<Transition>>,
    count: usize,
    /// Transitions that nobody claimed for want of room.
    pub overflowed: u64,
}

impl Settler {
    /// Takes a transition, where only some processes are watched, and returns what can be shown now,
    /// in order.
    pub fn push(&mut self, filter: &Filter, transition: Transition) -> Vec<Transition> {
        let Some(id) = transition.socket.id else { return Vec::new() };
        let claim =
            if self.watched.contains(&id) { Claim::Watched } else { claim(filter, &transition) };
        let over = transition.new == State::Close;
        match claim {
            Claim::Watched => {
                let mut ready = self.release(id);
                ready.push(transition);
                if over {
                    self.watched.remove(&id);
                } else {
                    self.watched.insert(id);
                }
                ready
            }
            Claim::Stranger => {
                self.release(id);
                Vec::new()
            }
            Claim::Unsettled if over => {
                self.release(id);
                Vec::new()
            }
            Claim::Unsettled if self.count >= MOST_WAITING => {
                self.overflowed += 1;
                Vec::new()
            }
            Claim::Unsettled => {
                self.waiting.entry(id).or_default().push(transition);
                self.count += 1;
                Vec::new()
            }
        }
    }

    /// Notes who holds a socket and returns what that settles.
    pub fn observe(&mut self, filter: &Filter, observation: &Observation) -> Vec<Transition> {
        let (Some(id), Some(holder)) = (observation.socket.id, observation.holder) else {
            return Vec::new();
        };
        if !filter.pids.contains(&holder.process.pid) {
            return Vec::new();
        }
        if observation.state != State::Close {
            self.watched.insert(id);
        }
        self.release(id)
    }

    /// Forgets sockets that are gone.
    pub fn retain(&mut self, alive: &FxHashSet<SocketId>) {
        self.watched.retain(|id| alive.contains(id));
    }

    /// A pass is over: what waited long before it and was not claimed belongs to others.
    pub fn pass_ended(&mut self, started: Timestamp) {
        let mut dropped = 0;
        self.waiting.retain(|_, transitions| {
            let keep = transitions.last().is_some_and(|last| last.at + PATIENCE > started);
            dropped += if keep { 0 } else { transitions.len() };
            keep
        });
        self.count -= dropped;
    }

    /// Whether transitions wait for a pass.
    pub fn wants_pass(&self) -> bool {
        self.count > 0
    }

    /// Whether a socket is known to be a watched process's.
    pub fn is_watched(&self, filter: &Filter, socket: &Socket) -> bool {
        filter.watches_all()
            || socket.watched
            || socket.id.is_some_and(|id| self.watched.contains(&id))
            || socket.owner.is_some_and(|owner| filter.pids.contains(&owner.process.pid))
    }

    fn release(&mut self, id: SocketId) -> Vec<Transition> {
        let ready = self.waiting.remove(&id).unwrap_or_default();
        self.count -= ready.len();
        ready
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
