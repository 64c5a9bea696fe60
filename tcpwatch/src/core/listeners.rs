//! Who holds each listener.
//!
//! A child inherits its listener's owner, and that may be a process that is long gone: a daemon
//! that forks after `listen` leaves its first pid behind. So an inherited owner is printed only
//! when it is known to hold the listener; otherwise whoever does is.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    finding::Listener,
    input::{Observation, Transition},
    socket::{Holder, How, Owner, Process, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
    waiters::Waiters,
};

const KEEP_CLOSED: Nanos = Nanos::SECOND;

/// What is known of a listener.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it listens.
    local: SocketAddr,
    netns: u32,
    /// Who holds it, lowest pid first.
    holders: Vec<Holder>,
    /// The process that called `listen`, while it lives.
    caller: Option<Process>,
    /// The process that a child names, until it is known to live.
    claimed: Option<Process>,
    /// Waiting connections and their limit.
    queue: (u32, u32),
    waiters: Option<Waiters>,
    looked: Timestamp,
    closed: Option<Timestamp>,
}

impl Known {
    fn new(socket: &Socket) -> Self {
        Self {
            local: socket.local,
            netns: socket.netns,
            holders: Vec::new(),
            caller: None,
            claimed: None,
            queue: (0, 0),
            waiters: None,
            looked: Timestamp(0),
            closed: None,
        }
    }
}

impl Known {
    /// The processes that hold it.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.holders.iter().map(|holder| holder.process.pid)
    }

    /// What a finding says of it.
    pub fn describe(&self) -> Listener {
        Listener {
            local: self.local,
            holders: self.holders.clone(),
            queue_len: self.queue.0,
            queue_limit: self.queue.1,
            waiters: self.waiters,
        }
    }
}

/// The listeners of the host, by id.
#[derive(Debug, Default)]
pub struct Listeners {
    known: FxHashMap<SocketId, Known>,
    /// Where those that a pass saw listen, with their namespace: children from before we looked do
    /// not name them.
    by_address: FxHashMap<(u32, SocketAddr), Vec<SocketId>>,
    /// Those that closed a moment ago, in that order.
    closed: VecDeque<(Timestamp, SocketId)>,
}

impl Listeners {
    /// The listener of a connection: by id, or by address for one from before we looked.
    pub fn of(&self, socket: &Socket) -> Option<&Known> {
        let by_id = socket.listener.and_then(|id| self.known.get(&id));
        by_id.or_else(|| {
            let port = socket.local.port();
            // The kernel prefers the exact address, then the wildcard of the same family; that of
            // IPv6 takes in IPv4 where nothing else does.
            let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            let any = any.into_iter().filter(|any| socket.local.is_ipv4() || any.is_ipv6());
            std::iter::once(socket.local.ip()).chain(any).find_map(|ip| {
                let ids = self.by_address.get(&(socket.netns, SocketAddr::new(ip, port)))?;
                // Of several (SO_REUSEPORT) it is not known which; one with a queue is likelier.
                let known = ids.iter().filter_map(|id| self.known.get(id));
                known.max_by_key(|known| known.queue.0)
            })
        })
    }

    /// Processes whose end changes what is known here.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.known.values().flat_map(|known| {
            known
                .holders
                .iter()
                .map(|holder| holder.process.pid)
                .chain(known.caller.map(|caller| caller.pid))
                .chain(known.claimed.map(|claimed| claimed.pid))
        })
    }

    /// Processes of which it is not known that they live.
    pub fn claimed(&self) -> impl Iterator<Item = u32> {
        self.known.values().filter_map(|known| known.claimed.map(|claimed| claimed.pid))
    }

    /// Notes that a process lives.
    pub fn running(&mut self, pid: u32) {
        for known in self.known.values_mut() {
            if let Some(claimed) = known.claimed.take_if(|claimed| claimed.pid == pid) {
                known.caller = Some(claimed);
            }
        }
    }

    /// Notes that a listener came or went. One that only its children speak of (MPTCP keeps its
    /// own under the application's) is taken to be held by the process they name, while that lives.
    pub fn apply(&mut self, transition: &Transition) {
        let Some(id) = transition.socket.id else { return };
        if let (Some(owner), Some(listener)) = (transition.socket.owner, transition.socket.listener)
            && owner.how == How::Listener
        {
            self.known.entry(listener).or_insert_with(|| Known {
                claimed: Some(owner.process),
                ..Known::new(&transition.socket)
            });
        }
        if transition.new == State::Listen && transition.old != State::Listen {
            let known = Known::new(&transition.socket);
            self.known
                .insert(id, Known { caller: transition.actor, looked: transition.at, ..known });
        } else if transition.old == State::Listen
            && transition.new == State::Close
            && let Some(known) = self.known.get_mut(&id)
        {
            known.closed = Some(transition.at);
            self.closed.push_back((transition.at, id));
        }
    }

    /// Whether a listener is known, and who holds it.
    pub fn is_held(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|known| !known.holders.is_empty())
    }

    /// Notes that a scan did not find a listener any more.
    pub fn gone(&mut self, id: SocketId, at: Timestamp) {
        if let Some(known) = self.known.get_mut(&id)
            && known.closed.is_none()
        {
            known.closed = Some(at);
            self.closed.push_back((at, id));
        }
    }

    /// Forgets listeners that closed a while ago: the connections in their queues have closed
    /// after them (`net/ipv4/inet_connection_sock.c`: `inet_csk_listen_stop`).
    pub fn forget_closed(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.closed.pop_front_if(|(at, _)| now.since(*at) >= KEEP_CLOSED)
        {
            // It may listen again.
            if self.known.get(&id).is_some_and(|known| known.closed == Some(at)) {
                self.known.remove(&id);
            }
        }
    }

    /// Notes what a pass saw of a listener.
    pub fn observe(&mut self, observation: &Observation, pass_started: Timestamp) {
        let Some(id) = observation.socket.id.filter(|_| observation.state == State::Listen) else {
            return;
        };
        let known = self.known.entry(id).or_insert_with(|| Known::new(&observation.socket));
        let there = self.by_address.entry((known.netns, known.local)).or_default();
        if !there.contains(&id) {
            there.push(id);
        }
        if known.looked < pass_started {
            known.holders.clear();
        }
        known.looked = observation.at;
        known.queue = observation.queue;
        known.waiters = observation.waiters.or(known.waiters);
        if let Some(holder) = observation.holder.filter(|holder| !known.holders.contains(holder)) {
            known.holders.push(holder);
            known.holders.sort_unstable_by_key(|holder| (holder.process.pid, holder.fd));
        }
    }

    /// Forgets a process that has ended, and listeners that nobody else is known to hold: the
    /// next pass finds them again if somebody does.
    pub fn exited(&mut self, pid: u32) {
        self.known.retain(|_, known| {
            known.holders.retain(|holder| holder.process.pid != pid);
            known.caller = known.caller.filter(|caller| caller.pid != pid);
            known.claimed = known.claimed.filter(|claimed| claimed.pid != pid);
            known.closed.is_some()
                || known.claimed.is_some()
                || known.caller.is_some()
                || !known.holders.is_empty()
        });
    }

    /// Of no process it is known any more that it lives; the next pass says who holds what.
    pub fn doubt(&mut self) {
        for known in self.known.values_mut() {
            known.claimed = known.caller.take().or(known.claimed);
            known.holders.clear();
        }
    }

    /// Forgets listeners that are gone. One that only its children speak of is found again by the
    /// next of them.
    pub fn retain(&mut self, alive: &FxHashSet<SocketId>) {
        self.known.retain(|id, _| alive.contains(id));
        self.by_address.retain(|_, ids| {
            ids.retain(|id| alive.contains(id));
            !ids.is_empty()
        });
    }

    /// Whether an inherited owner can be named as it stands; if not, a pass is needed first.
    pub fn can_settle(&self, socket: &Socket) -> bool {
        match (socket.owner, socket.listener) {
            (Some(Owner { how: How::Listener, .. }), Some(id)) => self
                .known
                .get(&id)
                .is_some_and(|known| known.caller.is_some() || !known.holders.is_empty()),
            _ => true,
        }
    }

    /// The owner to print: an inherited one is the recorded process if it still holds the
    /// listener, else the first that does, else nobody.
    pub fn settle(&self, socket: &Socket) -> Option<Owner> {
        let owner = socket.owner?;
        if owner.how != How::Listener {
            return Some(owner);
        }
        let known = self.known.get(&socket.listener?)?;
        let pid = owner.process.pid;
        let is_caller = known.caller.is_some_and(|caller| caller.pid == pid);
        if is_caller || known.holders.iter().any(|holder| holder.process.pid == pid) {
            return Some(owner);
        }
        let process = known.holders.first().map(|holder| holder.process).or(known.caller)?;
        Some(Owner { process, how: How::Listener })
    }
}
