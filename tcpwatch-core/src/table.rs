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
    time::Timestamp,
};

/// Sockets tracked at most. Beyond it new ones are not tracked, and that is counted.
pub const MOST_TRACKED: usize = 4_000_000;
/// A table smaller than this is not swept.
const SMALLEST_SWEEP: usize = 65_536;

/// States by socket id. About 25 bytes a socket.
#[derive(Debug, Default)]
pub struct SocketTable {
    sockets: FxHashMap<SocketId, Tracked>,
    counts: [u64; 12],
    /// Sockets not tracked because the table was full.
    pub evicted: u64,
    after_sweep: usize,
    /// Transitions were lost before this.
    lost: Option<Timestamp>,
    /// Every transition of a socket that is shown is shown, so its path has no gap of our making.
    whole_paths: bool,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    /// The kernel's cookie, 0 if unknown.
    cookie: u64,
    netns: u32,
    state: State,
    /// Where its last transition led to. A look may be of a moment beside its own, so it says nothing of the
    /// path.
    last: Option<State>,
    /// One of its transitions was shown, or it was only seen by a pass.
    shown: bool,
    /// A transition of it was lost.
    gap: bool,
}

impl SocketTable {
    /// A table of all sockets whose transitions are shown; `whole_paths` if none of theirs are left out.
    pub fn new(whole_paths: bool) -> Self {
        Self { whole_paths, ..Self::default() }
    }

    /// Applies a transition that is shown; says whether it is the socket's first.
    pub fn apply(&mut self, transition: &Transition) -> bool {
        let Some(id) = transition.socket.id else { return false };
        let before = if transition.new == State::Close {
            self.remove(id)
        } else {
            let gap = self.has_gap(transition);
            let (state, last) = (transition.new, Some(transition.new));
            let cookie = transition.socket.cookie.unwrap_or(0);
            let netns = transition.socket.netns;
            self.put(id, Tracked { cookie, netns, state, last, shown: true, gap })
        };
        before.is_none_or(|tracked| !tracked.shown)
    }

    /// Takes in what a pass saw. One that is closed, and whose fd is still open, has no state that counts.
    pub fn observe(&mut self, observation: &Observation) {
        let Some(id) = observation.socket.id else { return };
        if observation.state == State::Close {
            self.remove(id);
            return;
        }
        let before = self.sockets.get(&id).copied();
        let missed = before.is_none_or(|tracked| tracked.state != observation.state)
            && self.may_be_lost(observation.entered);
        let shown = before.is_some_and(|tracked| tracked.shown);
        let gap = missed || before.is_some_and(|tracked| tracked.gap);
        let last = before.and_then(|tracked| tracked.last);
        let cookie = before.map_or(0, |tracked| tracked.cookie);
        let (netns, state) = (observation.socket.netns, observation.state);
        self.put(id, Tracked { cookie, netns, state, last, shown, gap });
    }

    /// Whether a socket of this network namespace is not known to have closed.
    pub fn has_any_in(&self, netns: u32) -> bool {
        self.sockets.values().any(|tracked| tracked.netns == netns)
    }

    /// Notes that transitions were lost before `at`.
    pub fn lost(&mut self, at: Timestamp) {
        self.lost = Some(at);
    }

    /// Whether a socket's path has a gap: the kernel program has seen one; or the path contradicts itself; or
    /// the change before this one is not the last that was seen, and was made when some were lost.
    pub fn has_gap(&self, transition: &Transition) -> bool {
        let before = transition.socket.id.and_then(|id| self.sockets.get(&id));
        transition.socket.uncertain
            || match before {
                Some(tracked) if tracked.gap || self.contradicts(tracked, transition) => true,
                Some(tracked) if tracked.state == transition.old => false,
                _ => self.may_be_lost(transition.entered),
            }
    }

    /// Whether this transition shows that one before it was lost, of which nobody has told.
    pub fn shows_loss(&self, transition: &Transition) -> bool {
        let before = transition.socket.id.and_then(|id| self.sockets.get(&id));
        before.is_some_and(|tracked| self.contradicts(tracked, transition))
            && !transition.socket.uncertain
            && !self.may_be_lost(transition.entered)
    }

    /// Whether a transition does not go on where the last of the same socket ended, or is another socket's.
    fn contradicts(&self, tracked: &Tracked, transition: &Transition) -> bool {
        let skips = tracked.last.is_some_and(|last| last != transition.old);
        let cookie = transition.socket.cookie.filter(|_| tracked.cookie != 0);
        self.whole_paths && (skips || cookie.is_some_and(|cookie| cookie != tracked.cookie))
    }

    /// Whether a socket is known to have a gap.
    pub fn is_uncertain(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|tracked| tracked.gap)
    }

    fn may_be_lost(&self, changed: Option<Timestamp>) -> bool {
        self.lost.zip(changed).is_some_and(|(lost, changed)| changed <= lost)
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

    /// Sockets in all.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sockets in a state.
    pub fn count(&self, state: State) -> u64 {
        self.counts[usize::from(state.number())]
    }

    /// Sockets in each state.
    pub fn now(&self) -> BTreeMap<State, u64> {
        State::ALL
            .into_iter()
            .map(|state| (state, self.counts[usize::from(state.number())]))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    fn put(&mut self, id: SocketId, tracked: Tracked) -> Option<Tracked> {
        if self.sockets.len() >= MOST_TRACKED && !self.sockets.contains_key(&id) {
            self.evicted += 1;
            return None;
        }
        let previous = self.sockets.insert(id, tracked);
        self.counts[usize::from(tracked.state.number())] += 1;
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
