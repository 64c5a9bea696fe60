//! Every socket's present state, as far as it was seen.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{
    input::{Observation, Transition},
    socket::SocketId,
    state::State,
};

/// Sockets tracked at most. Beyond it new ones are not tracked, and that is counted.
pub const MOST_TRACKED: usize = 4_000_000;

/// States by socket id. About 20 bytes a socket.
#[derive(Debug, Default)]
pub struct SocketTable {
    states: FxHashMap<SocketId, Tracked>,
    counts: [u64; 12],
    /// Sockets not tracked because the table was full.
    pub evicted: u64,
    pass: u16,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    state: State,
    pass: u16,
}

impl SocketTable {
    /// Applies a transition; says whether the socket is new.
    pub fn apply(&mut self, transition: &Transition) -> bool {
        let Some(id) = transition.socket.id else { return false };
        if transition.new == State::Close {
            return match self.states.remove(&id) {
                Some(tracked) => {
                    self.leave(tracked.state);
                    false
                }
                None => true,
            };
        }
        self.put(id, transition.new)
    }

    /// Takes in what a pass saw.
    pub fn observe(&mut self, observation: &Observation) {
        if let Some(id) = observation.socket.id
            && observation.state != State::Close
        {
            self.put(id, observation.state);
        }
    }

    /// A pass over everything begins.
    pub fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// A pass over everything is complete: what it did not see is gone.
    pub fn end_pass(&mut self) {
        let pass = self.pass;
        let counts = &mut self.counts;
        self.states.retain(|_, tracked| {
            let here = tracked.pass == pass;
            if !here {
                counts[usize::from(tracked.state.number())] -= 1;
            }
            here
        });
    }

    /// Sockets in each state.
    pub fn now(&self) -> BTreeMap<State, u64> {
        State::ALL
            .into_iter()
            .map(|state| (state, self.counts[usize::from(state.number())]))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    fn put(&mut self, id: SocketId, state: State) -> bool {
        let full = self.states.len() >= MOST_TRACKED;
        let tracked = Tracked { state, pass: self.pass };
        let previous = if full && !self.states.contains_key(&id) {
            self.evicted += 1;
            return true;
        } else {
            self.states.insert(id, tracked)
        };
        self.counts[usize::from(state.number())] += 1;
        if let Some(previous) = previous {
            self.leave(previous.state);
        }
        previous.is_none()
    }

    fn leave(&mut self, state: State) {
        let count = &mut self.counts[usize::from(state.number())];
        *count = count.saturating_sub(1);
    }
}
