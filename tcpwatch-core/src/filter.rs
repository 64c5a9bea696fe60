//! Which sockets and transitions the user wants to see.
//!
//! The kernel applies the same filters where they are correct there; here they are applied
//! again, because iterator passes are not filtered and because some facts (ports, owners) become
//! known only later. What is not known yet never fails a filter.

use std::collections::BTreeSet;

use super::{
    input::{Observation, Transition},
    socket::Socket,
    state::State,
};

/// What to show. The default shows everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only sockets of these processes,
    pub pids: BTreeSet<u32>,
    /// and of their children, as they come; there may be none yet.
    pub follow: bool,
    /// Only these local ports.
    pub local_ports: BTreeSet<u16>,
    /// Only these remote ports.
    pub remote_ports: BTreeSet<u16>,
    /// Only this family, 4 or 6.
    pub family: Option<u8>,
    /// Only these network namespaces, by inode.
    pub netns: BTreeSet<u32>,
    /// Only sockets of these users.
    pub uids: BTreeSet<u32>,
    /// Only transitions from or to these states. Findings are not affected.
    pub states: BTreeSet<State>,
    /// Processes of other pid namespaces are hidden: a socket that no descriptor was found to lead to
    /// may have one.
    pub hides_holders: bool,
}

impl Filter {
    /// A process has ended, and its id may become somebody else's. Without any, all would be watched,
    /// so the id of nobody takes the place of the last.
    pub fn forget_process(&mut self, pid: u32) {
        if self.pids.remove(&pid) && self.pids.is_empty() {
            self.pids.insert(0);
        }
    }

    /// The same for a network namespace.
    pub fn forget_namespace(&mut self, inode: u32) {
        if self.netns.remove(&inode) && self.netns.is_empty() {
            self.netns.insert(0);
        }
    }

    /// Whether sockets of all processes are shown.
    pub fn watches_all(&self) -> bool {
        self.pids.is_empty() && !self.follow
    }

    /// Whether sockets of this network namespace are shown.
    pub fn wants_namespace(&self, netns: u32) -> bool {
        self.netns.is_empty() || self.netns.contains(&netns)
    }

    /// Whether a socket passes everything but the process filter.
    pub fn accepts(&self, socket: &Socket, state: State) -> bool {
        let port_ok = |set: &BTreeSet<u16>, port: u16, unknown_ok: bool| {
            set.is_empty() || set.contains(&port) || port == 0 && unknown_ok
        };
        // Until it is accepted, a connection has the user of its listener.
        let owned = socket.has_file || state == State::Listen;
        let family_unknown = socket.family() == 6 && socket.remote.ip().is_unspecified();
        port_ok(&self.local_ports, socket.local.port(), true)
            && port_ok(&self.remote_ports, socket.remote.port(), state != State::Listen)
            && self.family.is_none_or(|family| {
                family == socket.family() || family == 4 && family_unknown && state != State::Listen
            })
            && self.wants_namespace(socket.netns)
            && (self.uids.is_empty() || self.uids.contains(&socket.uid) || !owned)
    }

    /// Whether a look matters at all. A listener does for whatever comes in through it.
    pub fn concerns(&self, seen: &Observation) -> bool {
        if seen.state == State::Listen {
            self.wants_namespace(seen.socket.netns)
        } else {
            self.accepts(&seen.socket, seen.state)
        }
    }

    /// Whether a transition passes everything but the process filter.
    pub fn accepts_transition(&self, transition: &Transition) -> bool {
        let listening = transition.new == State::Listen
            || transition.old == State::Listen && transition.new == State::Close;
        let state = if listening { State::Listen } else { transition.new };
        (self.states.is_empty()
            || self.states.contains(&transition.old)
            || self.states.contains(&transition.new))
            && self.accepts(&transition.socket, state)
    }
}
