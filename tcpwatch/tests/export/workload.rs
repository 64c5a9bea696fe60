//! Connections as a busy host has them: servers, clients, a few leaks.

use tcpwatch::core::{
    input::{Input, Transition},
    socket::{How, Owner, Process, Role, TcpInfo},
    state::State::{
        self, Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent,
    },
    time::Timestamp,
};

use crate::notation;

/// A small generator, so that each run is the same.
pub(crate) struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Transitions of connections that begin one after the other and overlap.
pub(crate) struct Workload {
    chance: Chance,
    /// Of the connections that are open, ordered by the time of the next one.
    next: std::collections::BTreeMap<(u64, u64), (Transition, Vec<State>)>,
    began: u64,
    now: u64,
}

impl Workload {
    pub(crate) fn new() -> Self {
        let next = std::collections::BTreeMap::new();
        Self { chance: Chance(7), next, began: 0, now: 1_000_000_000 }
    }

    fn begin(&mut self) {
        self.began += 1;
        let id = self.began;
        // 20,000 new connections a second.
        self.now += 20_000 + self.chance.below(60_000);
        let client = self.chance.below(3) == 0;
        let line = format!(
            "0 tcp #{id} CLOSE>CLOSE 10.0.{}.{}:{} 10.1.{}.{}:{} inode={}",
            0,
            self.chance.below(4) + 1,
            if client { 32_768 + self.chance.below(28_000) } else { 8_080 },
            self.chance.below(8),
            self.chance.below(250) + 1,
            if client { 5_432 } else { 32_768 + self.chance.below(28_000) },
            100_000 + id,
        );
        let Input::Transition(mut first) = notation::input(&line) else { panic!("no transition") };
        let names = ["nginx", "api", "worker", "python3"];
        let worker = self.chance.below(16);
        let comm = names[usize::try_from(worker % 4).unwrap()].into();
        let process = Process { pid: u32::try_from(4_000 + worker).unwrap(), comm };
        let how = if client { How::Connect } else { How::Accept };
        first.socket.owner = Some(Owner { process, how });
        first.socket.role = Some(if client { Role::Client } else { Role::Server });
        first.socket.cookie = Some(id * 2 + 4_096);
        first.socket.cgroup = Some(7_000 + worker);
        first.socket.netns = 4_026_531_840;
        first.socket.born = Some(Timestamp(self.now));
        first.entered = Some(Timestamp(self.now));
        first.at = Timestamp(self.now);
        let (old, new) = if client { (Close, SynSent) } else { (Listen, SynRecv) };
        (first.old, first.new) = (old, new);
        let mut path = if self.chance.below(2) == 0 {
            vec![Established, CloseWait, LastAck, Close]
        } else {
            vec![Established, FinWait1, FinWait2, Close]
        };
        path.reverse();
        self.next.insert((self.now, id), (first, path));
    }

    fn after(&mut self, mut transition: Transition, state: State) -> Transition {
        let wait = match transition.new {
            // One in ten thousand leaks.
            State::CloseWait if self.chance.below(10_000) == 0 => 40_000_000_000,
            State::Established => 1_000_000 + self.chance.below(400_000_000),
            _ => 30_000 + self.chance.below(900_000),
        };
        transition.entered = Some(transition.at);
        transition.at.0 += wait;
        (transition.old, transition.new) = (transition.new, state);
        let user = matches!(state, State::FinWait1 | State::LastAck);
        transition.actor = user.then(|| transition.socket.owner.unwrap().process);
        if matches!(state, State::FinWait2 | State::Close) {
            (transition.socket.inode, transition.socket.has_file) = (None, false);
        }
        let received = 200 + self.chance.below(4_000);
        transition.socket.tcp = Some(TcpInfo {
            bytes_received: received,
            bytes_acked: received * 3 + self.chance.below(900),
            unread: u32::from(state == State::LastAck),
            unsent: 0,
            srtt_us: u32::try_from(80 + self.chance.below(400)).unwrap(),
            retransmits: u32::from(self.chance.below(200) == 0),
        });
        transition
    }
}

impl Iterator for Workload {
    type Item = Transition;

    fn next(&mut self) -> Option<Transition> {
        while self.next.first_key_value().is_none_or(|(&(at, _), _)| at > self.now) {
            self.begin();
        }
        let ((_, id), (transition, mut path)) = self.next.pop_first()?;
        if let Some(state) = path.pop() {
            let later = self.after(transition, state);
            self.next.insert((later.at.0, id), (later, path));
        }
        Some(transition)
    }
}
