//! Every transition: each of the kernel's once in tcpwatch's lines and none more, in order, socket by
//! socket.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

use super::{
    report::{LeftOut, Report},
    said::{Line, Transition},
    seconds,
    state::State,
    subflows::Strangers,
    trace::{Event, MPTCP},
};

/// How far apart two programs at one tracepoint are at most: an interrupt, or a busy host, may come between.
const FAR_NS: u64 = 9_000_000;
/// What a port, an address or a process that differs counts for, and an event that need not be shown.
const UNLIKE_NS: u64 = 20_000;
const STRANGE_NS: u64 = 20_000;
/// `in_state_ns` is exact but for the kernel's rounding.
const EXACT_NS: u64 = 1_000;

/// Both states, and whether it is MPTCP's.
type Kind = (State, State, bool);

/// An event and what tcpwatch said of it.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) event: &'a Event,
    pub(super) line: &'a Line,
    pub(super) said: &'a Transition,
}

impl Pair<'_> {
    /// The socket begins to connect or to listen.
    fn is_born(&self) -> bool {
        self.event.old == State::CLOSE && self.event.new != State::CLOSE
    }

    /// It has another socket's address, or another connection, from here on.
    fn begins_a_life(&self) -> bool {
        self.is_born() || self.event.old == State::LISTEN && self.event.new != State::CLOSE
    }
}

/// What belongs together, and what has nothing to belong to.
pub(super) struct Matched<'a> {
    pub(super) pairs: Vec<Pair<'a>>,
    missing: Vec<&'a Event>,
    extra: Vec<&'a Line>,
}

/// Compares all of it; the paths of sockets, by tcpwatch's number.
pub(super) fn compare<'a>(
    events: &'a [Event],
    lines: &'a [Line],
    span: RangeInclusive<u64>,
    strangers: &Strangers,
    report: &mut Report,
) -> HashMap<u64, Vec<Pair<'a>>> {
    let matched = Matched::new(events, lines, &span, strangers);
    report.compared("transitions", matched.pairs.len());
    let hurt = missing(&matched, strangers, report);
    for line in &matched.extra {
        report.deviation("transition-extra", line.at(), &line.text);
    }
    let mut paths: HashMap<u64, Vec<Pair<'a>>> = HashMap::new();
    let mut sk_of = HashMap::new();
    for pair in &matched.pairs {
        let Some(socket) = pair.said.socket else {
            report.deviation("no-number", pair.event.ns, &show(pair));
            continue;
        };
        let path = paths.entry(socket).or_default();
        let sk = *sk_of.entry(socket).or_insert(pair.event.sk);
        if sk != pair.event.sk && !hurt.contains_key(&sk) {
            report.deviation("two-sockets-with-one-number", pair.event.ns, &show(pair));
        }
        follow(path, pair, &hurt, report);
        ends(pair, report);
        port(path, pair, report);
        path.push(*pair);
    }
    one_number(&matched.pairs, &hurt, report);
    order(lines, report);
    report.compared("sockets", paths.len());
    paths
}

impl<'a> Matched<'a> {
    fn new(
        events: &'a [Event],
        lines: &'a [Line],
        span: &RangeInclusive<u64>,
        strangers: &Strangers,
    ) -> Self {
        let mut free: HashMap<Kind, BTreeMap<(u64, usize), &'a Line>> = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            let Some(said) = line.transition().filter(|said| span.contains(&said.mono_ns)) else {
                continue;
            };
            let kind = (said.old, said.new, said.is_mptcp());
            free.entry(kind).or_default().insert((said.mono_ns, at), line);
        }
        let events: Vec<_> = events.iter().filter(|event| span.contains(&event.ns)).collect();
        let mut candidates = Vec::new();
        for (number, event) in events.iter().enumerate() {
            let kind = (event.old, event.new, event.protocol == MPTCP);
            let around = (event.ns.saturating_sub(FAR_NS), 0)..=(event.ns + FAR_NS, usize::MAX);
            let Some(lines) = free.get(&kind) else { continue };
            for ((_, at), line) in lines.range(around) {
                let said = line.transition().filter(|said| alike(event, said));
                if let Some(said) = said {
                    let strange = strangers.contains(event)
                        || strangers.subflows.contains(&(event.sk, event.ns));
                    let stranger = if strange { STRANGE_NS } else { 0 };
                    candidates.push((distance(event, said) + stranger, number, *at, *line, said));
                }
            }
        }
        // The nearest first: each event has one line, and each line one event.
        candidates.sort_by_key(|(distance, number, at, ..)| (*distance, *number, *at));
        let mut matched = Self { pairs: Vec::new(), missing: Vec::new(), extra: Vec::new() };
        let (mut used, mut found) = (HashSet::new(), HashSet::new());
        for (_, number, at, line, said) in candidates {
            if !used.contains(&at) && found.insert(number) {
                used.insert(at);
                matched.pairs.push(Pair { event: events[number], line, said });
            }
        }
        let rest = |(number, _): &(usize, &&Event)| !found.contains(number);
        matched.missing = events.iter().enumerate().filter(rest).map(|(_, event)| *event).collect();
        matched.extra = free
            .into_values()
            .flatten()
            .filter_map(|((_, at), line)| (!used.contains(&at)).then_some(line))
            .collect();
        matched.pairs.sort_by_key(|pair| pair.event.ns);
        matched.put_in_order();
        matched
    }

    /// A socket that goes the same way twice within microseconds: the first is the first.
    fn put_in_order(&mut self) {
        let mut alike: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, Pair { event, .. }) in self.pairs.iter().enumerate() {
            alike.entry((event.sk, event.old, event.new)).or_default().push(at);
        }
        for places in alike.into_values() {
            let mut lines: Vec<_> =
                places.iter().map(|at| (self.pairs[*at].line, self.pairs[*at].said)).collect();
            lines.sort_by_key(|(_, said)| said.mono_ns);
            for (at, (line, said)) in places.into_iter().zip(lines) {
                (self.pairs[at].line, self.pairs[at].said) = (line, said);
            }
        }
    }
}

/// How unlike they are, as a time: two programs at one tracepoint run microseconds apart, unless something
/// comes between.
fn distance(event: &Event, said: &Transition) -> u64 {
    let unlike = [
        event.sport != said.local.port,
        event.dport != said.remote.port,
        event.local != said.local.addr,
        event.remote != said.remote.addr,
        said.by.as_ref().is_some_and(|by| by.pid != event.tid),
    ];
    let count: u64 = unlike.into_iter().map(u64::from).sum();
    event.ns.abs_diff(said.mono_ns) + count * UNLIKE_NS
}

/// They may be the same: ports that the tracepoint does not have yet or no more are left to later checks.
fn alike(event: &Event, said: &Transition) -> bool {
    let ended_mptcp = event.protocol == MPTCP && event.new == State::CLOSE;
    let port = |kernel: u16, said: u16| kernel == said || kernel == 0 || said == 0;
    let address = |kernel: std::net::IpAddr, said: std::net::IpAddr| {
        kernel.is_unspecified() || said.is_unspecified() || kernel == said
    };
    (port(event.sport, said.local.port) || ended_mptcp)
        && port(event.dport, said.remote.port)
        && address(event.local, said.local.addr)
        && address(event.remote, said.remote.addr)
}

/// What tcpwatch has not said. Returns when sockets lost something on top of process 1, where no program is run.
fn missing(
    matched: &Matched<'_>,
    strangers: &Strangers,
    report: &mut Report,
) -> HashMap<u64, Vec<u64>> {
    let mut hurt: HashMap<u64, Vec<u64>> = HashMap::new();
    for event in &matched.missing {
        if strangers.on_init(event) {
            hurt.entry(event.sk).or_default().push(event.ns);
        } else if strangers.subflows.contains(&(event.sk, event.ns)) {
            report.leave_out(LeftOut::Subflow);
        } else if !strangers.contains(event) {
            report.deviation("transition-missing", event.ns, &event.to_string());
        }
    }
    for (sk, times) in &hurt {
        for ns in times {
            // The next one of this life that was said must say that something is missing.
            let next =
                matched.pairs.iter().find(|pair| pair.event.sk == *sk && pair.event.ns > *ns);
            match next.filter(|pair| !pair.begins_a_life()) {
                Some(pair) if !pair.said.uncertain => {
                    report.deviation("gap-not-flagged", pair.event.ns, &show(pair));
                }
                _ => report.leave_out(LeftOut::OnInit),
            }
        }
    }
    hurt
}

/// It follows from what was said before.
fn follow(path: &[Pair<'_>], pair: &Pair<'_>, hurt: &HashMap<u64, Vec<u64>>, report: &mut Report) {
    let Pair { event, said, .. } = pair;
    if said.lifetime_ns.is_some() && said.new != State::CLOSE {
        report.deviation("lifetime", event.ns, &show(pair));
    }
    if said.mono_ns.abs_diff(event.ns) > FAR_NS / 3 {
        report.deviation("time", event.ns, &show(pair));
    }
    let Some(before) = path.last() else { return };
    let lost = hurt
        .get(&event.sk)
        .is_some_and(|times| times.iter().any(|ns| (before.event.ns..event.ns).contains(ns)));
    if lost {
        return;
    }
    if before.event.new != event.old {
        report.deviation("path", event.ns, &format!("{} {}", show(before), show(pair)));
    }
    if said.mono_ns < before.said.mono_ns {
        report.deviation("time-goes-back", event.ns, &show(pair));
    }
    // One that stays in its state begins nothing.
    let entered = path.iter().rev().find(|one| one.event.old != one.event.new).unwrap_or(before);
    let spent = said.mono_ns.saturating_sub(entered.said.mono_ns);
    let right = said.in_state_ns.is_some_and(|told| told.abs_diff(spent) <= EXACT_NS);
    let stays = event.old == event.new && said.in_state_ns.is_none();
    if !right && !stays {
        let detail = format!("{spent} ns: {} {}", show(entered), show(pair));
        report.deviation("in-state", event.ns, &detail);
    }
}

/// Addresses, family and remote port.
fn ends(pair: &Pair<'_>, report: &mut Report) {
    let Pair { event, said, .. } = pair;
    // What stands in an MPTCP socket that connects again, or listens, is of the connection before.
    let begins = pair.is_born() || event.new == State::LISTEN;
    if event.protocol == MPTCP && begins && said.remote.port == 0 {
        return;
    }
    let v6 = event.v6 && !event.remote.is_ipv4();
    // A listener of both families is what it is.
    let either = event.v6
        && ([event.old, event.new].contains(&State::LISTEN) || event.local.is_unspecified());
    if said.family != if v6 { 6 } else { 4 } && !either {
        report.deviation("family", event.ns, &show(pair));
    }
    let wrong = |kernel: std::net::IpAddr, said: std::net::IpAddr| {
        kernel != said && !kernel.is_unspecified()
    };
    if wrong(event.local, said.local.addr) || wrong(event.remote, said.remote.addr) {
        report.deviation("address", event.ns, &show(pair));
    }
    if event.dport != 0 && event.dport != said.remote.port {
        report.deviation("remote-port", event.ns, &show(pair));
    }
}

/// The local port. The tracepoint's own is stale after a disconnect, and none at the end of an MPTCP socket.
fn port(path: &[Pair<'_>], pair: &Pair<'_>, report: &mut Report) {
    let Pair { event, said, .. } = pair;
    if event.protocol == MPTCP && event.new == State::CLOSE {
        return mptcp_port(path, pair, report);
    }
    if event.sport == 0 || event.sport == said.local.port {
        return;
    }
    // An MPTCP socket that was connected keeps its ports there when it listens, too.
    let relistens = event.protocol == MPTCP && event.new == State::LISTEN && event.dport != 0;
    if (pair.is_born() || relistens) && said.local.port == 0 {
        report.leave_out(LeftOut::StalePort);
    } else {
        report.deviation("local-port", event.ns, &show(pair));
    }
}

/// The local port of an MPTCP socket at its end: the last one of this life. What stands in the socket at its birth
/// is of the life before.
fn mptcp_port(path: &[Pair<'_>], pair: &Pair<'_>, report: &mut Report) {
    let Pair { event, said, .. } = pair;
    let from = path.iter().rposition(Pair::is_born).map_or(0, |birth| birth + 1);
    let life = path[from..].iter().chain([pair]);
    let known = life.map(|one| one.event.sport).rfind(|port| *port > 0);
    let earlier = path[..from].iter().any(|one| one.event.sport == said.local.port);
    match known {
        Some(port) if port != said.local.port => {
            let detail = format!("its port was {port}: {}", show(pair));
            report.deviation("mptcp-port", event.ns, &detail);
        }
        None if said.local.port > 0 && earlier => {
            let detail = format!("that of the connection before: {}", show(pair));
            report.deviation("mptcp-port", event.ns, &detail);
        }
        None if event.sport != said.local.port => report.leave_out(LeftOut::MptcpPort),
        _ => {}
    }
}

/// Successive events of one socket have one number until it is closed.
fn one_number(pairs: &[Pair<'_>], hurt: &HashMap<u64, Vec<u64>>, report: &mut Report) {
    let mut last: HashMap<u64, &Pair<'_>> = HashMap::new();
    for pair in pairs {
        let Some(before) = last.insert(pair.event.sk, pair) else { continue };
        let goes_on = before.event.new == pair.event.old
            && ![State::CLOSE, State::LISTEN].contains(&pair.event.old);
        if goes_on && before.said.socket != pair.said.socket && !hurt.contains_key(&pair.event.sk) {
            let detail = format!("{} {}", show(before), show(pair));
            report.deviation("two-numbers-of-one-socket", pair.event.ns, &detail);
        }
    }
}

/// Records of two CPUs may come in so much out of order (`tcpwatch-core/src/tracker.rs`).
const CPUS_NS: u64 = 50_000;

/// Lines are in order of time, but for those of two CPUs, and births that could not be told before.
fn order(lines: &[Line], report: &mut Report) {
    let mut latest = 0;
    for line in lines {
        let Some(said) = line.transition() else { continue };
        if said.mono_ns + CPUS_NS >= latest {
            latest = latest.max(said.mono_ns);
        } else if said.new == State::SYN_RECV {
            report.leave_out(LeftOut::LateBirth);
        } else {
            let detail = format!("after {}: {}", seconds(latest), line.text);
            report.deviation("order", said.mono_ns, &detail);
        }
    }
}

pub(super) fn show(pair: &Pair<'_>) -> String {
    format!("{} said as {}", pair.event, pair.line.text)
}

#[cfg(test)]
mod tests;
