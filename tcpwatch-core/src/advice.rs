//! One sentence per finding that a person can act on.

use super::{
    finding::{Cause, Finding, Status, Verdict},
    socket::{Holder, How, Owner, Process, Role, Socket},
    state::State,
    waiters::Waiting,
};

const EPIPE: u32 = 32;
const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

/// The sentence.
pub fn summary(finding: &Finding) -> String {
    if finding.status == Status::Ended {
        return ended(finding);
    }
    let at_least = if finding.at_least { "at least " } else { "" };
    let linger = finding.linger;
    let who = who(finding);
    let peer = finding.socket.remote;
    let bytes = unread_data(finding);
    let has = if processes(&finding.holders) > 1 { "have" } else { "has" };
    match finding.verdict {
        None => format!(
            "{peer} closed {at_least}{linger} ago and the socket is still open; no pass could confirm who holds it"
        ),
        Some(Verdict::NeverAccepted) => never_accepted(finding),
        Some(Verdict::NotReading) if bytes > 0 => format!(
            "{who} {has} not read the last {} from {peer}, which closed {at_least}{linger} ago: {}",
            count(bytes.into(), "byte"),
            not_reading(finding)
        ),
        Some(Verdict::NotReading) => format!(
            "{who} {has} not noticed that {peer} closed {at_least}{linger} ago: {}",
            not_reading(finding)
        ),
        Some(Verdict::NotClosed) if finding.socket.tcp.is_none() => format!(
            "{who} {has} not closed the connection that {peer} closed {at_least}{linger} ago (what is unread is not known for MPTCP)"
        ),
        Some(Verdict::NotClosed) => format!(
            "{who} {has} read everything from {peer}, which closed {at_least}{linger} ago, but {has} not called close{}",
            not_closed(finding)
        ),
        Some(Verdict::WriteBlocked) => format!(
            "{who} {has} {} for {peer} that it does not acknowledge, {at_least}{linger} after it closed its side{}",
            count(finding.socket.tcp.map_or(0, |tcp| tcp.unsent.into()), "byte"),
            write_blocked(finding)
        ),
        Some(Verdict::HalfOpenInUse) => format!(
            "{peer} closed its side {at_least}{linger} ago and still takes data from {who}: a deliberate half-close, not a leak"
        ),
        Some(Verdict::Inherited) => inherited(finding),
        Some(Verdict::DeadFd) => format!(
            "the connection to {peer} is gone ({}), but {who} {has} kept the file descriptor for {at_least}{linger}",
            death(finding)
        ),
        Some(Verdict::Unheld) => unheld(finding),
    }
}

/// The first sentence of [`remedy`], where there is little room.
pub fn remedy_in_short(verdict: Option<Verdict>) -> &'static str {
    let remedy = remedy(verdict);
    remedy.split_once(". ").map_or(remedy, |(first, _)| first)
}

/// What to do about what lingers for this reason; `None` is what no pass could confirm.
pub fn remedy(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        None => {
            "No look could tell who holds it. tcpwatch leaks, as root on the host, tells while it lingers."
        }
        Some(Verdict::NeverAccepted) => {
            "Find what keeps the listener from calling accept: a blocked accept loop, or workers that are all busy. New connections fail once its queue is full."
        }
        Some(Verdict::NotReading) => {
            "Find who should read it: a worker or event loop that is blocked, or a pool that keeps idle connections without looking at them. Whoever reads learns of the end, and can close."
        }
        Some(Verdict::NotClosed) => {
            "Find the code that learns of the end, by a read that returns 0, and goes on without close: most often an error path or an early return."
        }
        Some(Verdict::WriteBlocked) => {
            "The peer takes no data. With a time limit on writes, or TCP_USER_TIMEOUT, the program can give up and close."
        }
        Some(Verdict::HalfOpenInUse) => "Nothing: one side is closed on purpose.",
        Some(Verdict::Inherited) => {
            "Open sockets with SOCK_CLOEXEC (socket, accept4), or close them in the child after fork."
        }
        Some(Verdict::Unheld) => {
            "Find the process that was sent it over a unix socket and has not received it, or the io_uring ring that keeps it as a direct descriptor. ss shows it without a process."
        }
        Some(Verdict::DeadFd) => {
            "Close it when a read, a write or epoll reports the error (EPOLLHUP, EPOLLERR). Until then its descriptor is lost, and no other tool shows it."
        }
    }
}

fn ended(finding: &Finding) -> String {
    let linger = finding.linger;
    let at_least = if finding.at_least { "at least " } else { "" };
    let Some(ending) = finding.ending else {
        return format!("over after {at_least}{linger}");
    };
    // Its beginning is not known, or not its end.
    let about = if finding.at_least { "about" } else { "at most" };
    let by = ending.by.map_or_else(String::new, |process| format!(" by {process}"));
    match ending.cause {
        Cause::Closed => format!("closed after {at_least}{linger}{by}"),
        Cause::Exited => {
            format!("never closed: its process ended after {at_least}{linger}{}", of(ending.by))
        }
        Cause::Aborted => format!("closed with a reset after {at_least}{linger}{by}"),
        Cause::Disconnected => format!(
            "disconnected after {at_least}{linger}{by}, as with connect(AF_UNSPEC); the fd stays open"
        ),
        Cause::Reset | Cause::TimedOut | Cause::Destroyed if !finding.socket.has_file => format!(
            "{} after {at_least}{linger}, before anybody had accepted it",
            death_of(ending.cause)
        ),
        Cause::Reset => {
            format!("reset by {} after {at_least}{linger}; the fd is closed", finding.socket.remote)
        }
        Cause::TimedOut => format!("timed out after {at_least}{linger}; the fd is closed"),
        Cause::Destroyed => {
            format!("destroyed (as by ss -K) after {at_least}{linger}; the fd is closed")
        }
        Cause::ListenerClosed => format!("its listener was closed after {at_least}{linger}"),
        Cause::FdClosed => {
            format!("the fd was closed or used anew; it had lingered for {about} {linger}")
        }
        Cause::InUse => format!(
            "in use: {} takes data {at_least}{linger} after it closed its side",
            finding.socket.remote
        ),
        Cause::Gone => format!("gone after {about} {linger}; its end was not seen"),
    }
}

fn of(process: Option<Process>) -> String {
    process.map_or_else(String::new, |process| format!(" ({process})"))
}

/// Why nobody reads, from who waits for the socket and what its process does.
fn not_reading(finding: &Finding) -> String {
    if let Some(how) = halted(finding) {
        return format!("the process is {how}");
    }
    let Some(waiters) = finding.evidence.waiters else {
        return "a forgotten pool connection, or a blocked worker or loop".to_owned();
    };
    // Who waited on the set of this one would have been woken.
    let elsewhere = finding.evidence.process.as_ref().and_then(|process| process.waits_in_epoll());
    let why = match waiters.waiting() {
        Waiting::Nobody => {
            "nobody waits for this socket, as with a forgotten pool connection or a worker that is busy elsewhere"
        }
        Waiting::Level if elsewhere == Some(true) => {
            "it is in an epoll set that nobody waits on now; the thread that waits does so on another"
        }
        Waiting::Level if elsewhere == Some(false) => {
            "epoll tells its event loop at every turn, which does not come to it, or ignores it: a blocked or careless loop"
        }
        Waiting::Level => {
            "it is in an epoll set that reports it at every turn; whether a thread waits on that set, on another or on none is not known"
        }
        Waiting::Several => "it is registered with epoll several times, and nobody reads it",
        Waiting::Edge if elsewhere == Some(true) => {
            "epoll has told its event loop once (edge-triggered), and it was not read to the end"
        }
        Waiting::Edge => {
            "it is in epoll edge-triggered, and nobody is known to wait there now: a blocked loop, or one that was told once and did not read to the end"
        }
        Waiting::Disarmed => {
            "its one-shot epoll registration has fired and was not armed again: a worker took it and did not come back"
        }
        Waiting::NotForReading => "it is in epoll, but not for reading, so nobody will be told",
        Waiting::Blocked => "a thread is blocked in another call on this socket",
        // A poll for input would have returned; but a multishot poll of io_uring stays in the queue when it
        // has reported (`io_uring/poll.c`: `io_poll_wake`).
        Waiting::Polled => {
            "it is polled, but either not for reading, or by io_uring, which may have reported it long ago"
        }
    };
    why.to_owned()
}

/// What keeps a socket from being closed, where its waiters show it.
fn not_closed(finding: &Finding) -> String {
    if let Some(how) = halted(finding) {
        return format!("; the process is {how}");
    }
    let more = match finding.evidence.waiters.map(|waiters| waiters.waiting()) {
        Some(Waiting::Edge) => {
            "; it is in epoll edge-triggered, which will not tell again: was the last read the one that took the last data?"
        }
        Some(Waiting::Level) => "; epoll still tells its event loop, at every turn",
        Some(Waiting::Disarmed) => "; its one-shot epoll registration was not armed again",
        Some(Waiting::NotForReading) => "; it is in epoll, but not for reading",
        _ => "",
    };
    more.to_owned()
}

fn write_blocked(finding: &Finding) -> String {
    let retransmits = finding.socket.tcp.map_or(0, |tcp| tcp.retransmits);
    if finding.evidence.send_window.is_some_and(|window| window > 0) && retransmits > 0 {
        return format!(
            " ({} into an open window): the path or the peer is gone",
            count(retransmits.into(), "retransmission")
        );
    }
    let closed = finding.evidence.send_window == Some(0);
    let blocked = finding.evidence.waiters.is_some_and(|waiters| waiters.blocked > 0);
    let why = match (closed, blocked) {
        (true, true) => ": the peer's window is closed, and a thread is blocked in a call on it",
        (true, false) => ": the peer's window is closed",
        (false, true) => "; a thread is blocked in a call on it",
        (false, false) => "",
    };
    why.to_owned()
}

fn halted(finding: &Finding) -> Option<&'static str> {
    finding.evidence.process.as_ref()?.halted()
}

/// Whether those who should accept can.
fn halted_listeners(finding: &Finding) -> String {
    let all = finding.listener.as_ref().map_or(0, |listener| processes(listener.acceptors()));
    match (halted(finding), finding.evidence.halted) {
        (Some(how), 1) if all == 1 => format!(" (the process is {how})"),
        (_, 0) => String::new(),
        (_, some) if finding.evidence.asked < all => format!(
            " ({some} of {} of its {all} processes that were asked are stopped or frozen)",
            finding.evidence.asked
        ),
        (_, some) => format!(" ({some} of its {all} processes are stopped or frozen)"),
    }
}

fn never_accepted(finding: &Finding) -> String {
    let peer = finding.socket.remote;
    let linger = finding.linger;
    let at_least = if finding.at_least { "at least " } else { "" };
    let Some(listener) = &finding.listener else {
        return format!(
            "{peer} connected and closed {at_least}{linger} ago; nobody has accepted it"
        );
    };
    format!(
        "{} on {} {} not accepting{}: {peer} connected and closed {at_least}{linger} ago and still waits in the queue{}",
        names(listener.acceptors()),
        listener.local,
        if processes(listener.acceptors()) > 1 { "are" } else { "is" },
        halted_listeners(finding),
        if listener.queue_limit == 0 {
            String::new()
        } else {
            format!(" ({} of {})", listener.queue_len, listener.queue_limit)
        }
    )
}

fn inherited(finding: &Finding) -> String {
    let peer = finding.socket.remote;
    let linger = finding.linger;
    let at_least = if finding.at_least { "at least " } else { "" };
    let holders = names(&finding.holders);
    let held = |pid| finding.holders.iter().any(|holder| holder.process.pid == pid);
    let several = processes(&finding.holders) > 1;
    let opener = match (finding.evidence.server, finding.evidence.opener) {
        (Some(server), _) => format!(
            ", which came through {server} at :{} before {} started",
            finding.socket.local.port(),
            match finding.holders.first() {
                Some(holder) if !several => format!("{} was", holder.process),
                _ => "they were".to_owned(),
            }
        ),
        (None, Some(opener)) if !held(opener.pid) => {
            format!(", which {opener} opened and does not hold any more")
        }
        _ => String::new(),
    };
    let unread = match unread_data(finding) {
        0 => String::new(),
        bytes => format!(", with {} unread", count(bytes.into(), "byte")),
    };
    let hint = if several {
        "a child that inherits an fd keeps it open (missing CLOEXEC, or no close after fork)"
    } else {
        "it was inherited or handed over; if nobody meant that, CLOEXEC is missing"
    };
    format!(
        "{holders} hold{} a connection that {peer} closed {at_least}{linger} ago{opener}{unread}; {hint}",
        if several { "" } else { "s" }
    )
}

fn unheld(finding: &Finding) -> String {
    let peer = finding.socket.remote;
    let linger = finding.linger;
    let at_least = if finding.at_least { "at least " } else { "" };
    let port = finding.socket.local.port();
    let owner = match finding.socket.owner {
        Some(Owner { process, how: How::Listener }) => {
            format!(", which came in through {process} at :{port}")
        }
        Some(Owner { process, .. }) => format!(", which {process} had"),
        None => String::new(),
    };
    let what = if finding.state == State::Close {
        format!("to {peer}, which has been gone for {at_least}{linger} ({})", death(finding))
    } else {
        format!("that {peer} closed {at_least}{linger} ago")
    };
    format!(
        "no file descriptor leads to the connection {what}{owner}: it is in flight over a unix socket, in an io_uring ring, or held by the kernel itself"
    )
}

/// `1 byte`, `2 bytes`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How many different processes hold it.
pub fn processes(holders: &[Holder]) -> usize {
    if holders.len() < 2 {
        return holders.len();
    }
    let mut pids: Vec<_> = holders.iter().map(|holder| holder.process.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.len()
}

/// Holders as `name[pid] fd N, …`; at most four are named.
pub fn names(holders: &[Holder]) -> String {
    const NAMED: usize = 4;
    if holders.is_empty() {
        return "nobody".to_owned();
    }
    let mut text: Vec<_> =
        holders.iter().take(NAMED).map(|h| format!("{} fd {}", h.process, h.fd)).collect();
    if holders.len() > NAMED {
        text.push(format!("{} more", holders.len() - NAMED));
    }
    text.join(", ")
}

fn who(finding: &Finding) -> String {
    match (&finding.holders[..], finding.socket.owner) {
        ([], None) => "nobody we can name".to_owned(),
        ([], Some(owner)) if finding.verdict.is_none() => owner.process.to_string(),
        ([], Some(owner)) => format!(
            "{}, which has no fd on it now (in flight between processes, or in io_uring),",
            owner.process
        ),
        (holders, _) => names(holders),
    }
}

/// Unread bytes without the FIN, which counts as one.
fn unread_data(finding: &Finding) -> u32 {
    finding.socket.tcp.map_or(0, |tcp| tcp.unread.saturating_sub(1))
}

fn death_of(cause: Cause) -> &'static str {
    match cause {
        Cause::TimedOut => "timed out",
        Cause::Destroyed => "destroyed (as by ss -K)",
        _ => "reset by the peer",
    }
}

/// How it ended. A program that reads the error clears it, so without one the end must have been
/// seen.
fn death(finding: &Finding) -> &'static str {
    match finding.socket.error {
        EPIPE | ECONNRESET => "reset by the peer",
        ETIMEDOUT => "timed out",
        ECONNABORTED => "destroyed, as by ss -K",
        0 if finding.at_least => "how is not known",
        0 => "both sides closed it",
        _ => "an error ended it",
    }
}

/// Which way the connection was opened, between the local and the remote end.
pub fn arrow(socket: &Socket) -> &'static str {
    match socket.role {
        Some(Role::Client) => "->",
        Some(Role::Server) => "<-",
        None => "  ",
    }
}
