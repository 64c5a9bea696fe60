//! What the pipeline keeps of a socket, in bytes of memory that the kernel really gave.
//!
//! ```sh
//! cargo run --release --example tracked_memory -- 1000000 established
//! cargo run --release --example tracked_memory -- 1000000 close-wait
//! ```
//!
//! The transitions of that many connections are replayed into a pipeline whose sink keeps nothing.

use std::{
    env, fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use tcpwatch::{
    core::{
        comm::Comm,
        filter::Filter,
        input::{Input, Transition},
        record::Record,
        socket::{How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    sink::Sink,
};

struct Nothing;

impl Sink for Nothing {
    fn record(&mut self, _: &ClockMark, _: &Record<'_>) -> io::Result<()> {
        Ok(())
    }
}

fn socket(number: u64) -> Socket {
    let [a, b, c, ..] = number.to_le_bytes();
    Socket {
        id: Some(SocketId(number)),
        cookie: Some(number),
        listener: Some(SocketId(1 << 40)),
        born: Some(Timestamp(number)),
        netns: 1,
        protocol: Protocol::Tcp,
        local: (Ipv4Addr::LOCALHOST, 443).into(),
        remote: SocketAddr::from(([10, c, b, a], 40_000)),
        uid: 0,
        cgroup: Some(7),
        inode: None,
        owner: Some(Owner {
            process: Process { pid: 7, comm: Comm::from("web") },
            how: How::Listener,
        }),
        role: Some(Role::Server),
        has_file: false,
        watched: false,
        tcp: Some(TcpInfo {
            bytes_received: 1,
            bytes_acked: 1,
            unread: 0,
            unsent: 0,
            srtt_us: 1,
            retransmits: 0,
        }),
        error: 0,
        uncertain: false,
    }
}

/// Resident memory, bytes.
fn resident() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let kb = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = kb.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kb.map(|kb| kb * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
}

fn main() -> io::Result<()> {
    let sockets: u64 = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let lingering = env::args().nth(2).is_some_and(|state| state == "close-wait");
    let rules = Rules {
        // None is a finding yet.
        linger: Nanos(3_600_000_000_000),
        filter: Filter::default(),
        findings_only: false,
        include_half_open: false,
        tell_culprits: false,
    };
    let mut sink = Nothing;
    let mut pipeline = Driver::new(rules, &mut sink);
    pipeline.push(Input::Clock(ClockMark::default()))?;
    let mut path = vec![State::Listen, State::SynRecv, State::Established];
    if lingering {
        path.push(State::CloseWait);
    }
    let before = resident()?;
    for number in 1..=sockets {
        for states in path.windows(2) {
            pipeline.push(Input::Transition(Transition {
                at: Timestamp(number),
                old: states[0],
                new: states[1],
                entered: Some(Timestamp(number)),
                actor: None,
                exiting: false,
                disconnects: false,
                socket: socket(number),
            }))?;
        }
    }
    let bytes = resident()? - before;
    let summary = pipeline.finish()?;
    assert_eq!(summary.sockets, sockets, "every socket is tracked");
    writeln!(io::stdout(), "{sockets} sockets: {} bytes each", bytes / sockets.max(1))
}
