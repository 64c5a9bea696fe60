//! Accept queues where the storage of sockets must not be walked, as from Linux 7.0 on: what waits at a
//! listener is emitted with it, in one step of an iterator.

use std::{collections::BTreeMap, net::TcpListener};

use socket2::SockRef;
use tcpwatch::{
    core::{
        filter::Filter,
        input::{Observation, Scope},
        socket::SocketId,
        state::State,
    },
    kernel::load::{AsIf, Kernel, Plan, look_as},
};
use tcpwatch_common::{MOST_DETAILED, MOST_EMITTED, MOST_QUEUED};

use crate::{
    Test,
    cost::bpf_infos,
    holders::IN_FLIGHT,
    peers::{Kind, Program, connect, enter_new_namespace, eventually, listen},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("the_longest_queue_with_details_is_seen", || queue(MOST_DETAILED, true)),
        Test::new("a_longer_queue_is_seen_without_details", || queue(MOST_DETAILED + 1, true)),
        Test::new("the_longest_queue_is_seen", || queue(MOST_EMITTED, false)),
        Test::new("of_the_longest_queue_all_are_seen_with_details", || queue(MOST_EMITTED, true)),
        Test::new("of_a_queue_that_is_too_long_the_first_are_seen", || {
            queue(MOST_EMITTED + 9, true);
        }),
        Test::new("one_look_sees_the_first_of_a_queue", one_look),
        Test::new("a_scan_sees_what_no_descriptor_leads_to", in_flight),
    ]
}

fn plan(details: bool) -> Plan {
    Plan {
        filter: Filter::default(),
        findings_only: true,
        ring_bytes: 4096,
        exact_accept: false,
        details,
        follow_from: None,
        tally: false,
    }
}

/// It takes a million instructions at most (`BPF_COMPLEXITY_LIMIT_INSNS`), and the next kernel's may count more.
fn the_verifier_has_little_to_do(programs: usize) {
    let verified = bpf_infos(std::process::id(), "verified_insns:");
    assert!(verified.len() >= programs, "{verified:?}");
    assert!(verified.iter().all(|count| count.parse::<u32>().unwrap() < 100_000), "{verified:?}");
}

fn one_look() {
    let listener = listen(Kind::V4);
    let at = listener.local_addr().unwrap().port();
    for _ in 0..=MOST_QUEUED {
        drop(connect(Kind::V4, &listener));
    }
    let scan = move || {
        enter_new_namespace();
        let as_if = AsIf { storage_is_not_walkable: true, ..AsIf::default() };
        let mut passes = look_as(&plan(true), &as_if).unwrap();
        the_verifier_has_little_to_do(1);
        passes.stay();
        let mut queued = 0;
        let taken = passes.run(Scope::Lingering, |look| {
            let here = look.socket.local.port() == at && look.holder.is_none();
            queued += u32::from(here && look.state == State::CloseWait);
        });
        taken.unwrap();
        assert_eq!(queued, MOST_QUEUED);
    };
    std::thread::spawn(scan).join().unwrap();
}

/// In the network namespace that the scan is made from.
fn in_flight() {
    let mut program = Program::start(IN_FLIGHT);
    let at: u16 = program.answer().parse().unwrap();
    let as_if = AsIf { storage_is_not_walkable: true, ..AsIf::default() };
    let (_kernel, _ring, mut passes) = Kernel::attach_as(&plan(false), &as_if).unwrap();
    for scope in [Scope::Everything, Scope::Lingering] {
        let mut seen = Vec::new();
        let here = |look: &Observation| look.socket.local.port() == at;
        let taken = passes.run(scope, |look| {
            if here(&look) && look.state == State::CloseWait {
                seen.push(look);
            }
        });
        taken.unwrap();
        assert_eq!(seen.len(), 1, "{scope:?}");
        assert!(seen[0].holder.is_none() && seen[0].socket.has_file);
    }
    program.kill();
}

/// Sees what waits at a listener that several hold, from another namespace, twice: nothing else than the
/// listener leads to it.
fn queue(length: u32, details: bool) {
    let plan = plan(details);
    let listener = listen(Kind::V4);
    SockRef::from(&listener).listen(1024).unwrap();
    let at = listener.local_addr().unwrap().port();
    let holders: Vec<TcpListener> = (0..4).map(|_| listener.try_clone().unwrap()).collect();
    for _ in 0..length {
        drop(connect(Kind::V4, &listener));
    }
    let waiting = || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let close_wait = |line: &&str| line.split_whitespace().nth(3) == Some("08");
    eventually("not all are in CLOSE_WAIT", waiting, |text| {
        text.lines().filter(close_wait).count() == length as usize
    });
    let scan = move || {
        enter_new_namespace();
        let as_if = AsIf { storage_is_not_walkable: true, ..AsIf::default() };
        let (_kernel, _ring, mut passes) = Kernel::attach_as(&plan, &as_if).unwrap();
        the_verifier_has_little_to_do(4);
        for scope in [Scope::Everything, Scope::Lingering] {
            let mut seen: BTreeMap<SocketId, Vec<Observation>> = BTreeMap::new();
            let mut listeners = 0;
            let taken = passes.run(scope, |look| {
                let here = look.socket.local.port() == at;
                listeners += usize::from(here && look.state == State::Listen);
                if here && look.state == State::CloseWait {
                    seen.entry(look.socket.id.unwrap()).or_default().push(look);
                }
            });
            taken.unwrap();
            assert_eq!(listeners, 5, "each holder is told");
            assert_eq!(seen.len(), length.min(MOST_EMITTED) as usize);
            for looks in seen.values() {
                assert_eq!(looks.len(), 1, "once, whoever holds the listener");
                assert_eq!(looks[0].details.is_some(), details && length <= MOST_DETAILED);
                assert!(looks[0].socket.listener.is_some() && looks[0].holder.is_none());
            }
        }
    };
    std::thread::spawn(scan).join().unwrap();
    drop(holders);
}
