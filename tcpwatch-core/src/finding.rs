//! A finding: the conclusion about one lingering socket, with its evidence.

use std::{net::SocketAddr, sync::Arc};

use super::{
    detail::TcpDetails,
    input::Activity,
    process::ProcessFacts,
    socket::{Holder, Process, Socket},
    state::State,
    time::{Nanos, Timestamp},
    waiters::Waiters,
};

/// Why a socket lingers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No fd: still in the accept queue.
    NeverAccepted,
    /// The peer said goodbye and the program has not read up to it.
    NotReading,
    /// Everything was read; `close` never came.
    NotClosed,
    /// Data is unsent and the peer takes none.
    WriteBlocked,
    /// Data still flows to the peer: a deliberate half-close, not a leak.
    HalfOpenInUse,
    /// A process that did not open it, or several, hold it.
    Inherited,
    /// The connection is gone, the fd is not.
    DeadFd,
    /// It has been accepted or connected, and no file descriptor leads to it.
    Unheld,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 8] = [
        Self::NeverAccepted,
        Self::NotReading,
        Self::NotClosed,
        Self::WriteBlocked,
        Self::HalfOpenInUse,
        Self::Inherited,
        Self::DeadFd,
        Self::Unheld,
    ];

    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::NeverAccepted => "never-accepted",
            Self::NotReading => "not-reading",
            Self::NotClosed => "not-closed",
            Self::WriteBlocked => "write-blocked",
            Self::HalfOpenInUse => "half-open-in-use",
            Self::Inherited => "inherited",
            Self::DeadFd => "dead-fd",
            Self::Unheld => "unheld",
        }
    }

    /// Whether such a socket takes one of its process's file descriptors.
    pub fn takes_fd(self) -> bool {
        !matches!(self, Self::NeverAccepted | Self::Unheld)
    }
}

/// Where a finding is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Shown for the first time.
    Open,
    /// It is still there.
    Still,
    /// It is over; [`Finding::ending`] says how.
    Ended,
}

impl Status {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Still => "still",
            Self::Ended => "ended",
        }
    }
}

/// How lingering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The program closed it in order.
    Closed,
    /// It was never closed: its process ended, and the kernel closed what was left.
    Exited,
    /// The program closed it with data unread, or with `SO_LINGER` 0: the peer got a reset.
    Aborted,
    /// The program disconnected it and kept its fd, which may connect again: `connect` with `AF_UNSPEC`.
    Disconnected,
    /// The peer reset it.
    Reset,
    /// A keepalive or user time-out.
    TimedOut,
    /// Somebody destroyed it (`ss -K`).
    Destroyed,
    /// The listener was closed before anyone accepted it.
    ListenerClosed,
    /// The fd of a dead socket was closed, or has another connection; the moment is not known, only that it
    /// was by now.
    FdClosed,
    /// It is in use after all: data flows to the peer.
    InUse,
    /// It is not there any more and its end was not seen.
    Gone,
}

impl Cause {
    /// Every cause, in the order of its declaration.
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Exited,
        Self::Aborted,
        Self::Disconnected,
        Self::Reset,
        Self::TimedOut,
        Self::Destroyed,
        Self::ListenerClosed,
        Self::FdClosed,
        Self::InUse,
        Self::Gone,
    ];

    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Exited => "exited",
            Self::Aborted => "aborted",
            Self::Disconnected => "disconnected",
            Self::Reset => "reset",
            Self::TimedOut => "timed-out",
            Self::Destroyed => "destroyed",
            Self::ListenerClosed => "listener-closed",
            Self::FdClosed => "fd-closed",
            Self::InUse => "in-use",
            Self::Gone => "gone",
        }
    }
}

/// How and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How.
    pub cause: Cause,
    /// Who, where it is certain.
    pub by: Option<Process>,
}

/// The listener of a socket nobody accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub local: SocketAddr,
    /// Who holds it: those that are known to accept connections first.
    pub holders: Vec<Holder>,
    /// How many of these are known to accept; 0 if that is known of none.
    pub accepting: usize,
    /// Connections that wait to be accepted.
    pub queue_len: u32,
    /// Most that may wait.
    pub queue_limit: u32,
    /// Who waits for connections; `None` where that cannot be read.
    pub waiters: Option<Waiters>,
}

impl Listener {
    /// Those who should accept: the holders that are known to, else all of them.
    pub fn acceptors(&self) -> &[Holder] {
        match self.holders.get(..self.accepting) {
            Some(accepting) if !accepting.is_empty() => accepting,
            _ => &self.holders,
        }
    }
}

/// What the last look at the socket showed beyond its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who waits for the socket.
    pub waiters: Option<Waiters>,
    /// When a scan last saw the socket, or found it unchanged.
    pub seen: Timestamp,
    /// When the connection was last active, as of then; [`Finding::activity`] is as of the finding.
    pub activity: Option<Activity>,
    /// Bytes the peer is ready to take.
    pub send_window: Option<u32>,
    /// What `ss -i` shows, if it was asked for.
    pub details: Option<Arc<TcpDetails>>,
    /// The process that opened it, as the transitions said.
    pub opener: Option<Process>,
    /// The server that it came in through, where every holder is known to have been started later.
    pub server: Option<Process>,
    /// What its process, or for [`Verdict::NeverAccepted`] the listener's, says of itself.
    pub process: Option<Arc<ProcessFacts>>,
    /// How many of its processes were asked,
    pub asked: usize,
    /// and how many of those do not run at all: stopped, or frozen.
    pub halted: usize,
}

impl Evidence {
    /// A scan that began then found nothing changed.
    pub fn stands(&mut self, at: Timestamp) {
        self.activity = self.activity.map(|activity| activity.as_of(self.seen, at));
        self.seen = at;
    }
}

/// Evidence that is no older than this is of the same moment.
const FRESH: Nanos = Nanos(2_000_000_000);

/// The conclusion about one socket at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The deadline that it passed, or when it ended.
    pub at: Timestamp,
    /// Where it is in its life.
    pub status: Status,
    /// Why it lingers; `None` when no pass could confirm it.
    pub verdict: Option<Verdict>,
    /// State it lingers in.
    pub state: State,
    /// For how long.
    pub linger: Nanos,
    /// It may be longer: the socket was in that state before we looked.
    pub at_least: bool,
    /// It is not longer than this, as far as TCP's own times tell.
    pub at_most: Option<Nanos>,
    /// The socket; its owner is corrected by what the pass saw.
    pub socket: Socket,
    /// Everyone with an fd on it.
    pub holders: Vec<Holder>,
    /// For [`Verdict::NeverAccepted`].
    pub listener: Option<Listener>,
    /// What else was seen.
    pub evidence: Evidence,
    /// Name of its network namespace, where it has one.
    pub netns_name: Option<Arc<str>>,
    /// For [`Status::Ended`].
    pub ending: Option<Ending>,
    /// Open findings with the same owner, this one included.
    pub same_owner: usize,
}

impl Finding {
    /// As it stands at a later moment.
    #[must_use]
    pub fn as_of(&self, now: Timestamp) -> Self {
        let mut finding = self.clone();
        finding.linger = now.since(self.at - self.linger);
        finding.at_most = self.at_most.map(|most| now.since(self.at - most));
        finding.at = now;
        finding
    }

    /// When the connection was last active, as of the moment that the finding is about; 0 is also
    /// what came after that. `None` where the last scan was too long before.
    pub fn activity(&self) -> Option<Activity> {
        let activity = self.evidence.activity.filter(|_| self.is_fresh())?;
        Some(activity.as_of(self.evidence.seen, self.at))
    }

    /// How long before the moment that the finding is about the last scan saw the socket.
    pub fn stale_by(&self) -> Nanos {
        self.at.since(self.evidence.seen)
    }

    /// Whether the evidence is of the moment that the finding is about.
    pub fn is_fresh(&self) -> bool {
        self.stale_by() <= FRESH
    }
}
