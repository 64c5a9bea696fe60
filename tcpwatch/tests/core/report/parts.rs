//! Parts of what happened: recordings that begin in the middle, and those that are not whole.

use tcpwatch::{
    core::{
        comm::Comm,
        finding::{Evidence, Finding, Status, Verdict},
        input::Input,
        record::{Lost, Place, Record, Summary},
        socket::{How, Owner, Process, SocketId},
        state::State,
        time::{Nanos, Timestamp},
    },
    report::{
        Collector, Report,
        diff::{self, Change},
    },
    sink::Sink,
};

use super::{diff_text, text_of};
use crate::notation;

const LINGER: u64 = 30;

fn seconds(number: u64) -> Timestamp {
    Timestamp(number * 1_000_000_000)
}

/// A finding of `api`, whose age is known exactly.
fn finding(id: u64, status: Status, began: u64, at: u64) -> Finding {
    let Input::Transition(transition) = notation::input(
        "0 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:40000 10.2.3.4:5432 role=client inode=7",
    ) else {
        panic!("no transition")
    };
    let mut socket = transition.socket;
    socket.id = Some(SocketId(id));
    let process = Process { pid: 4242, comm: Comm::from("api") };
    socket.owner = Some(Owner { process, how: How::Connect });
    Finding {
        at: seconds(at),
        status,
        verdict: Some(Verdict::NotClosed),
        state: State::CloseWait,
        linger: seconds(at).since(seconds(began)),
        at_least: false,
        at_most: None,
        socket,
        holders: Vec::new(),
        listener: None,
        evidence: Evidence::default(),
        netns_name: None,
        ending: None,
        same_owner: 1,
    }
}

fn take(collector: &mut Collector, record: &Record<'_>) {
    collector.record(&notation::clock(Timestamp(0)), record).unwrap();
}

fn finish(collector: &mut Collector, from: u64, to: u64, opened: u64) -> Report {
    let summary = Summary {
        at: seconds(to),
        duration: seconds(to).since(seconds(from)),
        verdicts: [(Verdict::NotClosed, opened)].into(),
        ..Summary::default()
    };
    take(collector, &Record::Summary(&summary));
    collector.report()
}

/// What a recording from one moment to another shows of a leak that gains one every `every` seconds
/// since 0. With `carried` those that are findings already are told as such first.
fn piece(every: u64, from: u64, to: u64, carried: bool) -> Report {
    let mut collector = Collector::new(Nanos(LINGER * 1_000_000_000));
    collector.begin(seconds(from));
    let mut opened = 0;
    // What is old is found first.
    for (id, began) in (0..).zip((0..to).step_by(usize::try_from(every).unwrap())) {
        let (status, at) = match began + LINGER {
            past if past <= from && carried => (Status::Still, from),
            past if past <= from => (Status::Open, from + 1),
            deadline => (Status::Open, deadline),
        };
        if at <= to {
            opened += u64::from(status == Status::Open);
            take(&mut collector, &Record::Finding(&finding(id, status, began, at)));
        }
    }
    finish(&mut collector, from, to, opened)
}

#[test]
fn two_pieces_of_a_steady_leak_do_not_differ() {
    let pieces = [(0, 600), (600, 1200), (900, 1200), (1500, 3600), (600, 660), (620, 630)];
    for every in [1, 2, 5, 10] {
        for carried in [false, true] {
            for ((x, y), (z, w)) in pieces.iter().flat_map(|a| pieces.map(|b| (*a, b))) {
                let (a, b) = (piece(every, x, y, carried), piece(every, z, w, carried));
                let diff = diff::compare(&a, &b);
                let said = diff_text(&a, &b, 100);
                assert!(!diff.worse, "{x}-{y} to {z}-{w}, one in {every} s:\n{said}");
                let [culprit] = &diff.culprits[..] else { panic!("one culprit:\n{said}") };
                assert!(matches!(culprit.change, Change::Same | Change::Unclear), "{said}");
                assert!(culprit.certain == (culprit.change == Change::Same), "{said}");
                let rate = diff.rates.iter().find(|rate| rate.what == "findings").unwrap();
                assert!(!rate.change.is_one(), "{said}");
                assert!(said.starts_with("No worse"), "{said}");
            }
        }
    }
}

#[test]
fn a_leak_that_becomes_twice_as_fast_is_worse() {
    let (slow, fast) = (piece(10, 600, 1800, false), piece(5, 600, 1800, false));
    assert!(diff::compare(&slow, &fast).worse);
    assert_eq!(diff::compare(&fast, &slow).culprits[0].change, Change::Less);
}

#[test]
fn what_was_there_before_tells_no_rate() {
    let old = |count: u64| {
        let mut collector = Collector::new(Nanos::SECOND);
        collector.begin(seconds(1000));
        for id in 0..count {
            take(&mut collector, &Record::Finding(&finding(id, Status::Open, 10, 1001)));
        }
        finish(&mut collector, 1000, 1060, count)
    };
    let diff = diff::compare(&old(20), &old(200));
    assert!(!diff.worse && diff.culprits[0].change == Change::Unclear, "{diff:?}");
    assert!(diff_text(&old(20), &old(200), 200).contains("how fast they come is not known"));
    let new = diff::compare(&old(0), &old(200));
    assert!(new.worse && !new.culprits[0].certain, "what is new counts as worse in any case");
}

#[test]
fn a_finding_is_from_before_if_it_began_before() {
    let report = piece(10, 600, 1200, false);
    let culprit = &report.culprits[0];
    assert_eq!((culprit.opened, culprit.before, culprit.open), (118, 60, 118));
    assert_eq!((report.totals.findings, report.totals.before), (118, 60));
    let text = text_of(&report, 100);
    assert!(text.contains("118 connections (60 from before 00:10:00), 118 still open"), "{text}");
    assert!(text.contains("the first began before 00:10:00, the last was found"), "{text}");
}

#[test]
fn what_is_open_when_a_replay_begins_is_there_from_its_start() {
    let report = piece(10, 600, 1200, true);
    let culprit = &report.culprits[0];
    assert_eq!((culprit.opened, culprit.before, culprit.open), (118, 60, 118));
    let totals = &report.totals;
    assert_eq!((totals.findings, totals.verdicts["not-closed"]), (118, 118));
    let buckets = &report.timeline.buckets;
    assert_eq!((buckets[0].open, buckets[0].findings, culprit.open_by_bucket[0]), (58, 58, 58));
    assert_eq!(buckets.last().unwrap().open, 118);
    // Told again, it is the same finding; ended, it is open no more.
    let mut collector = Collector::new(Nanos::SECOND);
    collector.begin(seconds(600));
    for (status, at) in [(Status::Still, 600), (Status::Still, 700), (Status::Ended, 800)] {
        take(&mut collector, &Record::Finding(&finding(1, status, 10, at)));
    }
    let report = finish(&mut collector, 600, 900, 0);
    let culprit = &report.culprits[0];
    assert_eq!((culprit.opened, culprit.before, culprit.open), (1, 1, 0));
    assert_eq!(report.groups.iter().map(|group| group.close_wait_now).sum::<u64>(), 0);
}

#[test]
fn the_table_and_the_culprits_agree_on_what_is_still_there() {
    for carried in [false, true] {
        let report = piece(10, 600, 1200, carried);
        let [group] = &report.groups[..] else { panic!("one group") };
        assert_eq!((group.close_wait_now, group.opened), (report.culprits[0].open, 0));
        assert_eq!(group.close_wait_now_oldest_ns, Some(1200 * 1_000_000_000));
    }
}

#[test]
fn nothing_was_lost_is_not_said_of_what_is_not_whole() {
    let report = || {
        let mut collector = Collector::new(Nanos::SECOND);
        collector.begin(seconds(0));
        finish(&mut collector, 0, 60, 0)
    };
    let whole = report();
    assert!(text_of(&whole, 80).contains("Nothing was lost."));
    let mut torn = report();
    for number in 0..200 {
        torn.note(&format!("shop.tcpw: block {number} is \x1b[31mdamaged"));
    }
    let text = text_of(&torn, 80);
    assert!(
        running(&text).contains("Nothing was lost by the kernel, but the recording is not whole:"),
        "{text}"
    );
    assert_eq!(text.matches("is \\x1b[31mdamaged").count(), 5, "{text}");
    assert!(text.contains("and 195 more"), "{text}");
    assert_eq!(torn.incomplete.notes.len(), 100);
    assert!(diff_text(&whole, &torn, 100).contains("not whole, so its counts are lower bounds"));
}

/// The text without its line breaks.
fn running(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn with_gaps(counts: &[u64]) -> Report {
    let mut collector = Collector::new(Nanos::SECOND);
    collector.begin(seconds(0));
    for (number, &count) in (1..).zip(counts) {
        let lost = Lost { at: seconds(number), count, total: u64::MAX, place: Place::Ring };
        take(&mut collector, &Record::Lost(lost));
    }
    finish(&mut collector, 0, 60, 0)
}

#[test]
fn a_gap_of_unknown_size_is_a_gap() {
    let report = with_gaps(&[0]);
    assert_eq!((report.gaps.count, report.gaps.unknown, report.gaps.first[0].lost), (1, 1, None));
    let text = text_of(&report, 80);
    assert!(running(&text).contains("It is not known how much was lost in 1 gap"), "{text}");
    assert!(text.contains('×') && text.contains("an unknown number before"), "{text}");
    assert!(
        running(&text_of(&with_gaps(&[0, 7]), 80))
            .contains("At least 7 transitions were lost in 2 gaps")
    );
}

#[test]
fn counts_that_were_forged_do_not_wrap() {
    let report = with_gaps(&[u64::MAX - 1, u64::MAX, 5]);
    assert_eq!(report.gaps.lost, u64::MAX);
    assert!(report.timeline.buckets.iter().any(|bucket| bucket.lost == u64::MAX));
    for text in [text_of(&report, 40), diff_text(&report, &report, 40)] {
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}

#[test]
fn centuries_are_only_long() {
    for to in [100 * 365 * 86_400, u64::MAX / 1_000_000_000] {
        let mut collector = Collector::new(Nanos(u64::MAX));
        collector.begin(seconds(0));
        take(&mut collector, &Record::Finding(&finding(1, Status::Open, 0, to)));
        let report = finish(&mut collector, 0, to, 1);
        for text in [text_of(&report, 40), diff_text(&report, &report, 40)] {
            assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        }
    }
    let mut collector = Collector::new(Nanos::SECOND);
    for at in [u64::MAX, 0, u64::MAX] {
        let mut finding = finding(1, Status::Still, 0, 0);
        (finding.at, finding.linger) = (Timestamp(at), Nanos(u64::MAX));
        take(&mut collector, &Record::Finding(&finding));
    }
    let report = collector.report();
    assert_eq!(report.duration_ns, u64::MAX);
    let _ = (text_of(&report, 80), diff_text(&report, &report, 80));
}

#[test]
fn findings_alone_say_nothing_of_connections() {
    let whole = piece(10, 0, 600, false);
    let mut collector = Collector::new(Nanos::SECOND);
    let line = "0 tcp #1 CLOSE>SYN_SENT 10.0.0.1:1 10.0.0.9:80 role=client owner=api[7]/connect";
    let Input::Transition(mut transition) = notation::input(line) else { panic!("no transition") };
    for second in 0..600 {
        transition.at = seconds(second);
        take(&mut collector, &Record::Transition(&transition));
    }
    let full = finish(&mut collector, 0, 600, 0);
    let mut quiet = whole.clone();
    quiet.totals.findings_only = true;
    for (a, b) in [(&full, &quiet), (&quiet, &full)] {
        let diff = diff::compare(a, b);
        assert!(diff.groups.is_empty(), "{:?}", diff.groups);
        assert!(diff.rates.iter().all(|rate| rate.what == "findings"), "{:?}", diff.rates);
        let said = diff_text(a, b, 100);
        assert!(!said.contains("opened") && said.contains("nothing else was recorded"), "{said}");
    }
    assert!(!diff::compare(&full, &whole).groups.is_empty());
}
