//! That the comparison sees what deviates.

use std::{net::Ipv4Addr, ops::Range};

use serde_json::json;

use super::*;
use crate::difftest::trace::threads_of_init;

const PORTS: Range<u16> = 12_000..18_000;
const PATH: [&str; 3] = ["CLOSE", "SYN_SENT", "ESTABLISHED"];

fn state(name: &str) -> State {
    State::try_from(std::borrow::Cow::from(name)).unwrap()
}

/// A connection that closes, as the kernel has it and as tcpwatch says it.
fn connection(tid: i32) -> (Vec<Event>, Vec<Line>) {
    let path = PATH.iter().chain(&["CLOSE_WAIT", "LAST_ACK", "CLOSE"]).copied();
    let path: Vec<&str> = path.collect();
    let steps = path.windows(2).zip(1_u64..).map(|(pair, number)| {
        let local = Ipv4Addr::LOCALHOST.into();
        let ns = number * 1_000_000;
        let event = Event {
            ns,
            tid,
            sk: 7,
            old: state(pair[0]),
            new: state(pair[1]),
            sport: 13_000,
            dport: 12_000,
            protocol: 6,
            v6: false,
            local,
            remote: local,
        };
        let line = json!({
            "type": "transition", "mono_ns": ns + 500, "socket": 1, "cookie": 1, "family": 4, "uid": 0,
            "protocol": "tcp", "local": {"addr": "127.0.0.1", "port": 13_000},
            "remote": {"addr": "127.0.0.1", "port": 12_000}, "old": pair[0], "new": pair[1],
            "in_state_ns": (number > 1).then_some(1_000_000), "lifetime_ns": null, "owner": null,
            "by": null, "uncertain": false,
        });
        (event, Line::parse(&line.to_string()).unwrap())
    });
    steps.unzip()
}

fn deviations(events: &[Event], lines: &[Line]) -> Vec<&'static str> {
    let strangers = Strangers::find(events, &PORTS, &HashSet::new());
    let mut report = Report::default();
    compare(events, lines, 0..=u64::MAX, &strangers, &mut report);
    report.deviations.into_keys().collect()
}

#[test]
fn what_agrees_does_not_deviate() {
    let (events, lines) = connection(1_000_000);
    assert!(deviations(&events, &lines).is_empty());
}

#[test]
fn a_transition_that_is_not_said_is_missing() {
    let (events, mut lines) = connection(1_000_000);
    lines.remove(2);
    assert!(deviations(&events, &lines).contains(&"transition-missing"));
}

#[test]
fn a_transition_that_was_not_is_extra() {
    let (mut events, lines) = connection(1_000_000);
    events.remove(2);
    assert!(deviations(&events, &lines).contains(&"transition-extra"));
}

#[test]
fn what_process_1_hides_must_be_flagged() {
    let init = threads_of_init().into_iter().next().unwrap();
    let (events, mut lines) = connection(init);
    lines.remove(2);
    assert_eq!(deviations(&events, &lines), ["gap-not-flagged"]);
    let flagged = lines[2].text.replace(r#""uncertain":false"#, r#""uncertain":true"#);
    lines[2] = Line::parse(&flagged).unwrap();
    assert!(deviations(&events, &lines).is_empty());
}

#[test]
fn another_number_or_time_deviates() {
    let (events, lines) = connection(1_000_000);
    for (what, instead, kind) in [
        (r#""socket":1"#, r#""socket":2"#, "two-numbers-of-one-socket"),
        (r#""in_state_ns":1000000"#, r#""in_state_ns":9"#, "in-state"),
        (r#""port":12000"#, r#""port":0"#, "remote-port"),
    ] {
        let mut changed = lines.clone();
        changed[3] = Line::parse(&lines[3].text.replace(what, instead)).unwrap();
        assert!(deviations(&events, &changed).contains(&kind), "{kind}");
    }
}
