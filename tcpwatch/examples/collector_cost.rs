//! How long the collector of `tcpwatch report` takes for a transition, alone.
//!
//! ```sh
//! cargo run --release --example collector_cost -- 10000
//! ```
//!
//! Clients of that many services open, use and close connections, five transitions each, a
//! thousand connections at a time.

use std::{
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use rustix::time::{ClockId, clock_gettime};
use tcpwatch::{
    core::{
        comm::Comm,
        input::Transition,
        record::Record,
        socket::{How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
    },
    report::Collector,
    sink::Sink as _,
};

const CONNECTIONS: u64 = 2_000_000;
const AT_ONCE: u64 = 1000;
const PATH: [State; 6] = [
    State::Close,
    State::SynSent,
    State::Established,
    State::CloseWait,
    State::LastAck,
    State::Close,
];

fn socket(services: u64, number: u64) -> Socket {
    // Services in no order, as their hashes come.
    let service = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % services;
    let [a, b, c, d, ..] = service.to_le_bytes();
    Socket {
        id: Some(SocketId(number)),
        cookie: None,
        listener: None,
        born: Some(Timestamp(1 + number * 100_000)),
        netns: 1,
        protocol: Protocol::Tcp,
        local: (Ipv4Addr::LOCALHOST, 40_000).into(),
        remote: SocketAddr::from(([10 + d, c, b, a], 443)),
        uid: 0,
        cgroup: None,
        inode: None,
        owner: Some(Owner {
            process: Process { pid: 7, comm: Comm::from("crawler") },
            how: How::Connect,
        }),
        role: Some(Role::Client),
        has_file: true,
        watched: false,
        tcp: Some(TcpInfo {
            bytes_received: 100,
            bytes_acked: 100,
            unread: 0,
            unsent: 0,
            srtt_us: 40,
            retransmits: 0,
        }),
        error: 0,
        uncertain: false,
    }
}

/// A thousand connections, one step of all after the other.
fn batch(services: u64, first: u64, transitions: &mut Vec<Transition>) {
    transitions.clear();
    for (step, states) in PATH.windows(2).enumerate() {
        let step = u64::try_from(step).unwrap_or(0);
        for number in first..first + AT_ONCE {
            let socket = socket(services, number);
            let born = socket.born.unwrap_or_default();
            let entered = Some(born + Nanos(step * 1_000_000));
            let at = born + Nanos((step + 1) * 1_000_000 + number % 977 * 1000);
            let (old, new) = (states[0], states[1]);
            transitions.push(Transition {
                at,
                old,
                new,
                entered,
                actor: None,
                exiting: false,
                disconnects: false,
                socket,
            });
        }
    }
}

/// CPU time of this thread, ns: others on the machine do not count.
fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
}

fn main() -> io::Result<()> {
    let services = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut collector = Collector::new(Nanos::SECOND);
    let clock = ClockMark::default();
    let mut transitions = Vec::new();
    let (mut ns, mut count) = (0, 0);
    for first in (0..CONNECTIONS).step_by(1000) {
        batch(services, first, &mut transitions);
        let begun = cpu();
        for transition in &transitions {
            collector.record(&clock, &Record::Transition(transition))?;
        }
        ns += cpu() - begun;
        count += transitions.len() as u64;
    }
    let begun = cpu();
    let report = collector.report();
    let took = (cpu() - begun) / 1_000_000;
    writeln!(
        io::stdout(),
        "{services} services, {count} transitions: {}.{} ns each; {} groups kept; report made in {took} ms",
        ns / count,
        ns * 10 / count % 10,
        report.groups.len()
    )
}
