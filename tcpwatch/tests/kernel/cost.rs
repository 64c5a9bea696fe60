//! Nothing is lost unseen.

use rustix::process::Signal;
use tcpwatch::{
    core::filter::Filter,
    decode,
    kernel::{
        load::{AsIf, Kernel, Plan},
        ring::Ring,
    },
};
use tcpwatch_common::name;

use crate::{
    Test,
    peers::{Kind, listen, pair, quiet, read_to_end},
    watch::{Watch, namespace},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("full_speed_without_loss", full_speed),
        Test::new("softirqs_that_interrupt_the_program_are_seen", interrupted),
        Test::new("each_program_tells_what_those_before_it_were_not_run_for", each_program),
        Test::new("a_tiny_ring_loses_exactly_what_it_says", tiny_ring),
        Test::new("a_gap_is_told_before_what_follows_it", gaps),
        Test::new("after_a_loss_the_table_is_right_again", resync),
    ]
}

/// A connection makes ten transitions, a listener two.
pub(crate) const PER_CONNECTION: usize = 10;

pub(crate) fn churn(connections: usize) {
    let listener = listen(Kind::V4);
    for _ in 0..connections {
        let (client, mut server) = pair(Kind::V4, &listener);
        drop(client);
        read_to_end(&mut server);
    }
    drop(listener);
    quiet(0);
}

fn full_speed() {
    const CONNECTIONS: usize = 10_000;
    let (watch, mut file) = Watch::start_to_file(&[]);
    churn(CONNECTIONS);
    let done = watch.stop_and_read(&mut file);
    // No socket skips a state: each transition starts where the one before ended.
    let mut last = std::collections::HashMap::new();
    for t in done.of("transition") {
        if let Some(previous) = last.insert(t["socket"].as_u64(), t["new"].clone()) {
            assert_eq!(previous, t["old"], "{t}");
        }
    }
    assert_eq!(done.stderr, "");
    assert_eq!(done.summary()["lost"], 0);
    assert_eq!(done.of("transition").len(), CONNECTIONS * PER_CONNECTION + 2);
}

/// Clients and server on different CPUs: a packet of one may interrupt the program that runs for the
/// other. The kernel does not run it again then; another program tells of what happened.
fn interrupted() {
    let (watch, mut file) = Watch::start_to_file(&["--ring-size", "67108864"]);
    let attached = bpf_infos(watch.pid(), "link_type:");
    let on_tracepoint = attached.iter().filter(|kind| *kind == "raw_tracepoint").count();
    assert!(on_tracepoint >= 2, "one program alone misses what interrupts it: {attached:?}");
    churn_on_all_cpus();
    // Of its programs the first has the most, as each of the others runs only behind it.
    let misses = bpf_infos(watch.pid(), "recursion_misses:");
    let interruptions = misses.iter().filter_map(|count| count.parse().ok()).max().unwrap_or(0_u64);
    let done = watch.stop_and_read(&mut file);
    let lost = done.summary()["lost"].as_u64().unwrap();
    let seen = done.of("transition").len() as u64;
    assert_eq!(seen + lost, (CHURNED * PER_CONNECTION + 2) as u64);
    // Where it is not known that tasks are preempted, the third program is attached when that shows.
    let preempted = tcpwatch::kernel::preemption::is_known_to_be_on();
    let most = if preempted { 0 } else { interruptions / 10 };
    assert!(lost <= most, "{lost} lost of {interruptions} that interrupted the program");
    // None is told twice, and none is missing: each starts where the one before ended.
    let mut states = std::collections::HashMap::new();
    let mut breaks = 0;
    for t in done.of("transition") {
        if let Some(before) = states.insert(t["socket"].as_u64(), t["new"].clone()) {
            breaks += u64::from(before != t["old"]);
        }
    }
    assert!(breaks <= lost, "{breaks} breaks, {lost} lost");
}

/// What the kernel says of the programs and links of a process.
pub(crate) fn bpf_infos(pid: u32, what: &str) -> Vec<String> {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let text = |info: std::fs::DirEntry| std::fs::read_to_string(info.path()).unwrap_or_default();
    let value = |text: String| {
        let value = text.lines().find_map(|line| line.strip_prefix(what))?;
        Some(value.trim().to_owned())
    };
    infos.flatten().map(text).filter_map(value).collect()
}

/// When an interruption comes is chance, so here the kernel never runs some of the programs at all. Each of the
/// others tells what those before it were not run for, and nothing else.
fn each_program() {
    const CONNECTIONS: usize = 50;
    let (first, second, last) = (name::PROG_TRANSITION, name::PROG_SECOND, name::PROG_LAST);
    let sets = [
        vec![first],
        vec![second],
        vec![last],
        vec![first, second],
        vec![first, last],
        vec![second, last],
        vec![first, second, last],
    ];
    for programs in sets {
        let netns = namespace().parse().unwrap();
        let plan = Plan {
            filter: Filter { netns: [netns].into(), ..Filter::default() },
            findings_only: false,
            ring_bytes: 1 << 20,
            exact_accept: false,
            details: false,
            follow_from: None,
            tally: false,
        };
        let as_if = AsIf { programs: Some(programs.clone()), ..AsIf::default() };
        let (mut kernel, ring, _passes) = Kernel::attach_as(&plan, &as_if).unwrap();
        churn(CONNECTIONS);
        let mut told = 0;
        let mut last = std::collections::HashMap::new();
        assert!(Ring::new(ring).drain(usize::MAX, |record| {
            let t = decode::transition(record).unwrap();
            told += 1;
            if let Some(before) = last.insert(t.socket.id, t.new) {
                assert_eq!(before, t.old, "{programs:?}: {t:?}");
            }
        }));
        assert_eq!(told, CONNECTIONS * PER_CONNECTION + 2, "{programs:?}");
        assert_eq!(kernel.lost().unwrap().total(), 0, "{programs:?}");
    }
}

/// Connections of [`churn_on_all_cpus`].
const CHURNED: usize = 2_000;

fn churn_on_all_cpus() {
    const CLIENTS: usize = 2;
    let listener = listen(Kind::V4);
    let addr = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(move || {
                for _ in 0..CHURNED / CLIENTS {
                    let mut client = std::net::TcpStream::connect(addr).unwrap();
                    client.shutdown(std::net::Shutdown::Write).unwrap();
                    read_to_end(&mut client);
                }
            });
        }
        for _ in 0..CHURNED {
            let (mut server, _) = listener.accept().unwrap();
            read_to_end(&mut server);
        }
    });
    drop(listener);
    quiet(0);
}

/// tcpwatch stands still while a ring of 4 KiB fills: what it does not get, it counts.
fn tiny_ring() {
    const CONNECTIONS: usize = 200;
    let (watch, mut file) = Watch::start_to_file(&["--ring-size", "4096"]);
    watch.signal(Signal::STOP);
    churn(CONNECTIONS);
    watch.signal(Signal::CONT);
    let done = watch.stop_and_read(&mut file);
    let seen = done.of("transition").len() as u64;
    let lost = done.summary()["lost"].as_u64().unwrap();
    assert!(lost > 0, "the ring was large enough after all");
    assert_eq!(seen + lost, (CONNECTIONS * PER_CONNECTION + 2) as u64);
    let told: u64 = done.of("lost").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(told, lost, "every loss has a record");
}

/// A ring of 4 KiB is drained while it overflows, so what was lost is between what is shown.
fn gaps() {
    const CONNECTIONS: usize = 3_000;
    let (watch, mut file) = Watch::start_to_file(&["--ring-size", "4096"]);
    churn(CONNECTIONS);
    let done = watch.stop_and_read(&mut file);
    let lost = done.summary()["lost"].as_u64().unwrap();
    assert!(lost > 0, "the ring was large enough after all");
    let mut states = std::collections::HashMap::new();
    for t in done.of("transition") {
        let before = states.insert(t["socket"].as_u64(), t["new"].clone());
        // The first of a socket that is no birth has a time in the state before.
        let gap = before.map_or(!t["in_state_ns"].is_null(), |state| state != t["old"]);
        assert!(!gap || t["uncertain"] == true, "a gap that is not told: {t}");
    }
}

/// While the agent stands still and its ring is full, one connection opens, and on another the peer
/// closes. Both are found again; only the first has a path with a gap that shows.
fn resync() {
    let listener = listen(Kind::V4);
    let (early, kept) = pair(Kind::V4, &listener);
    let early_port = early.local_addr().unwrap().port();
    let mut watch = Watch::start(&["--ring-size", "4096", "--linger", "300ms"]);
    watch.signal(Signal::STOP);
    // More than the ring holds.
    let filling: Vec<_> = (0..30).map(|_| pair(Kind::V4, &listener)).collect();
    let (client, server) = pair(Kind::V4, &listener);
    let port = client.local_addr().unwrap().port();
    let before = tcpwatch::kernel::clock::now();
    drop(early);
    watch.signal(Signal::CONT);
    let finding = watch.until("the finding", |line| {
        line["type"] == "finding" && line["remote"]["port"] == early_port
    });
    assert_eq!(
        (&finding["verdict"], &finding["linger_at_least"]),
        (&"not-reading".into(), &false.into())
    );
    let since = finding["mono_ns"].as_u64().unwrap() - finding["linger_ns"].as_u64().unwrap();
    assert!(since >= before.0, "it began after its peer closed: {finding}");
    drop((client, server));
    let gap = watch
        .until("the close", |line| line["local"]["port"] == port && line["new"] == "FIN_WAIT1");
    assert_eq!(gap["uncertain"], true, "{gap}");
    assert!(gap["in_state_ns"].is_u64(), "its times are the kernel's: {gap}");
    let (late, other) = pair(Kind::V4, &listener);
    let late_port = late.local_addr().unwrap().port();
    let whole = watch.transition(late_port, "ESTABLISHED");
    assert_eq!(whole["uncertain"], false, "{whole}");
    drop((late, other, kept, filling));
    let done = watch.stop();
    assert!(done.summary()["uncertain"].as_u64().unwrap() > 0);
    assert!(done.summary()["lost"].as_u64().unwrap() > 0);
}
