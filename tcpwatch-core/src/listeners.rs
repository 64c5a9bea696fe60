//! Who holds each listener.
//!
//! A child inherits its listener's owner, and that may be a process that is long gone: a daemon
//! that forks after `listen` leaves its first pid behind. So an inherited owner is printed only
//! when it is known to hold the listener; otherwise whoever does is.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustc_hash::FxHashMap;

pub use self::known::Known;
use super::{
    input::{Observation, Scope, Transition},
    socket::{How, Owner, Role, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
};

/// Processes that are remembered as acceptors of one listener.
const MOST_ACCEPTORS: usize = 16;

const KEEP_CLOSED: Nanos = Nanos::SECOND;
/// A scan is asked for when this many listeners are known, and whenever they have doubled since.
const SMALLEST_SWEEP: usize = 4_096;
/// Listeners that are known at most, and processes of listeners: more than a host can have, but not
/// more than a forged recording.
const MOST: usize = 1 << 18;

/// The listeners of the host, by id. An entry leaves with its listener: a second after its `CLOSE`,
/// or after a scan that has not seen it.
#[derive(Debug, Default)]
pub struct Listeners {
    known: FxHashMap<SocketId, Known>,
    /// Where those that a scan saw listen, with their namespace: children from before we looked do
    /// not name them.
    by_address: FxHashMap<(u32, SocketAddr), BTreeSet<SocketId>>,
    /// Each process with the listeners that it holds or called, so that no event walks them all.
    by_process: BTreeSet<(u32, SocketId)>,
    /// The same of those that children name and of which it is not known that they live.
    claims: BTreeSet<(u32, SocketId)>,
    /// Processes that were named since the source asked last, and when each was first.
    named: BTreeMap<u32, Timestamp>,
    /// Holders of all listeners.
    held: usize,
    /// Those that closed a moment ago, in that order.
    closed: VecDeque<(Timestamp, SocketId)>,
    after_sweep: usize,
    /// Listeners and holders that found no room.
    pub overflowed: u64,
}

impl Listeners {
    /// The listener of a connection: by id, or by address for one from before we looked, and where
    /// nobody is known to hold the one that it names (MPTCP keeps its own under the application's).
    pub fn of(&self, socket: &Socket) -> Option<&Known> {
        let by_id = socket.listener.and_then(|id| self.known.get(&id));
        let held = by_id.filter(|known| !known.holders.is_empty());
        held.or_else(|| self.at(socket.netns, socket.local)).or(by_id)
    }

    /// The listener that takes connections to an address.
    fn at(&self, netns: u32, local: SocketAddr) -> Option<&Known> {
        self.at_address(netns, local).find_map(|ids| {
            // Of several (SO_REUSEPORT) it is not known which; one with a queue is likelier.
            let known = ids.iter().filter_map(|id| self.known.get(id));
            known.max_by_key(|known| known.queue.0)
        })
    }

    /// The listeners that may take connections to an address. The kernel prefers the exact address, then
    /// the wildcard of the same family; that of IPv6 takes in IPv4 where nothing else does.
    fn at_address(
        &self,
        netns: u32,
        local: SocketAddr,
    ) -> impl Iterator<Item = &BTreeSet<SocketId>> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let any = any.into_iter().filter(move |any| local.is_ipv4() || any.is_ipv6());
        std::iter::once(local.ip())
            .chain(any)
            .filter_map(move |ip| self.by_address.get(&(netns, SocketAddr::new(ip, local.port()))))
    }

    /// Notes that a process has, or had, a connection that came in through a listener. If it holds
    /// the listener, too, it accepts.
    fn note_acceptor(&mut self, socket: &Socket, pid: u32) {
        let by_id = socket.listener.filter(|id| self.known.contains_key(id));
        let id = by_id.or_else(|| {
            let there = self.at_address(socket.netns, socket.local).next()?;
            there.first().copied().filter(|_| there.len() == 1)
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
            None => self.at_address(socket.netns, socket.local).flatten().copied().collect(),
        };
        for id in ids {
            if let Some(known) = self.known.get_mut(&id) {
                known.searched = true;
            }
        }
    }

    /// Entries in all tables.
    pub fn entries(&self) -> usize {
        let processes = self.by_process.len() + self.claims.len() + self.named.len();
        self.known.len() + self.by_address.len() + self.closed.len() + self.held + processes
    }

    /// Whether so many are known that a scan should say which are gone.
    pub fn wants_sweep(&self) -> bool {
        let open = self.known.len().saturating_sub(self.closed.len());
        open > SMALLEST_SWEEP.max(self.after_sweep * 2)
    }

    /// Processes that were named since this was last asked, and when: their end changes what is
    /// known here.
    pub fn named(&mut self) -> BTreeMap<u32, Timestamp> {
        std::mem::take(&mut self.named)
    }

    /// Whether a child names this process, and nobody knows whether it still lives.
    pub fn is_claimed(&self, pid: u32) -> bool {
        of_process(&self.claims, pid).next().is_some()
    }

    /// Notes that a process lives. It is believed to have called `listen` unless somebody else is
    /// known to listen there.
    pub fn running(&mut self, pid: u32) {
        let ids: Vec<_> = of_process(&self.claims, pid).collect();
        for id in ids {
            self.claims.remove(&(pid, id));
            let Some(known) = self.known.get(&id) else { continue };
            let other = self.at(known.netns, known.local);
            let refuted = other.is_some_and(|other| other.is_settled() && !other.is_of(pid));
            let Some(known) = self.known.get_mut(&id) else { continue };
            let claimed = known.claimed.take();
            if known.caller.is_none() && !refuted {
                known.caller = claimed;
                self.by_process.insert((pid, id));
            }
            self.drop_name(pid);
        }
    }

    /// Notes that a listener came or went. One that only its children speak of (MPTCP keeps its
    /// own under the application's) is taken to be held by the process they name, while that lives.
    pub fn apply(&mut self, transition: &Transition) {
        let Some(id) = transition.socket.id else { return };
        let (socket, at) = (&transition.socket, transition.at);
        if let (Some(owner), Some(listener)) = (socket.owner, socket.listener)
            && owner.how == How::Listener
            && !self.known.contains_key(&listener)
            && let Some(known) = self.enter(listener, socket, at)
        {
            known.claimed = Some(owner.process);
            self.claims.insert((owner.process.pid, listener));
            self.named.entry(owner.process.pid).or_insert(at);
        }
        let accepted = transition.socket.owner.filter(|owner| owner.how == How::Accept);
        let acceptor = transition.actor.or(accepted.map(|owner| owner.process));
        if let Some(acceptor) = acceptor.filter(|_| transition.socket.listener.is_some()) {
            self.note_acceptor(&transition.socket, acceptor.pid);
        }
        if transition.new == State::Listen && transition.old != State::Listen {
            // A scan may have seen it before its transition is taken from the ring.
            let Some(known) = self.enter(id, socket, at) else { return };
            known.looked = known.looked.max(at);
            known.closed = None;
            let before = std::mem::replace(&mut known.caller, transition.actor);
            if let Some(before) = before {
                self.unlink(before.pid, id);
            }
            if let Some(actor) = transition.actor {
                self.link(actor.pid, id, at);
            }
        } else if transition.old == State::Listen
            && transition.new == State::Close
            && let Some(known) = self.known.get_mut(&id)
        {
            known.closed = Some(at);
            self.closed.push_back((at, id));
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
                self.forget(id);
            }
        }
    }

    /// Notes what a scan saw of a listener.
    pub fn observe(&mut self, observation: &Observation, pass_started: Timestamp) {
        if observation.state != State::Listen {
            let server = observation.socket.role != Some(Role::Client);
            if let Some(holder) = observation.holder.filter(|_| server) {
                self.note_acceptor(&observation.socket, holder.process.pid);
            }
            return;
        }
        let Some(id) = observation.socket.id else { return };
        let (socket, at) = (&observation.socket, observation.at);
        let Some(known) = self.enter(id, socket, at) else { return };
        let there = (known.netns, known.local);
        (known.netns, known.local) = (socket.netns, socket.local);
        let begins = known.looked < pass_started;
        let before = if begins { std::mem::take(&mut known.holders) } else { BTreeSet::new() };
        known.looked = at;
        known.queue = observation.queue;
        known.waiters = observation.waiters.or(known.waiters);
        if there != (socket.netns, socket.local) {
            self.leave_address(there, id);
        }
        self.by_address.entry((socket.netns, socket.local)).or_default().insert(id);
        self.held -= before.len();
        for holder in before {
            self.unlink(holder.process.pid, id);
        }
        let Some(holder) = observation.holder else { return };
        if self.held >= MOST {
            self.overflowed += 1;
        } else if self.known.get_mut(&id).is_some_and(|known| known.holders.insert(holder)) {
            self.held += 1;
            self.link(holder.process.pid, id, at);
        }
    }

    /// Forgets a process that has ended. Its listeners stay known: whoever gets its id is not the
    /// one that their children name.
    pub fn exited(&mut self, pid: u32) {
        let held: Vec<_> = of_process(&self.by_process, pid).collect();
        for id in held {
            self.by_process.remove(&(pid, id));
            let Some(known) = self.known.get_mut(&id) else { continue };
            let holders: Vec<_> = known.held_by(pid).copied().collect();
            for holder in &holders {
                known.holders.remove(holder);
            }
            self.held -= holders.len();
            known.acceptors.retain(|&acceptor| acceptor != pid);
            known.caller = known.caller.filter(|caller| caller.pid != pid);
        }
        let claimed: Vec<_> = of_process(&self.claims, pid).collect();
        for id in claimed {
            self.claims.remove(&(pid, id));
            if let Some(known) = self.known.get_mut(&id) {
                known.claimed = None;
            }
        }
        self.named.remove(&pid);
    }

    /// Of no process it is known any more that it lives; the next scan says who holds what.
    pub fn doubt(&mut self) {
        self.by_process.clear();
        self.named.clear();
        self.held = 0;
        for (&id, known) in &mut self.known {
            known.holders.clear();
            known.acceptors.clear();
            if let Some(caller) = known.caller.take() {
                if let Some(before) = known.claimed.replace(caller) {
                    self.claims.remove(&(before.pid, id));
                }
                self.claims.insert((caller.pid, id));
            }
        }
    }

    /// A scan of all listeners that began then is complete: what was not heard of since is gone, unless
    /// the scan mentions only what changed and somebody holds it. One that only its children speak of is
    /// found again by the next of them.
    pub fn scanned(&mut self, started: Timestamp, scope: Scope) {
        let unchanged = |known: &Known| scope == Scope::Changes && !known.holders.is_empty();
        let gone =
            |known: &Known| known.looked < started && known.closed.is_none() && !unchanged(known);
        let ids: Vec<_> =
            self.known.iter().filter(|(_, known)| gone(known)).map(|(&id, _)| id).collect();
        for id in ids {
            self.forget(id);
        }
        self.after_sweep = self.known.len().saturating_sub(self.closed.len());
    }

    /// The entry of a listener, made if there is none and there is room.
    fn enter(&mut self, id: SocketId, socket: &Socket, at: Timestamp) -> Option<&mut Known> {
        if self.known.len() >= MOST && !self.known.contains_key(&id) {
            self.overflowed += 1;
            return None;
        }
        Some(self.known.entry(id).or_insert_with(|| Known::new(socket, at)))
    }

    fn forget(&mut self, id: SocketId) {
        let Some(known) = self.known.remove(&id) else { return };
        for pid in known.pids().chain(known.caller.map(|caller| caller.pid)) {
            self.unlink(pid, id);
        }
        if let Some(claimed) = known.claimed {
            self.claims.remove(&(claimed.pid, id));
            self.drop_name(claimed.pid);
        }
        self.held -= known.holders.len();
        self.leave_address((known.netns, known.local), id);
    }

    fn leave_address(&mut self, address: (u32, SocketAddr), id: SocketId) {
        let Some(there) = self.by_address.get_mut(&address) else { return };
        there.remove(&id);
        if there.is_empty() {
            self.by_address.remove(&address);
        }
    }

    fn link(&mut self, pid: u32, id: SocketId, at: Timestamp) {
        if of_process(&self.by_process, pid).next().is_none() {
            self.named.entry(pid).or_insert(at);
        }
        self.by_process.insert((pid, id));
    }

    /// Takes back what [`Self::link`] noted, unless the process is named otherwise.
    fn unlink(&mut self, pid: u32, id: SocketId) {
        if self.known.get(&id).is_some_and(|known| known.is_of(pid)) {
            return;
        }
        self.by_process.remove(&(pid, id));
        self.drop_name(pid);
    }

    /// The source need not look after a process that no listener names any more.
    fn drop_name(&mut self, pid: u32) {
        if of_process(&self.by_process, pid).next().is_none() && !self.is_claimed(pid) {
            self.named.remove(&pid);
        }
    }

    /// Whether an inherited owner can be named as it stands; if not, a scan is needed first.
    pub fn can_settle(&self, socket: &Socket) -> bool {
        match (socket.owner, socket.listener) {
            (Some(Owner { how: How::Listener, .. }), Some(id)) => {
                self.known.get(&id).is_some_and(Known::is_settled)
            }
            _ => true,
        }
    }

    /// Whether one of these processes may have accepted a connection: unless its listener is known to
    /// be in the hands of others.
    pub fn is_in_reach(&self, socket: &Socket, pids: &BTreeSet<u32>) -> bool {
        let known = socket.listener.and_then(|id| self.known.get(&id));
        let Some(known) = known.filter(|known| known.is_settled()) else { return true };
        let caller = known.caller.map(|caller| caller.pid);
        known.pids().chain(caller).any(|pid| pids.contains(&pid))
    }

    /// The owner to print: an inherited one is the recorded process if it still holds the
    /// listener, else the first that does, else nobody.
    pub fn settle(&self, socket: &Socket) -> Option<Owner> {
        let owner = socket.owner?;
        if owner.how != How::Listener {
            return Some(owner);
        }
        let known = self.known.get(&socket.listener?)?;
        if known.is_of(owner.process.pid) {
            return Some(owner);
        }
        let process = known.holders.first().map(|holder| holder.process).or(known.caller)?;
        Some(Owner { process, how: How::Listener })
    }
}

/// The listeners of a process.
fn of_process(
    index: &BTreeSet<(u32, SocketId)>,
    pid: u32,
) -> impl Iterator<Item = SocketId> + use<'_> {
    let all = (pid, SocketId(0))..=(pid, SocketId(u64::MAX));
    index.range(all).map(|&(_, id)| id)
}
