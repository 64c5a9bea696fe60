//! The present state of every socket that was shown.
//!
//! A filter may hide a socket's end, and an end may be lost, so what is gone is swept out by a
//! pass over everything: the table asks for one whenever it has doubled.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    input::{Observation, Transition},
    socket::SocketId,
    state::State,
};

/// Sockets tracked at most. Beyond it new ones are not tracked, and that is counted.
pub const MOST_TRACKED: usize = 4_000_000;
/// A table smaller than this is not swept.
const SMALLEST_SWEEP: usize = 65_536;

/// States by socket id. About 20 bytes a socket.
#[derive(Debug, Default)]
pub struct SocketTable {
    sockets: FxHashMap<SocketId, Tracked>,
    counts: [u64; 12],
    /// Sockets not tracked because the table was full.
    pub evicted: u64,
    after_sweep: usize,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    state: State,
    /// One of its transitions was shown, or it was only seen by a pass.
    shown: bool,
}

impl SocketTable {
    /// Applies a transition that is shown; says whether it is the socket's first.
    pub fn apply(&mut self, transition: &Transition) -> bool {
        let Some(id) = transition.socket.id else { return false };
        let before = if transition.new == State::Close {
            self.remove(id)
        } else {
            self.put(id, transition.new, true)
        };
        before.is_none_or(|tracked| !tracked.shown)
    }

    /// Takes in what a pass saw.
    pub fn observe(&mut self, observation: &Observation) {
        if let Some(id) = observation.socket.id
            && observation.state != State::Close
        {
            let shown = self.sockets.get(&id).is_some_and(|tracked| tracked.shown);
            self.put(id, observation.state, shown);
        }
    }

    /// Forgets a socket whose end is not shown.
    pub fn forget(&mut self, id: SocketId) {
        self.remove(id);
    }

    fn remove(&mut self, id: SocketId) -> Option<Tracked> {
        let tracked = self.sockets.remove(&id)?;
        self.leave(tracked.state);
        Some(tracked)
    }

    /// Whether it has grown so much that a pass should say what is gone.
    pub fn wants_sweep(&self) -> bool {
        self.sockets.len() > SMALLEST_SWEEP.max(self.after_sweep * 2)
    }

    /// A pass over everything is complete: what it did not see is gone.
    pub fn retain(&mut self, alive: &FxHashSet<SocketId>) {
        let counts = &mut self.counts;
        self.sockets.retain(|id, tracked| {
            let here = alive.contains(id);
            if !here {
                counts[usize::from(tracked.state.number())] -= 1;
            }
            here
        });
        self.after_sweep = self.sockets.len();
    }

    /// Sockets in each state.
    pub fn now(&self) -> BTreeMap<State, u64> {
        State::ALL
            .into_iter()
            .map(|state| (state, self.counts[usize::from(state.number())]))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    fn put(&mut self, id: SocketId, state: State, shown: bool) -> Option<Tracked> {
        if self.sockets.len() >= MOST_TRACKED && !self.sockets.contains_key(&id) {
            self.evicted += 1;
            return None;
        }
        let previous = self.sockets.insert(id, Tracked { state, shown });
        self.counts[usize::from(state.number())] += 1;
        if let Some(previous) = previous {
            self.leave(previous.state);
        }
        previous
    }

    fn leave(&mut self, state: State) {
        let count = &mut self.counts[usize::from(state.number())];
        *count = count.saturating_sub(1);
    }
}
