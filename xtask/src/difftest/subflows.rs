//! Events that tcpwatch need not show: subflows of MPTCP, what began before the test, and what is
//! another's. And those that no program on this machine sees.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{
    state::State,
    trace::{Event, MPTCP, threads_of_init},
};

/// How far a subflow's connect, or a subflow's listener, is from that of its MPTCP socket.
const CONNECT_NS: u64 = 2_000_000;
const LISTEN_NS: u64 = 1_000_000;

/// Which of the kernel's events tcpwatch may leave out.
pub(super) struct Strangers {
    /// By socket and time: they are not born in this test, or nobody's of it.
    others: HashSet<(u64, u64)>,
    pub(super) subflows: HashSet<(u64, u64)>,
    init: HashSet<i32>,
}

impl Strangers {
    /// Finds them among all events, in order of time; `ours` are the processes of the test.
    pub(super) fn find(events: &[Event], ports: &Range<u16>, ours: &HashSet<i32>) -> Self {
        let mptcp = Mptcp::of(events);
        let (mut born, mut others, mut subflows) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut connecting: HashMap<u64, bool> = HashMap::new();
        for event in events {
            let key = (event.sk, event.ns);
            let begins = [State::CLOSE, State::LISTEN, State::SYN_RECV].contains(&event.old);
            if begins && event.new != State::CLOSE {
                born.insert(event.sk);
            }
            let has_port = ports.contains(&event.sport) || ports.contains(&event.dport);
            if !born.contains(&event.sk) || (!has_port && !ours.contains(&event.tid)) {
                others.insert(key);
            }
            if event.protocol == MPTCP {
                continue;
            }
            if event.new == State::SYN_SENT {
                connecting.insert(event.sk, mptcp.connects(event));
            }
            let is_connecting = connecting.get(&event.sk).copied().unwrap_or(false);
            if is_connecting || mptcp.has(event) || mptcp.listens(event) {
                subflows.insert(key);
            }
        }
        Self { others, subflows, init: threads_of_init() }
    }

    pub(super) fn contains(&self, event: &Event) -> bool {
        let key = (event.sk, event.ns);
        self.others.contains(&key) || self.subflows.contains(&key)
    }

    /// It happened on top of a thread of process 1: where that is so, and it is missing, the kernel ran no
    /// program.
    pub(super) fn on_init(&self, event: &Event) -> bool {
        self.init.contains(&event.tid)
    }
}

/// What is known of MPTCP sockets.
struct Mptcp<'a> {
    ends: HashSet<(u16, u16)>,
    listening: HashSet<u16>,
    connects: Vec<&'a Event>,
    listens: Vec<&'a Event>,
}

impl<'a> Mptcp<'a> {
    fn of(events: &'a [Event]) -> Self {
        let all = || events.iter().filter(|event| event.protocol == MPTCP);
        let listens: Vec<_> =
            all().filter(|event| [event.old, event.new].contains(&State::LISTEN)).collect();
        Self {
            ends: all().map(|event| (event.sport, event.dport)).collect(),
            listening: listens.iter().map(|event| event.sport).collect(),
            connects: all().filter(|event| event.new == State::SYN_SENT).collect(),
            listens,
        }
    }

    fn near(of: &[&Event], event: &Event, slack: u64) -> impl Fn(&dyn Fn(&Event) -> bool) -> bool {
        let from = of.partition_point(|one| one.ns + slack < event.ns);
        let near: Vec<Event> = of[from..]
            .iter()
            .take_while(|one| one.ns <= event.ns + slack)
            .map(|one| (*one).clone())
            .collect();
        move |wanted| near.iter().any(wanted)
    }

    /// A subflow's connect stands beside that of its MPTCP socket.
    fn connects(&self, event: &Event) -> bool {
        Self::near(&self.connects, event, CONNECT_NS)(&|one| one.tid == event.tid)
    }

    /// Both have the same ports once they are known.
    fn has(&self, event: &Event) -> bool {
        event.sport > 0 && event.dport > 0 && self.ends.contains(&(event.sport, event.dport))
    }

    /// The listener of an MPTCP socket has one of TCP.
    fn listens(&self, event: &Event) -> bool {
        [event.old, event.new].contains(&State::LISTEN)
            && (event.dport == 0 && self.listening.contains(&event.sport)
                || Self::near(&self.listens, event, LISTEN_NS)(&|one| one.tid == event.tid))
    }
}
