//! What a source tells the pipeline: facts, with their time, and nothing else.
//!
//! Live and replay build the same values, so the core cannot tell them apart.

use std::sync::Arc;

use super::{
    detail::TcpDetails,
    process::ProcessFacts,
    socket::{Holder, Process, Socket, SocketId},
    state::State,
    time::{ClockMark, Nanos, Timestamp},
    unseen::Unseen,
    waiters::Waiters,
};

/// A state change: a kernel fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Timestamp,
    /// Before.
    pub old: State,
    /// After.
    pub new: State,
    /// When it entered `old`; `None` if before we looked.
    pub entered: Option<Timestamp>,
    /// The process that made the change, where that is certain.
    pub actor: Option<Process>,
    /// That process was ending: the kernel closed its files for it.
    pub exiting: bool,
    /// That process disconnected the socket and kept its fd.
    pub disconnects: bool,
    /// The socket just before the change.
    pub socket: Socket,
}

/// A look at a socket by an iterator pass: one per (process, fd), or one without a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// State.
    pub state: State,
    /// When it entered that state; `None` if before we looked.
    pub entered: Option<Timestamp>,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Waiting connections and their limit, for a listener.
    pub queue: (u32, u32),
    /// When the connection was last active, as TCP's own timers have it.
    pub activity: Option<Activity>,
    /// Who waits for it; `None` where that cannot be read or does not matter.
    pub waiters: Option<Waiters>,
    /// Bytes the peer is ready to take; `None` if it cannot be read.
    pub send_window: Option<u32>,
    /// What `ss -i` shows, if it was asked for.
    pub details: Option<Arc<TcpDetails>>,
    /// The socket.
    pub socket: Socket,
}

/// How long ago things happened on a connection, to a jiffy (1 to 10 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The last ACK came in.
    pub ack_received: Nanos,
    /// The last data came in.
    pub data_received: Nanos,
    /// The last data was sent.
    pub data_sent: Nanos,
    /// `SO_KEEPALIVE` is set.
    pub keepalive: bool,
    /// Nothing came in after the peer's FIN: the last ACK is as old as that.
    pub quiet_since_fin: bool,
}

impl Activity {
    /// The same as seen from another moment: what was observed at `observed`, told at `at`.
    #[must_use]
    pub fn as_of(self, observed: Timestamp, at: Timestamp) -> Self {
        let (later, earlier) = (at.since(observed).0, observed.since(at).0);
        let from = |ago: Nanos| Nanos(ago.0.saturating_add(later).saturating_sub(earlier));
        Self {
            ack_received: from(self.ack_received),
            data_received: from(self.data_received),
            data_sent: from(self.data_sent),
            ..self
        }
    }
}

/// What a pass looked at, and so what it proves not to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every socket of the host.
    Everything,
    /// Sockets in the states where they linger, and listeners.
    Lingering,
    /// The same sockets, but only those that changed since the scan before are observed, and those that
    /// are gone are named ([`Input::Gone`]). A socket that is not mentioned is still there, unchanged.
    Changes,
    /// Sockets of the watched processes.
    Watched,
}

/// Everything a source can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The three clocks together. Advances time.
    Clock(ClockMark),
    /// A state change.
    Transition(Transition),
    /// One look of a pass.
    Observed(Observation),
    /// A pass begins; its looks follow.
    PassBegin {
        /// When it began.
        at: Timestamp,
        /// What it covers.
        scope: Scope,
    },
    /// A scan did not find a socket that an earlier one had observed.
    Gone {
        /// When the scan began.
        at: Timestamp,
        /// The socket.
        id: SocketId,
    },
    /// The scans of this run do not see sockets of a kind.
    Unseen {
        /// When that was learnt.
        at: Timestamp,
        /// The kind.
        what: Unseen,
    },
    /// The pass is complete: what it did not see was not there when it began, except in a scan of
    /// [`Scope::Changes`].
    PassEnd {
        /// When it was done.
        at: Timestamp,
    },
    /// A pass could not be run: what waits for one will not be confirmed.
    PassFailed {
        /// When.
        at: Timestamp,
    },
    /// Transitions were lost.
    Lost {
        /// When we learnt of it.
        at: Timestamp,
        /// How many more than before.
        count: u64,
    },
    /// Part of a recording is missing: anything may have happened.
    Gap {
        /// When what follows goes on.
        at: Timestamp,
        /// Transitions that are missing.
        count: u64,
    },
    /// A process that the pipeline asked about is alive.
    Running {
        /// When we learnt of it.
        at: Timestamp,
        /// Its id.
        pid: u32,
    },
    /// A process that the pipeline asked about has ended.
    Exited {
        /// When we learnt of it.
        at: Timestamp,
        /// Its id.
        pid: u32,
    },
    /// What a process says of itself, as evidence for the findings of the present pass.
    Process(Arc<ProcessFacts>),
    /// A network namespace has a name, or has lost it.
    Namespace {
        /// When we learnt of it.
        at: Timestamp,
        /// Its inode.
        inode: u32,
        /// Its name; `None` if it has none any more.
        name: Option<Arc<str>>,
    },
    /// A process joins those that are watched: a followed one is its parent.
    Followed {
        /// When we learnt of it.
        at: Timestamp,
        /// Its id.
        pid: u32,
    },
    /// The source ends here.
    End {
        /// When.
        at: Timestamp,
    },
}

impl Input {
    /// When it happened, or was learnt.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Clock(mark) => mark.mono,
            Self::Transition(transition) => transition.at,
            Self::Observed(observation) => observation.at,
            Self::PassBegin { at, .. }
            | Self::PassEnd { at }
            | Self::Gone { at, .. }
            | Self::Unseen { at, .. }
            | Self::PassFailed { at }
            | Self::Lost { at, .. }
            | Self::Gap { at, .. }
            | Self::Running { at, .. }
            | Self::Exited { at, .. }
            | Self::Namespace { at, .. }
            | Self::Followed { at, .. }
            | Self::End { at } => *at,
            Self::Process(facts) => facts.at,
        }
    }
}

impl Transition {
    /// Time spent in the old state; `None` if it was entered before we looked.
    pub fn in_state(&self) -> Option<Nanos> {
        self.entered.map(|entered| self.at.since(entered))
    }

    /// From birth to `CLOSE`; `None` while it lives, or if it was born before we looked.
    pub fn lifetime(&self) -> Option<Nanos> {
        let born = self.socket.born.filter(|_| self.new == State::Close)?;
        Some(self.at.since(born))
    }
}
