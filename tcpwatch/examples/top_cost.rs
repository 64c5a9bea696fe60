//! What the screen of `tcpwatch top` costs: a snapshot and its drawing, and each record.
//!
//! ```sh
//! cargo run --release --example top_cost
//! ```
//!
//! Findings are of a culprit each hundred, or each of its own. A drawing is of everything, as after
//! `^L`; what goes to the terminal is what differs from the drawing before, which is written elsewhere.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use jiff::tz::TimeZone;
use ratatui::{Terminal, backend::TestBackend, layout::Rect};
use rustix::time::{ClockId, clock_gettime};
use tcpwatch::{
    core::{
        comm::Comm,
        finding::{Evidence, Finding, Status, Verdict},
        input::Transition,
        process::ProcessFacts,
        record::{Census, Record},
        socket::{Holder, How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
    },
    sink::Sink as _,
    top::{
        app::{App, Subject},
        around::{Around, Costs},
        model::Model,
        snapshot::{Place, Query},
        view::{self, Look},
    },
};

const SECOND: u64 = 1_000_000_000;
const NOW: Timestamp = Timestamp(10_000 * SECOND);

fn socket(id: u64, culprit: u64) -> Socket {
    let pid = u32::try_from(1000 + culprit).unwrap_or(u32::MAX);
    let [a, b, c, ..] = culprit.to_le_bytes();
    Socket {
        id: Some(SocketId(id)),
        cookie: None,
        listener: None,
        born: Some(Timestamp(1)),
        netns: 1,
        protocol: Protocol::Tcp,
        local: (Ipv4Addr::LOCALHOST, 40_000).into(),
        remote: SocketAddr::from(([10, c, b, a], 5432)),
        uid: 0,
        cgroup: None,
        inode: Some(id),
        owner: Some(Owner { process: Process { pid, comm: Comm::from("api") }, how: How::Connect }),
        role: Some(Role::Client),
        has_file: true,
        watched: false,
        tcp: Some(TcpInfo {
            bytes_received: 100,
            bytes_acked: 100,
            unread: 1,
            unsent: 0,
            srtt_us: 40,
            retransmits: 0,
        }),
        error: 0,
        uncertain: false,
    }
}

fn finding(id: u64, culprit: u64) -> Finding {
    let socket = socket(id, culprit);
    let holders = socket.owner.map(|owner| Holder { process: owner.process, fd: 17 });
    let pid = holders.map_or(0, |holder| holder.process.pid);
    let facts =
        ProcessFacts { pid, fds: Some(900), fd_limit: Some(1024), ..ProcessFacts::default() };
    Finding {
        at: NOW - Nanos(SECOND * (id % 600)),
        status: Status::Open,
        verdict: Some(Verdict::NotReading),
        state: State::CloseWait,
        linger: Nanos(30 * SECOND),
        at_least: false,
        at_most: None,
        socket,
        holders: holders.into_iter().collect(),
        listener: None,
        evidence: Evidence { process: Some(Arc::new(facts)), ..Evidence::default() },
        netns_name: None,
        ending: None,
        same_owner: 1,
    }
}

/// CPU time of this thread, ns: others on the machine do not count.
fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
}

/// Median of this many times, us.
fn median(times: usize, mut what: impl FnMut()) -> f64 {
    let mut all: Vec<u64> = (0..times)
        .map(|_| {
            let begun = cpu();
            what();
            cpu() - begun
        })
        .collect();
    all.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "microseconds")]
    let us = all[all.len() / 2] as f64 / 1000.0;
    us
}

fn draw(model: &Model, query: &Query, width: u16, height: u16) -> (f64, f64) {
    const TIMES: usize = 51;
    let around = Around {
        look: Look { colour: true },
        zone: TimeZone::UTC,
        host: "web-1",
        scope: "",
        unseen: None,
        linger: Nanos(30 * SECOND),
        costs: Costs { kernel_ns: Some(272), agent: Some(12) },
        tape: None,
        play: None,
        messages: &[],
        note: None,
    };
    let snapshot = model.snapshot(query);
    let taken = median(TIMES, || drop(model.snapshot(query)));
    let mut app = App::new(Subject::Live);
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    let drawn = median(TIMES, || {
        let area = Rect::new(0, 0, width, height);
        let (visible, lines) = view::extent(area, &snapshot, &app, &around);
        app.settle(&snapshot, visible, lines);
        let Ok(()) = terminal.clear();
        let Ok(_) = terminal.draw(|frame| view::draw(frame, &snapshot, &app, &around));
    });
    (taken, drawn)
}

fn fed(findings: u64, of_each: u64) -> io::Result<(Model, f64)> {
    let mut model = Model::new(Nanos(30 * SECOND));
    let clock = ClockMark::default();
    let all: Vec<Finding> = (0..findings).map(|id| finding(id, id / of_each)).collect();
    let begun = cpu();
    for finding in &all {
        model.record(&clock, &Record::Finding(finding))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds")]
    let each = (cpu() - begun) as f64 / 1000.0 / findings as f64;
    let census = Census {
        at: NOW,
        tracked: Some(1_000_000),
        close_wait: Some(findings),
        lingering: findings,
    };
    model.census(&clock, &census)?;
    Ok((model, each))
}

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "us of CPU, medians              snapshot  draw 80x24  draw 200x60")?;
    for (findings, of_each) in
        [(10, 1), (1000, 100), (100_000, 100), (100_000, 1), (100_000, 100_000)]
    {
        let (model, each) = fed(findings, of_each)?;
        let query = |filter: &str| Query { filter: filter.to_owned(), ..Query::default() };
        let key = model.groups.iter().next().map(|group| group.key);
        let sockets = key.map(|key| Query { place: Place::Sockets(key), ..Query::default() });
        writeln!(
            out,
            "{findings} findings of {} culprits, {each:.2} us for each to come in",
            model.groups.len()
        )?;
        for (what, query) in [
            ("  culprits", Some(query(""))),
            ("  culprits, none passes a filter", Some(query("nothing has this"))),
            ("  sockets of the first", sockets),
        ] {
            let Some(query) = query else { continue };
            let (taken, small) = draw(&model, &query, 80, 24);
            let (_, large) = draw(&model, &query, 200, 60);
            writeln!(out, "{what:<32}{taken:>8.0}{small:>12.0}{large:>13.0}")?;
        }
        let mut frozen = model.clone();
        let took = median(5, || drop(frozen.frozen()));
        writeln!(out, "{:<32}{took:>8.0}", "  to stand still")?;
    }
    transitions(&mut out)
}

/// Connections that the peer closes first, five transitions each, with 100,000 findings open.
fn transitions(out: &mut io::Stdout) -> io::Result<()> {
    const CONNECTIONS: u64 = 400_000;
    const PATH: [State; 6] = [
        State::Close,
        State::SynSent,
        State::Established,
        State::CloseWait,
        State::LastAck,
        State::Close,
    ];
    let (mut model, _) = fed(100_000, 100)?;
    let clock = ClockMark::default();
    let (mut ns, mut count) = (0, 0_u64);
    for first in (0..CONNECTIONS).step_by(1000) {
        let mut batch = Vec::new();
        for (step, states) in PATH.windows(2).enumerate() {
            for number in first..first + 1000 {
                let socket = socket(1_000_000 + number, number % 100);
                let at = NOW + Nanos(number * 5000 + step as u64 * 1_000_000);
                batch.push(Transition {
                    at,
                    old: states[0],
                    new: states[1],
                    entered: Some(at - Nanos(1_000_000)),
                    actor: None,
                    exiting: false,
                    disconnects: false,
                    socket,
                });
            }
        }
        let begun = cpu();
        for transition in &batch {
            model.record(&clock, &Record::Transition(transition))?;
        }
        ns += cpu() - begun;
        count += batch.len() as u64;
    }
    writeln!(out, "{} ns for a transition", ns / count)
}
