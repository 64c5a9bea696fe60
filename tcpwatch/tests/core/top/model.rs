//! The model keeps the same opinion of culprits as the pipeline, and what it shows is bounded.

use std::io;

use proptest::prelude::*;
use tcpwatch::{
    core::{
        culprits::{Culprit, Culprits, Key},
        finding::{Evidence, Finding, Status, Verdict},
        input::Input,
        process::ProcessFacts,
        record::Record,
        socket::{Role, SocketId},
        state::State,
        time::{Nanos, Timestamp},
    },
    sink::Sink as _,
    top::{
        app::Key as Typed,
        model::{Model, Sort},
        snapshot::{MOST_ROWS, Page, Place, Query},
    },
};

use super::{Person, around};
use crate::{notation, report::story::Story};

const SECOND: u64 = 1_000_000_000;

fn finding(
    id: u64,
    at: Timestamp,
    linger: u64,
    (pid, server): (u32, bool),
    status: Status,
) -> Finding {
    let role = if server { "server" } else { "client" };
    let line = format!(
        "0 see #{id} CLOSE_WAIT 10.0.0.1:80 10.0.0.{}:5432 role={role} owner=api[{pid}]/fd",
        pid % 4
    );
    let Input::Observed(seen) = notation::input(&line) else { panic!("not a look") };
    let facts =
        ProcessFacts { pid, at, fds: Some(500), fd_limit: Some(1024), ..ProcessFacts::default() };
    Finding {
        at,
        status,
        verdict: Some(if pid.is_multiple_of(2) { Verdict::NotClosed } else { Verdict::NotReading }),
        state: State::CloseWait,
        linger: Nanos(linger * SECOND),
        at_least: linger.is_multiple_of(3),
        at_most: None,
        socket: seen.socket,
        holders: Vec::new(),
        listener: None,
        evidence: Evidence { process: Some(facts.into()), ..Evidence::default() },
        netns_name: None,
        ending: None,
        same_owner: 1,
    }
}

fn tell(model: &mut Model, finding: &Finding) -> io::Result<()> {
    model.record(&notation::clock(finding.at), &Record::Finding(finding))
}

type Told = (Key, usize, Nanos, Nanos, Nanos, bool, Option<Nanos>);

/// What both say of a group.
fn told(culprit: &Culprit) -> Told {
    let Culprit { key, count, oldest, p50, p99, at_least, reaches_limit_in, .. } = culprit.clone();
    (key, count, oldest, p50, p99, at_least, reaches_limit_in)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_agrees_with_the_pipeline(
        events in proptest::collection::vec((0u64..60, 1u64..40, (1u32..5, any::<bool>()), 0u8..4), 1..300),
        sorts in proptest::collection::vec(proptest::sample::select(&Sort::ALL[..]), 1..5),
    ) {
        let mut model = Model::new(Nanos(SECOND));
        let mut culprits = Culprits::default();
        let mut now = Timestamp(100 * SECOND);
        for (number, (id, linger, whose, what)) in events.into_iter().enumerate() {
            now = now + Nanos(SECOND / 4);
            let status = match what {
                0 => Status::Ended,
                1 => Status::Still,
                _ => Status::Open,
            };
            let finding = finding(id, now, linger, whose, status);
            culprits.apply(&finding, now);
            tell(&mut model, &finding).unwrap();
            model.groups.sort_by(sorts[number % sorts.len()]);
        }
        // Growth is judged once a second, so let there be one.
        now = now + Nanos(SECOND);
        let clock = notation::clock(now);
        model.census(&clock, &tcpwatch::core::record::Census { at: now, ..Default::default() }).unwrap();
        model.groups.sort_by(Sort::Hurt);
        let expected: Vec<_> = culprits.all(now).iter().map(told).collect();
        let mut got: Vec<_> = model.groups.iter().map(|group| told(&model.culprit(group))).collect();
        prop_assert_eq!(got.len(), model.groups.len());
        // Both begin with what will exhaust its process; beyond that the screen looks at growth first.
        let limits = |all: &[Told]| -> Vec<_> { all.iter().map(|culprit| culprit.6).collect() };
        prop_assert_eq!(limits(&got), limits(&expected));
        got.sort();
        let mut expected = expected;
        expected.sort();
        prop_assert_eq!(got, expected);
        let open: usize = model.groups.iter().map(|group| group.sockets.len()).sum();
        prop_assert_eq!(open, model.open());
    }
}

/// A hundred thousand findings, each of a culprit of its own.
fn many() -> Model {
    let mut model = Model::new(Nanos(SECOND));
    let at = Timestamp(1000 * SECOND);
    for id in 0..100_000 {
        let pid = u32::try_from(id).unwrap() + 1;
        tell(&mut model, &finding(id, at, 1 + id % 50, (pid, false), Status::Open)).unwrap();
    }
    model
}

#[test]
fn a_snapshot_is_bounded_and_a_filter_finds_the_rest() {
    let model = many();
    let rows = |filter: &str| {
        let query = Query { filter: filter.to_owned(), ..Query::default() };
        let Page::Culprits(list) = model.snapshot(&query).page else { panic!("not culprits") };
        (list.rows.len(), list.matching, list.total)
    };
    assert_eq!(rows(""), (MOST_ROWS, 100_000, 100_000));
    assert_eq!(rows("[98765]"), (1, 1, 100_000));
    assert_eq!(rows("not-closed"), (MOST_ROWS, 50_000, 100_000));
    assert_eq!(rows("10.0.0.3"), (MOST_ROWS, 25_000, 100_000));
}

#[test]
fn a_filter_finds_the_peers_of_a_server() {
    let mut model = Model::new(Nanos(SECOND));
    for id in 0..3 {
        let mut finding = finding(id, Timestamp(10 * SECOND), 2, (7, true), Status::Open);
        finding.socket.remote = format!("192.168.7.{id}:4000").parse().unwrap();
        finding.socket.role = Some(Role::Server);
        tell(&mut model, &finding).unwrap();
    }
    let matching = |filter: &str, place: Place| {
        let query = Query { filter: filter.to_owned(), place, ..Query::default() };
        match model.snapshot(&query).page {
            Page::Culprits(list) => list.matching,
            Page::Sockets(_, list) | Page::Ended(list) => list.matching,
            Page::Story(_) => panic!("no list"),
        }
    };
    let key = model.groups.iter().next().unwrap().key;
    assert_eq!(matching("192.168.7.2", Place::Culprits), 1);
    assert_eq!(matching("192.168.8", Place::Culprits), 0);
    assert_eq!(matching("192.168.7.2", Place::Sockets(key)), 1);
    assert_eq!(matching("192.168.7", Place::Sockets(key)), 3);
}

#[test]
fn a_story_has_its_states_and_its_end() {
    let mut story = Story::new("rules linger=10s");
    for line in [
        "looks",
        "0 tcp #1 CLOSE>SYN_SENT 10.0.0.1:4 10.2.3.4:5 role=client owner=api[7]/connect inode=7 born=0",
        "1 tcp #1 SYN_SENT>ESTABLISHED 10.0.0.1:4 10.2.3.4:5 role=client owner=api[7]/connect inode=7 born=0.5 entered=0.5",
        "5 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:4 10.2.3.4:5 role=client owner=api[7]/connect inode=7 born=0.5 entered=1",
        "20 clock",
    ] {
        story.line(line);
    }
    let mut model = Model::new(story.rules().linger);
    story.tell(&mut model);
    let steps = |model: &Model| -> Vec<_> {
        let open = model.finding(SocketId(1).into()).unwrap();
        let dwells = open.path.dwells(model.now());
        dwells.map(|(step, dwell)| (step.state, dwell.map(|dwell| dwell.0 / 100_000_000))).collect()
    };
    let expected =
        [(State::SynSent, Some(5)), (State::Established, Some(40)), (State::CloseWait, Some(150))];
    assert_eq!(steps(&model), expected);
    // It can still be looked at when it has ended.
    story.line("30 tcp #1 CLOSE_WAIT>LAST_ACK 10.0.0.1:4 10.2.3.4:5 role=client owner=api[7]/connect inode=7 by=api[7]");
    let mut model = Model::new(story.rules().linger);
    story.tell(&mut model);
    assert_eq!((model.open(), model.ended, model.groups.len()), (0, 1, 0));
    let mut person = Person::new(model, around(None), (80, 24));
    person.press(Typed::Enter);
    let Page::Story(Some(told)) = person
        .model
        .snapshot(&Query { place: Place::Story(SocketId(1).into()), ..Query::default() })
        .page
    else {
        panic!("no story")
    };
    assert_eq!(told.finding.linger, Nanos(25 * SECOND));
    assert!(told.finding.ending.is_some());
}

/// As many are kept as a list shows; of a socket that was a finding twice each has a story.
#[test]
fn what_has_ended_is_kept_and_bounded() {
    let mut model = Model::new(Nanos(SECOND));
    let at = |id: u64| Timestamp((100 + id) * SECOND);
    for id in 0..600 {
        // The last socket is the one before it again.
        let socket = id.min(598);
        for status in [Status::Open, Status::Ended] {
            let finding = finding(socket, at(id), 1 + id, (7, false), status);
            tell(&mut model, &finding).unwrap();
        }
    }
    let query = Query { place: Place::Ended, ..Query::default() };
    let Page::Ended(list) = model.snapshot(&query).page else { panic!("no list") };
    assert_eq!((model.ended, list.total, list.rows.len()), (600, MOST_ROWS, MOST_ROWS));
    let (latest, before) = (&list.rows[0], &list.rows[1]);
    assert_eq!((latest.which.id, before.which.id), (SocketId(598), SocketId(598)));
    let linger = |which| model.finding(which).map(|open| open.finding.linger);
    assert_eq!(linger(latest.which), Some(Nanos(600 * SECOND)));
    assert_eq!(linger(before.which), Some(Nanos(599 * SECOND)));
    assert_eq!(linger(SocketId(598).into()), Some(Nanos(600 * SECOND)));
    assert_eq!(linger(SocketId(3).into()), None);
}

#[test]
fn a_connection_that_dies_under_its_fd_is_told_so() {
    let mut story = Story::new("rules linger=10s");
    for line in [
        "0 tcp #1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:4 10.2.3.4:5 owner=api[7]/connect inode=7 entered=0.1",
        "11 pass lingering",
        "11 see #1 CLOSE_WAIT 10.0.0.1:4 10.2.3.4:5 holder=api[7]:4 inode=7 owner=api[7]/fd",
        "11 end",
        "15 tcp #1 CLOSE_WAIT>CLOSE 10.0.0.1:4 10.2.3.4:5 owner=api[7]/connect inode=7 error=104",
        "20 pass lingering",
        "20 see #1 CLOSE 10.0.0.1:4 10.2.3.4:5 holder=api[7]:4 inode=7 owner=api[7]/fd error=104",
        "20 end",
        "25 clock",
    ] {
        story.line(line);
    }
    let mut model = Model::new(story.rules().linger);
    story.tell(&mut model);
    let open = model.finding(SocketId(1).into()).unwrap();
    assert_eq!(open.finding.verdict, Some(Verdict::DeadFd));
    let steps: Vec<_> =
        open.path.dwells(model.now()).map(|(step, dwell)| (step.state, dwell)).collect();
    assert_eq!(
        steps[1..],
        [(State::CloseWait, Some(Nanos(15 * SECOND))), (State::Close, Some(Nanos(10 * SECOND)))]
    );
}
