//! Which states a socket went through, and when: what its story begins with.
//!
//! Only sockets that linger have one. The change into `CLOSE_WAIT` says by itself when the socket
//! was born and when it entered the state before, so nothing is kept of any other socket.

use rustc_hash::FxHashMap;

use crate::core::{
    finding::Finding,
    input::Transition,
    socket::{Role, SocketId},
    state::State,
    time::{Nanos, Timestamp},
    verdict::leaves_fd_open,
};

/// Sockets that have begun to linger and are no findings yet, at most; about 90 bytes each.
const MOST_WAITING: usize = 1 << 20;
/// Steps of a path: opened, connected, closed by the peer, gone.
const STEPS: usize = 4;

/// A state and when it was entered; `None` if before anybody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub state: State,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// The states of a socket, the first first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    steps: [Option<Step>; STEPS],
}

impl Path {
    /// Up to a change of state.
    fn before(transition: &Transition) -> Self {
        let socket = &transition.socket;
        let mut path = Self::default();
        // Before another state there may have been several.
        if let (Some(born), Some(entered)) = (socket.born, transition.entered)
            && transition.old == State::Established
            && born < entered
        {
            path.enter(opening(socket.role), Some(born));
        }
        path.enter(transition.old, transition.entered);
        path
    }

    /// As far as a finding tells.
    fn of(finding: &Finding) -> Self {
        let mut path = Self::default();
        path.enter(finding.state, (!finding.at_least).then(|| finding.at - finding.linger));
        path
    }

    /// Goes on in another state; a path that is full keeps its beginning.
    fn enter(&mut self, state: State, since: Option<Timestamp>) {
        if let Some(free) = self.steps.iter_mut().find(|step| step.is_none()) {
            *free = Some(Step { state, since });
        }
    }

    /// Goes on where the connection dies under its fd.
    pub fn follow(&mut self, transition: &Transition) {
        if leaves_fd_open(transition) {
            self.enter(transition.new, Some(transition.at));
        }
    }

    /// Ends in the state that a finding says: it may know of a change that no transition told.
    #[must_use]
    pub fn up_to(mut self, finding: &Finding) -> Self {
        let last = self.steps.iter().flatten().last();
        if last.is_some_and(|step| step.state != finding.state) {
            self.enter(finding.state, (!finding.at_least).then(|| finding.at - finding.linger));
        }
        self
    }

    /// Each state with how long it lasted, up to `now`; `None` where its beginning is not known.
    pub fn dwells(&self, now: Timestamp) -> impl Iterator<Item = (Step, Option<Nanos>)> + '_ {
        self.steps.iter().enumerate().filter_map(move |(number, step)| {
            let step = (*step)?;
            let next = self.steps.get(number + 1).copied().flatten();
            let until = next.map_or(Some(now), |next| next.since);
            let dwell = step.since.zip(until).map(|(since, until)| until.since(since));
            Some((step, dwell))
        })
    }
}

/// Whether a change of state begins or ends lingering, or leaves an fd behind.
pub(super) fn concerns(transition: &Transition) -> bool {
    transition.new == State::CloseWait
        || transition.old == State::CloseWait
        || leaves_fd_open(transition)
}

/// The state that a socket is born in.
fn opening(role: Option<Role>) -> State {
    match role {
        Some(Role::Server) => State::SynRecv,
        _ => State::SynSent,
    }
}

/// The paths of sockets that have begun to linger and are no findings yet.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    waiting: FxHashMap<SocketId, Path>,
}

impl Paths {
    /// Follows a change of state that concerns them.
    pub fn apply(&mut self, transition: &Transition) {
        let Some(id) = transition.socket.id else { return };
        if transition.new == State::CloseWait || leaves_fd_open(transition) {
            let room = self.waiting.len() < MOST_WAITING;
            let path = match self.waiting.get_mut(&id) {
                Some(path) => path,
                None if room => self.waiting.entry(id).or_insert_with(|| Path::before(transition)),
                None => return,
            };
            path.enter(transition.new, Some(transition.at));
        } else {
            self.waiting.remove(&id);
        }
    }

    /// The path of what has become a finding.
    pub fn take(&mut self, finding: &Finding) -> Path {
        let id = finding.socket.id;
        let path = id.and_then(|id| self.waiting.remove(&id));
        path.unwrap_or_else(|| Path::of(finding)).up_to(finding)
    }

    /// Forgets those whose end was not seen: there are far more than linger, and these began long ago.
    pub fn forget(&mut self, lingering: u64, before: Timestamp) {
        const SLACK: u64 = 4096;
        if self.waiting.len() as u64 > lingering.saturating_mul(2).saturating_add(SLACK) {
            let began =
                |path: &Path| path.steps.iter().flatten().last().and_then(|step| step.since);
            self.waiting.retain(|_, path| began(path).is_some_and(|since| since >= before));
        }
    }
}
