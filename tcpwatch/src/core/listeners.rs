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
    advice::processes,
    finding::Listener,
    input::{Observation, Transition},
    socket::{Holder, How, Owner, Process, Role, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
    verdict::held_by,
    waiters::Waiters,
};

/// Processes that are remembered as acceptors of one listener.
const MOST_ACCEPTORS: usize = 16;

const KEEP_CLOSED: Nanos = Nanos::SECOND;

/// What is known of a listener.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it listens.
    local: SocketAddr,
    netns: u32,
    /// Who holds it, lowest pid first.
    holders: Vec<Holder>,
    /// Holders of which it is known that they accept: each had a connection of this listener.
    acceptors: Vec<u32>,
    /// A scan of everything has looked for acceptors.
    searched: bool,
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
            acceptors: Vec::new(),
            searched: false,
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
    /// The holders that should accept: those that are known to, else all.
    pub fn accepting(&self) -> impl Iterator<Item = &Holder> {
        let all = !self.knows_acceptors();
        self.holders.iter().filter(move |holder| all || self.accepts(holder))
    }

    /// The process that answers for connections which nobody accepts.
    pub fn answerable(&self) -> Option<Process> {
        self.accepting().next().map(|holder| holder.process).or(self.caller)
    }

    /// Whether it is not known which of its holders accept, and a scan of everything may show it.
    pub fn wants_acceptors(&self) -> bool {
        !self.knows_acceptors() && !self.searched && processes(&self.holders) != 1
    }

    fn knows_acceptors(&self) -> bool {
        self.holders.iter().any(|holder| self.accepts(holder))
    }

    /// Whether this process holds it.
    pub fn is_held_by(&self, pid: u32) -> bool {
        held_by(&self.holders, pid)
    }

    fn accepts(&self, holder: &Holder) -> bool {
        self.acceptors.contains(&holder.process.pid)
    }

    /// What a finding says of it.
    pub fn describe(&self) -> Listener {
        let (mut holders, others): (Vec<_>, Vec<_>) =
            self.holders.iter().copied().partition(|holder| self.accepts(holder));
        let accepting = holders.len();
        holders.extend(others);
        Listener {
            local: self.local,
            holders,
            accepting,
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
            self.at_address_of(socket).find_map(|ids| {
                // Of several (SO_REUSEPORT) it is not known which; one with a queue is likelier.
                let known = ids.iter().filter_map(|id| self.known.get(id));
                known.max_by_key(|known| known.queue.0)
            })
        })
    }

    /// The listeners that a connection may have come in through, by its address. The kernel prefers
    /// the exact address, then the wildcard of the same family; that of IPv6 takes in IPv4 where
    /// nothing else does.
    fn at_address_of(&self, socket: &Socket) -> impl Iterator<Item = &[SocketId]> {
        let (netns, local) = (socket.netns, socket.local);
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let any = any.into_iter().filter(move |any| local.is_ipv4() || any.is_ipv6());
        std::iter::once(local.ip()).chain(any).filter_map(move |ip| {
            let ids = self.by_address.get(&(netns, SocketAddr::new(ip, local.port())))?;
            Some(&ids[..])
        })
    }

    /// Notes that a process has, or had, a connection that came in through a listener. If it holds
    /// the listener, too, it accepts.
    fn note_acceptor(&mut self, socket: &Socket, pid: u32) {
        let by_id = socket.listener.filter(|id| self.known.contains_key(id));
        let id = by_id.or_else(|| match self.at_address_of(socket).next() {
            Some(&[only]) => Some(only),
            _ => None,
        });
        let Some(known) = id.and_then(|id| self.known.get_mut(&id)) else { return };
        let new = known.acceptors.len() < MOST_ACCEPTORS && !known.acceptors.contains(&pid);
        if new && known.is_held_by(pid) {
            known.acceptors.push(pid);
        }
    }

    /// Notes that a scan of everything has looked for those who accept at the listener of this
    /// connection.
    pub fn searched(&mut self, socket: &Socket) {
        let by_id = socket.listener.filter(|id| self.known.contains_key(id));
        let ids: Vec<_> = match by_id {
            Some(id) => vec![id],
            None => self.at_address_of(socket).flatten().copied().collect(),
        };
        for id in ids {
            if let Some(known) = self.known.get_mut(&id) {
                known.searched = true;
            }
        }
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
        let accepted = transition.socket.owner.filter(|owner| owner.how == How::Accept);
        let acceptor = transition.actor.or(accepted.map(|owner| owner.process));
        if let Some(acceptor) = acceptor.filter(|_| transition.socket.listener.is_some()) {
            self.note_acceptor(&transition.socket, acceptor.pid);
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
        if observation.state != State::Listen {
            let server = observation.socket.role != Some(Role::Client);
            if let Some(holder) = observation.holder.filter(|_| server) {
                self.note_acceptor(&observation.socket, holder.process.pid);
            }
            return;
        }
        let Some(id) = observation.socket.id else { return };
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
            known.acceptors.retain(|&acceptor| acceptor != pid);
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
            known.acceptors.clear();
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
