//! What is known of one listener.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    comm::Comm,
    finding::Listener,
    socket::{Holder, Process, Socket},
    time::Timestamp,
    waiters::Waiters,
};

/// What is known of a listener.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it listens.
    pub(super) local: SocketAddr,
    pub(super) netns: u32,
    /// Who holds it, lowest pid first.
    pub(super) holders: BTreeSet<Holder>,
    /// Holders of which it is known that they accept: each had a connection of this listener.
    pub(super) acceptors: Vec<u32>,
    /// A scan of everything has looked for acceptors.
    pub(super) searched: bool,
    /// The process that called `listen`, while it lives.
    pub(super) caller: Option<Process>,
    /// The process that a child names, until it is known to live.
    pub(super) claimed: Option<Process>,
    /// Waiting connections and their limit.
    pub(super) queue: (u32, u32),
    pub(super) waiters: Option<Waiters>,
    /// When it was last heard of.
    pub(super) looked: Timestamp,
    pub(super) closed: Option<Timestamp>,
}

impl Known {
    pub(super) fn new(socket: &Socket, at: Timestamp) -> Self {
        Self {
            local: socket.local,
            netns: socket.netns,
            holders: BTreeSet::new(),
            acceptors: Vec::new(),
            searched: false,
            caller: None,
            claimed: None,
            queue: (0, 0),
            waiters: None,
            looked: at,
            closed: None,
        }
    }

    /// Its holders that are this process, one for each descriptor.
    pub(super) fn held_by(&self, pid: u32) -> impl Iterator<Item = &Holder> {
        let first = Holder { process: Process { pid, comm: Comm::default() }, fd: 0 };
        self.holders.range(first..).take_while(move |holder| holder.process.pid == pid)
    }

    /// Whether this process holds it.
    pub fn is_held_by(&self, pid: u32) -> bool {
        self.held_by(pid).next().is_some()
    }

    /// Whether this process is known to hold it, or to have called `listen` and to live.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        self.caller.is_some_and(|caller| caller.pid == pid) || self.is_held_by(pid)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.caller.is_some() || !self.holders.is_empty()
    }

    /// How many processes hold it.
    fn processes(&self) -> usize {
        let mut last = None;
        self.pids().filter(|&pid| last.replace(pid) != Some(pid)).count()
    }

    /// The processes that hold it.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.holders.iter().map(|holder| holder.process.pid)
    }

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
        !self.knows_acceptors() && !self.searched && self.processes() != 1
    }

    fn knows_acceptors(&self) -> bool {
        self.holders.iter().any(|holder| self.accepts(holder))
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
