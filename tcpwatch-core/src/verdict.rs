//! What the evidence supports: since when a socket lingers, why, and how that ended. Pure
//! functions of what was seen.

use super::{
    advice::processes,
    finding::{Cause, Ending, Verdict},
    input::{Observation, Transition},
    socket::{Holder, How, Owner, Process, Socket},
    state::State,
    time::{Nanos, Timestamp},
};

const ECONNABORTED: u32 = 103;
const ETIMEDOUT: u32 = 110;

/// When a socket began to linger.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// Then,
    pub since: Timestamp,
    /// or perhaps earlier,
    pub at_least: bool,
    /// but not before this.
    pub not_before: Option<Timestamp>,
}

impl Began {
    /// At a moment that is known.
    pub fn at(moment: Timestamp) -> Self {
        Self { since: moment, at_least: false, not_before: Some(moment) }
    }
}

/// When it began to linger, as far as that is known.
///
/// For a `CLOSE_WAIT` from before we looked: the peer's FIN carried an ACK, so it is at least as old
/// as the last of those (`net/ipv4/tcp_input.c`: `tcp_ack` sets `rcv_tstamp`), and exactly as old if
/// nothing came in after it. It is never older than the last data, which came before the FIN
/// (`tcp_event_data_recv`).
pub fn entered(observation: &Observation) -> Began {
    if let Some(entered) = observation.entered {
        return Began::at(entered);
    }
    let Some(activity) = observation.activity.filter(|_| observation.state == State::CloseWait)
    else {
        return Began { since: observation.at, at_least: true, not_before: None };
    };
    let since = observation.at - activity.ack_received;
    if activity.quiet_since_fin {
        return Began::at(since);
    }
    let not_before = observation.at - activity.data_received.max(activity.ack_received);
    Began { since, at_least: true, not_before: Some(not_before) }
}

/// A dead socket that an iterator finds: closed, still with a file, and once connected, since only a
/// handshake or data yields a round-trip time.
pub fn is_dead(observation: &Observation) -> bool {
    has_file(observation) && observation.socket.tcp.is_some_and(|tcp| tcp.srtt_us > 0)
}

/// Something leads to the socket: a file descriptor, or another kernel object.
pub fn has_file(observation: &Observation) -> bool {
    observation.holder.is_some() || observation.socket.has_file
}

/// The change leaves a file descriptor behind on a socket without a connection.
pub fn leaves_fd_open(transition: &Transition) -> bool {
    transition.new == State::Close
        && transition.socket.has_file
        && transition.actor.is_none()
        && !matches!(transition.old, State::SynSent | State::SynRecv | State::Listen | State::Close)
}

/// How `CLOSE_WAIT` ended, from what was so at that moment.
pub fn ending(transition: &Transition) -> Ending {
    let cause = match (transition.new, transition.actor, transition.socket.error) {
        (_, Some(_), _) if transition.exiting => Cause::Exited,
        (State::Close, Some(_), _) if transition.disconnects => Cause::Disconnected,
        (State::Close, Some(_), _) => Cause::Aborted,
        (State::Close, None, 0) => Cause::ListenerClosed,
        (State::Close, None, error) => death(error),
        _ => Cause::Closed,
    };
    Ending { cause, by: transition.actor }
}

/// What an error says of the end of a connection.
pub fn death(error: u32) -> Cause {
    match error {
        ECONNABORTED => Cause::Destroyed,
        ETIMEDOUT => Cause::TimedOut,
        _ => Cause::Reset,
    }
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The socket at the last look.
    pub socket: &'a Socket,
    /// The state it lingers in.
    pub state: State,
    /// Everyone with an fd on it.
    pub holders: &'a [Holder],
    /// Who connected it. Who accepts a connection often hands it to a child or a worker; who connects
    /// means it for itself.
    pub connected: Option<Process>,
    /// Every holder was forked after it came in, or after it began to linger: none of them opened it.
    pub younger_holders: bool,
    /// Bytes that would be acknowledged without anything new being sent, as of the look before.
    pub expected_acked: Option<u64>,
    /// Bytes acknowledged as of the look before.
    pub acked: Option<u64>,
}

/// The verdict that they support.
pub fn verdict(facts: &Facts<'_>) -> Verdict {
    let unheld = facts.holders.is_empty() && facts.socket.has_file;
    if facts.state == State::Close {
        return if unheld { Verdict::Unheld } else { Verdict::DeadFd };
    }
    if facts.holders.is_empty() && !unheld {
        return Verdict::NeverAccepted;
    }
    if let Some(tcp) = facts.socket.tcp {
        let sent_more = facts.expected_acked.is_some_and(|expected| tcp.bytes_acked > expected);
        let takes = facts.acked.is_some_and(|acked| tcp.bytes_acked > acked);
        if sent_more || tcp.unsent > 0 && takes {
            return Verdict::HalfOpenInUse;
        }
        if tcp.unsent > 0 && !unheld {
            return Verdict::WriteBlocked;
        }
    }
    if unheld {
        return Verdict::Unheld;
    }
    let stranger = facts.connected.is_some_and(|client| !held_by(facts.holders, client.pid));
    if processes(facts.holders) > 1 || stranger || facts.younger_holders {
        return Verdict::Inherited;
    }
    match facts.socket.tcp {
        Some(tcp) if tcp.unread > 0 => Verdict::NotReading,
        _ => Verdict::NotClosed,
    }
}

/// A process's start is known to a tick of the clock, 10 ms; this much later is later for sure.
pub const START_TICK: Nanos = Nanos(20_000_000);

/// Whether a process is among the holders.
pub fn held_by(holders: &[Holder], pid: u32) -> bool {
    holders.iter().any(|holder| holder.process.pid == pid)
}

/// Which owner to keep when a look brings another: of several that were only found with an fd, the
/// first. What the socket inherited from its listener never replaces what is known of it.
pub fn prefer(before: Option<Owner>, now: Option<Owner>) -> Option<Owner> {
    let found = |owner: &Owner| owner.how == How::Fd;
    let inherited = |owner: &Owner| owner.how == How::Listener;
    match (before, now) {
        (Some(before), Some(now)) if found(&before) && found(&now) || inherited(&now) => {
            Some(before)
        }
        (before, now) => now.or(before),
    }
}

/// An owner that does not hold the socket gives way to one that does.
pub fn correct_owner(socket: &mut Socket, holders: &[Holder]) {
    let owner_holds = socket.owner.is_some_and(|owner| held_by(holders, owner.process.pid));
    if !owner_holds && let Some(holder) = holders.first() {
        socket.owner = Some(Owner { process: holder.process, how: How::Fd });
    }
}
