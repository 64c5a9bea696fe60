//! Owners, watched sockets and names: what is known is known by key, is shown from its beginning to its end,
//! and leaves with the thing itself.

use std::io;

use proptest::prelude::*;
use tcpwatch::{
    core::{
        input::{Input, Scope},
        record::{Record, Summary},
        time::{ClockMark, Nanos},
    },
    driver::Driver,
    sink::Sink,
};

use crate::{notation, properties};

/// The transitions of socket 2, as `old>new`, and names of namespaces that findings give.
#[derive(Default)]
struct Shown {
    path: Vec<String>,
    namespaces: Vec<Option<String>>,
    summary: Summary,
}

impl Sink for Shown {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(t) if t.socket.id.is_some_and(|id| id.0 == 2) => {
                self.path.push(format!("{}>{}", t.old, t.new));
            }
            Record::Finding(finding) => {
                self.namespaces.push(finding.netns_name.as_deref().map(str::to_owned));
            }
            Record::Summary(summary) => self.summary = (*summary).clone(),
            _ => {}
        }
        Ok(())
    }
}

/// A run of inputs in the notation.
struct Run<'a>(Driver<'a>);

impl<'a> Run<'a> {
    fn new(rules: &str, shown: &'a mut Shown) -> Self {
        Self(Driver::new(notation::rules(rules), shown))
    }

    fn push(&mut self, line: &str) {
        self.0.push(notation::input(line)).unwrap();
    }

    /// Makes the scan that is wanted, if any, in which these are seen.
    fn scan(&mut self, at: f64, seen: &[String]) -> Option<Scope> {
        let scope = self.0.tracker.wants_pass()?;
        let at = notation::time(&at.to_string());
        self.0.push(Input::PassBegin { at, scope }).unwrap();
        for line in seen {
            self.push(line);
        }
        self.0.push(Input::PassEnd { at }).unwrap();
        Some(scope)
    }
}

/// What listeners, processes and sockets may leave behind: not more than a sweep begins at.
const FLAT: usize = 40_000;
/// Many times as many come and go.
const ROUNDS: u32 = 100_000;

/// An address of its own for each.
fn address(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("127.{a}.{b}.{c}:80")
}

#[test]
fn listeners_that_come_and_go_leave_nothing_behind() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=10s", &mut shown);
    for number in 0..ROUNDS {
        let (id, at, pid) = (number + 10, f64::from(number) / 5_000.0, 100 + number);
        let address = address(number);
        run.push(&format!(
            "{at} tcp #{id} CLOSE>LISTEN {address} owner=a[{pid}]/listen by=a[{pid}]"
        ));
        run.push(&format!(
            "{at} tcp #{id} LISTEN>CLOSE {address} owner=a[{pid}]/listen by=a[{pid}]"
        ));
        run.push(&format!("{at} exit {pid}"));
        assert!(run.0.tracker.entries() < FLAT, "{} after {number}", run.0.tracker.entries());
    }
}

/// With findings only nobody tells of listeners; children name them, and scans see them.
#[test]
fn listeners_that_nobody_tells_of_leave_nothing_behind() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=10s findings", &mut shown);
    let mut scans = 0;
    for number in 0..ROUNDS {
        let (id, listener, at) = (2 * number + 10, 2 * number + 11, f64::from(number) / 1_000.0);
        let local = address(number);
        let socket = format!("{local} 10.0.0.9:5000 owner=a[7]/listener listener=#{listener}");
        run.push(&format!("{at} tcp #{id} ESTABLISHED>CLOSE_WAIT {socket}"));
        run.push(&format!("{at} tcp #{id} CLOSE_WAIT>LAST_ACK {socket} by=a[7]"));
        let seen = format!("{at} see #{listener} LISTEN {local} holder=a[7]:4 inode=5");
        scans += u32::from(run.scan(at, &[seen]).is_some());
        assert!(run.0.tracker.entries() < FLAT, "{} after {number}", run.0.tracker.entries());
    }
    assert!(scans > 10 && scans < ROUNDS / 1_000, "{scans} scans");
}

/// Scans see everything, but never the same twice.
#[test]
fn what_scans_see_is_forgotten_by_the_next() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=10s findings pid=7,8", &mut shown);
    for number in 0..2_000 {
        let (at, pid) = (f64::from(number), 100 + number);
        let seen: Vec<_> = (0..100)
            .map(|more| {
                let id = number * 100 + more + 10;
                let address = address(id);
                format!("{at} see #{id} LISTEN {address} holder=a[{pid}]:{more} inode=5")
            })
            .collect();
        run.push(&format!("{at} name {pid} blue"));
        run.push(&format!("{at} pass lingering"));
        for line in &seen {
            run.push(line);
        }
        run.push(&format!("{at} process {pid} fds=9 limit=1024 threads=1S:ep_poll"));
        run.push(&format!("{at} end"));
        run.push(&format!("{at} name {pid}"));
        assert!(run.0.tracker.entries() < 1_000, "{} after {number}", run.0.tracker.entries());
    }
}

/// The last change of each is hidden by the filter of states.
#[test]
fn watched_sockets_leave_nothing_behind() {
    let mut shown = Shown::default();
    let mut rules = notation::rules("rules linger=10s pid=7");
    rules.filter.states = ["ESTABLISHED".parse().unwrap()].into();
    let mut run = Run(Driver::new(rules, &mut shown));
    for number in 0..ROUNDS {
        let (id, at) = (number + 10, f64::from(number) / 1_000.0);
        let socket = "127.0.0.1:4000 10.0.0.9:80 owner=a[7]/connect inode=5";
        run.push(&format!("{at} tcp #{id} SYN_SENT>ESTABLISHED {socket}"));
        run.push(&format!("{at} tcp #{id} FIN_WAIT2>CLOSE {socket}"));
        assert!(run.0.tracker.entries() < 10, "{} after {number}", run.0.tracker.entries());
    }
}

/// Connections of other workers, which stay open, find room and give it back.
#[test]
fn what_waits_for_a_claim_is_bounded_and_counted() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=1000s pid=8", &mut shown);
    for number in 0..ROUNDS {
        let (id, at) = (number + 10, f64::from(number) / 1_000.0);
        let socket = "127.0.0.1:80 10.0.0.9:5000 owner=web[7]/listener listener=#1";
        run.push(&format!("{at} tcp #{id} SYN_RECV>ESTABLISHED {socket}"));
        if number % 1_000 == 0 {
            run.scan(at, &[]);
        }
        assert!(run.0.tracker.entries() < 200_000, "{} after {number}", run.0.tracker.entries());
    }
    run.0.finish().unwrap();
    let summary = shown.summary;
    assert_eq!(summary.transitions + summary.others + summary.unclaimed, u64::from(ROUNDS));
    assert!(summary.unclaimed > 0 && summary.others > 0, "{summary:?}");
}

/// Each process leaks once; the summary tells the first of them apart.
#[test]
fn owners_of_findings_are_bounded_in_the_summary() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=1s", &mut shown);
    for number in 0..1_500 {
        let (id, pid, at) = (number + 10, number + 100, 4 * number + 1);
        let socket = format!("127.0.0.1:80 10.0.0.9:5000 owner=a[{pid}]/accept inode=4");
        run.push(&format!("{at} tcp #{id} ESTABLISHED>CLOSE_WAIT {socket}"));
        run.push(&format!("{} pass lingering", at + 2));
        run.push(&format!("{} see #{id} CLOSE_WAIT {socket} holder=a[{pid}]:4", at + 2));
        run.push(&format!("{} end", at + 2));
        run.push(&format!("{} tcp #{id} CLOSE_WAIT>LAST_ACK {socket} by=a[{pid}]", at + 3));
    }
    run.0.finish().unwrap();
    let (summary, owners) = (&shown.summary, shown.summary.owners.values().sum::<u64>());
    assert_eq!((summary.findings(), owners + summary.other_owners), (1_500, 1_500));
    assert!(summary.owners.len() <= 1_024, "{}", summary.owners.len());
}

/// A listener that comes names its process once; the source need not ask about those that it knows.
#[test]
fn processes_are_named_once() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=10s", &mut shown);
    for id in 1..100 {
        run.push(&format!("{id} tcp #{id} CLOSE>LISTEN 127.0.0.1:{id} owner=a[7]/listen by=a[7]"));
        let named = run.0.tracker.named();
        assert_eq!(
            named.keys().copied().collect::<Vec<_>>(),
            if id == 1 { vec![7] } else { vec![] }
        );
    }
    run.push(
        "100 tcp #200 LISTEN>SYN_RECV 127.0.0.1:99 10.0.0.9:5000 listener=#300 owner=b[8]/listener",
    );
    assert_eq!(run.0.tracker.named(), [(8, notation::time("100"))].into());
    assert!(run.0.tracker.is_claimed(8) && !run.0.tracker.is_claimed(7));
    run.push("101 running 8");
    assert!(!run.0.tracker.is_claimed(8));
}

/// Beside a steady demand for scans of what lingers, what waits for a claim gets its own.
#[test]
fn scans_take_turns() {
    let mut shown = Shown::default();
    let mut run = Run::new("rules linger=1s pid=8", &mut shown);
    let mut scopes = Vec::new();
    for second in 1..20 {
        let (at, id) = (f64::from(second), second + 100);
        let client = format!("127.0.0.1:80 10.0.0.9:{}", 5_000 + second);
        run.push(&format!(
            "{at} tcp #{id} ESTABLISHED>CLOSE_WAIT {client} owner=app[8]/fd inode=4"
        ));
        run.push(&format!(
            "{at} tcp #{} SYN_RECV>ESTABLISHED {client} owner=web[7]/listener listener=#1",
            id + 100
        ));
        run.push(&format!("{} clock", at + 0.9));
        scopes.extend(run.scan(at + 0.9, &[]));
    }
    for pair in scopes[2..].windows(2) {
        assert_ne!(pair[0], pair[1], "{scopes:?}");
    }
}

/// The kernel gives a namespace's inode to the next.
#[test]
fn a_namespace_that_has_lost_its_name_has_none() {
    let name = |lines: &[&str]| {
        let mut shown = Shown::default();
        let mut run = Run::new("rules linger=1s", &mut shown);
        for line in lines {
            run.push(line);
        }
        run.push("5 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/accept inode=4");
        run.push("6.5 pass lingering");
        run.push("6.5 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=app[8]/accept holder=app[8]:4 inode=4");
        run.push("6.5 end");
        drop(run);
        shown.namespaces.remove(0).unwrap()
    };
    assert_eq!(name(&["1 name 1 blue"]), "blue");
    assert_eq!(name(&["1 name 1 blue", "2 name 1"]), "app[8]");
    assert_eq!(name(&["1 name 1 blue", "2 gap 1"]), "app[8]", "what is missing may have said so");
    let by_others =
        ["1 pass lingering", "1 see #9 LISTEN 127.0.0.1:81 holder=old[3]:4 inode=9", "1 end"];
    assert_eq!(name(&by_others), "app[8]", "who lived there before is no name for it");
}

/// Nobody wants what is in a namespace that is gone, nor everything because none is left.
#[test]
fn a_filter_by_namespace_ends_with_it() {
    let mut shown = Shown::default();
    let mut rules = notation::rules("rules linger=1s");
    rules.filter.netns = [1].into();
    let mut run = Run(Driver::new(rules, &mut shown));
    run.push("1 name 1 blue");
    run.push("2 tcp #2 CLOSE>SYN_SENT 127.0.0.1:80 10.0.0.9:5000");
    run.push("3 name 1");
    run.push("4 tcp #2 SYN_SENT>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000");
    drop(run);
    assert_eq!(shown.path, ["CLOSE>SYN_SENT"]);
}

const PATHS: [&[&str]; 3] = [
    &[
        "LISTEN>SYN_RECV",
        "SYN_RECV>ESTABLISHED",
        "ESTABLISHED>FIN_WAIT1",
        "FIN_WAIT1>FIN_WAIT2",
        "FIN_WAIT2>CLOSE",
    ],
    &[
        "LISTEN>SYN_RECV",
        "SYN_RECV>ESTABLISHED",
        "ESTABLISHED>CLOSE_WAIT",
        "CLOSE_WAIT>LAST_ACK",
        "LAST_ACK>CLOSE",
    ],
    &["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", "ESTABLISHED>CLOSE"],
];

/// Between two changes: time, and a scan that does not see the socket.
const BETWEEN: [&str; 5] = ["", "pass watched", "pass lingering", "failed", "lost 1"];

proptest! {
    /// Whenever it comes out whose it is.
    #[test]
    fn what_a_watched_process_has_is_shown_from_its_beginning_to_its_end(
        path in proptest::sample::select(&PATHS[..]),
        learnt in 1usize..4,
        by_scan: bool,
        between in proptest::collection::vec((0usize..BETWEEN.len(), 0u32..20), 5),
    ) {
        let mut shown = Shown::default();
        let mut run = Run::new("rules linger=1000s pid=8", &mut shown);
        let learnt = learnt.min(path.len() - 1);
        let mut at = 1.0;
        for (number, (change, &(scan, wait))) in path.iter().zip(&between).enumerate() {
            let socket = "127.0.0.1:80 10.0.0.9:5000 owner=web[7]/listener listener=#1 inode=4";
            if number == learnt && by_scan {
                let state = change.split('>').next().unwrap();
                run.push(&format!("{at} pass watched"));
                run.push(&format!("{at} see #2 {state} {socket} holder=app[8]:6"));
                run.push(&format!("{at} end"));
            }
            let by = if number == learnt && !by_scan { " by=app[8]" } else { "" };
            run.push(&format!("{at} tcp #2 {change} {socket}{by}"));
            at += f64::from(wait);
            if !BETWEEN[scan].is_empty() {
                run.push(&format!("{at} {}", BETWEEN[scan]));
                run.push(&format!("{at} end"));
            }
        }
        run.0.finish().unwrap();
        prop_assert_eq!(&shown.path, path);
        prop_assert_eq!(shown.summary.unclaimed + shown.summary.others, 0);
    }

    /// Neither does a run that nobody asks, as a replay, keep more than one that is asked.
    #[test]
    fn tables_are_empty_when_everything_has_gone(story in properties::any_story()) {
        let mut sink = Shown::default();
        let mut pipeline = Driver::new(properties::rules(true), &mut sink);
        let mut at = notation::time("0");
        for input in &story {
            at = input.at();
            pipeline.push(input.clone()).unwrap();
        }
        for pid in 7..10 {
            pipeline.push(Input::Exited { at, pid }).unwrap();
        }
        pipeline.push(Input::Namespace { at, inode: 1, name: None }).unwrap();
        for _ in 0..2 {
            at = at + Nanos(10_000_000_000);
            pipeline.push(Input::PassBegin { at, scope: Scope::Everything }).unwrap();
            pipeline.push(Input::PassEnd { at }).unwrap();
        }
        prop_assert_eq!(pipeline.tracker.entries(), 0);
    }
}
