//! What is kept has bounds, and what exceeds them is counted.

use std::net::Ipv4Addr;

use tcpwatch::{
    core::{
        finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
        input::{Input, Transition},
        record::Record,
        state::State,
        time::{Nanos, Timestamp},
    },
    report::Collector,
    sink::Sink,
};

use crate::notation;

fn transition(line: &str) -> Transition {
    let Input::Transition(transition) = notation::input(line) else { panic!("no transition") };
    transition
}

fn feed(collector: &mut Collector, transition: &Transition) {
    let clock = notation::clock(Timestamp(0));
    collector.record(&clock, &Record::Transition(transition)).unwrap();
}

#[test]
fn groups_are_bounded_and_the_large_ones_stay() {
    let mut collector = Collector::new(Nanos::SECOND);
    let mut t = transition(
        "0 tcp #1 CLOSE>SYN_SENT 10.0.0.1:1 10.0.0.9:5432 role=client owner=crawler[7]/connect",
    );
    let remote = t.socket.remote;
    for number in 0..100_000u32 {
        t.socket.remote = (Ipv4Addr::from_bits(0x0a00_0000 + number), 80).into();
        feed(&mut collector, &t);
        // One that is seen often stays.
        if number % 50 == 0 {
            t.socket.remote = remote;
            feed(&mut collector, &t);
        }
    }
    let groups = collector.report().groups;
    assert!(groups.len() <= 8192 + 256, "{} groups", groups.len());
    assert_eq!(groups.iter().map(|group| group.opened).sum::<u64>(), 102_000);
    let known = groups.iter().find(|group| group.end == "10.0.0.9:5432").unwrap();
    assert_eq!(known.opened, 2000);
    let other = groups.iter().find(|group| group.end == "other").unwrap();
    assert_eq!((other.comm.as_deref(), other.role), (Some("crawler"), Some("client")));
    assert!(other.folded > 90_000);
}

#[test]
fn names_that_are_too_many_are_counted_together() {
    let mut collector = Collector::new(Nanos::SECOND);
    for number in 0..40_000u32 {
        let line = format!(
            "0 tcp #{number} CLOSE>SYN_SENT 10.0.0.1:1 10.0.0.9:80 role=client owner=w{number}[7]/connect"
        );
        feed(&mut collector, &transition(&line));
    }
    let groups = collector.report().groups;
    assert!(groups.len() <= 8192 + 256, "{} groups", groups.len());
    assert_eq!(groups.iter().map(|group| group.opened).sum::<u64>(), 40_000);
    assert!(groups[0].comm.is_none() && groups[0].opened > 10_000, "{:?}", groups[0]);
}

#[test]
fn what_is_in_close_wait_stays_with_its_group_when_that_is_folded() {
    let mut collector = Collector::new(Nanos::SECOND);
    let mut t = transition(
        "0 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:1 10.0.0.9:80 role=client owner=crawler[7]/fd",
    );
    let mut sockets = Vec::new();
    for number in 0..20_000u32 {
        t.socket.remote = (Ipv4Addr::from_bits(0x0a00_0000 + number), 80).into();
        t.socket.id = Some(tcpwatch::core::socket::SocketId(number.into()));
        feed(&mut collector, &t);
        sockets.push(t);
    }
    let still = |collector: &Collector| {
        collector.report().groups.iter().map(|group| group.close_wait_now).sum::<u64>()
    };
    assert_eq!(still(&collector), 20_000);
    for mut t in sockets {
        (t.old, t.new, t.entered) = (State::CloseWait, State::LastAck, Some(t.at));
        feed(&mut collector, &t);
    }
    assert_eq!(still(&collector), 0);
}

#[test]
fn the_time_line_is_bounded_and_exact_for_sockets_seen_late() {
    let mut collector = Collector::new(Nanos::SECOND);
    let line = "0 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:1 10.0.0.9:80 role=client";
    let mut t = transition(line);
    for second in 0..100_000u64 {
        t.at = Timestamp(second * 1_000_000_000);
        t.socket.id = Some(tcpwatch::core::socket::SocketId(second));
        feed(&mut collector, &t);
    }
    let timeline = collector.report().timeline;
    assert!(timeline.buckets.len() <= 240 && timeline.buckets.len() > 120);
    assert_eq!(timeline.buckets.iter().map(|bucket| bucket.transitions).sum::<u64>(), 100_000);
    assert_eq!(timeline.width_ns, 512_000_000_000);
}

#[test]
fn time_may_do_what_it_likes() {
    let mut collector = Collector::new(Nanos::SECOND);
    let line = "0 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:1 10.0.0.9:80 role=client";
    let mut t = transition(line);
    for at in [5, u64::MAX, 0, u64::MAX / 2, 1] {
        t.at = Timestamp(at);
        feed(&mut collector, &t);
    }
    let timeline = collector.report().timeline;
    assert_eq!(timeline.buckets.iter().map(|bucket| bucket.transitions).sum::<u64>(), 5);
}

/// A finding that has lingered for so many seconds, of one of several processes.
fn told(id: u32, pid: u32, status: Status, seconds: u64) -> Finding {
    let line = format!(
        "0 tcp #{id} ESTABLISHED>CLOSE_WAIT 10.0.0.1:1 10.0.0.9:80 role=client owner=api[{pid}]/fd"
    );
    let linger = Nanos(seconds * Nanos::SECOND.0);
    Finding {
        at: Timestamp(1_000_000) + linger,
        status,
        verdict: Some(Verdict::NotClosed),
        state: State::CloseWait,
        linger,
        at_least: false,
        at_most: None,
        socket: transition(&line).socket,
        holders: Vec::new(),
        listener: None,
        evidence: Evidence::default(),
        netns_name: None,
        ending: (status == Status::Ended).then_some(Ending { cause: Cause::Closed, by: None }),
        same_owner: 1,
    }
}

#[test]
fn a_page_lists_the_longest_of_every_culprit() {
    let mut collector = Collector::for_page(Nanos::SECOND);
    let clock = notation::clock(Timestamp(0));
    let mut say = |f: &Finding| collector.record(&clock, &Record::Finding(f)).unwrap();
    // Three of one, 900 of another, and of the third more than there is room for, in no order.
    let all: Vec<(u32, u64)> = (0..20_000u32)
        .map(|number| {
            let pid = if number < 3 {
                1
            } else if number % 22 == 0 {
                2
            } else {
                3
            };
            (pid, 10 + u64::from(number.wrapping_mul(2_654_435_761) >> 12))
        })
        .collect();
    for (id, &(pid, _)) in (0..).zip(&all) {
        say(&told(id, pid, Status::Open, 1));
    }
    for (id, &(pid, seconds)) in (0..).zip(&all) {
        say(&told(id, pid, Status::Ended, seconds));
    }
    let report = collector.report();
    let listed = collector.listed();
    assert_eq!(report.culprits.iter().map(|culprit| culprit.opened).sum::<u64>(), 20_000);
    assert_eq!(listed.len(), 2000);
    for (pid, size) in [(1, 3), (2, 909), (3, 1088)] {
        let place = report.culprits.iter().position(|culprit| culprit.pid == Some(pid)).unwrap();
        let got: Vec<u64> = listed
            .iter()
            .filter(|listed| listed.culprit == place)
            .map(|listed| listed.linger.0 / Nanos::SECOND.0)
            .collect();
        let mut longest: Vec<u64> =
            all.iter().filter(|&&(of, _)| of == pid).map(|&(_, seconds)| seconds).collect();
        longest.sort_unstable_by(|a, b| b.cmp(a));
        longest.truncate(size);
        assert_eq!(got, longest, "of {pid}");
    }
}
