//! What text, JSON, culprits and the summary say of the same thing is the same.

use serde_json::{Value, json};
use tcpwatch::{
    driver::Driver,
    sink::Sink,
    sink::{
        json::JsonSink,
        text::{Style, TextSink},
    },
};

use crate::notation;

const STYLE: Style = Style { colour: false, width: None, time: false, elapsed: false, wide: false };

fn play(rules: &str, inputs: &[&str], sink: &mut dyn Sink) {
    let mut pipeline = Driver::new(notation::rules(rules), sink);
    for line in inputs {
        pipeline.push(notation::input(line)).unwrap();
    }
    pipeline.finish().unwrap();
}

/// The lines of JSON, and the text.
fn told(rules: &str, inputs: &[&str]) -> (Vec<Value>, String) {
    let (mut json, mut text) = (Vec::new(), Vec::new());
    play(rules, inputs, &mut JsonSink::new(&mut json));
    play(rules, inputs, &mut TextSink::new(&mut text, STYLE));
    let lines = String::from_utf8(json).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, String::from_utf8(text).unwrap())
}

fn of<'a>(lines: &'a [Value], kind: &str) -> &'a Value {
    let mut found = lines.iter().filter(|line| line["type"] == kind);
    let line = found.next().unwrap();
    assert!(found.next().is_none(), "several {kind}");
    line
}

/// Whoever should accept it is its owner, whether its beginning was seen or not.
#[test]
fn what_nobody_accepted_belongs_to_who_should_accept_it() {
    let before = "0 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 unread=1 listener=#1 role=server ages=60/60/60 quiet";
    let seen = "0 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 unread=1 listener=#1 role=server owner=init[1]/listener";
    let look = [
        "31 pass everything",
        "31 see #1 LISTEN 127.0.0.1:80 holder=web[7]:3 queue=1/128 inode=5",
        "31 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 unread=1 listener=#1 role=server",
        "31 end",
    ];
    for first in [before, seen] {
        let (lines, text) = told("rules findings", &[&[first], &look[..]].concat());
        let finding = of(&lines, "finding");
        assert_eq!(finding["owner"], json!({"pid": 7, "comm": "web", "how": "listener"}));
        assert_eq!(finding["holders"], json!([]));
        let summary = finding["summary"].as_str().unwrap();
        assert!(summary.starts_with("web[7] fd 3 on 127.0.0.1:80 is not accepting"), "{summary}");
        let culprit = of(&lines, "culprit");
        assert_eq!((&culprit["pid"], &culprit["comm"]), (&json!(7), &json!("web")));
        let owners = &of(&lines, "summary")["owners"];
        assert_eq!(*owners, json!([{"pid": 7, "comm": "web", "findings": 1}]));
        assert!(text.contains("FINDING never-accepted web[7] CLOSE_WAIT"), "{text}");
        assert!(text.contains("1 finding: web[7]"), "{text}");
    }
}

/// The peer's FIN was the last thing that came in, so both are the same age at any moment.
#[test]
fn ages_in_a_finding_are_of_one_moment() {
    let inputs = [
        "100 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 unread=1 inode=9 ages=10/700/650 quiet",
        "120.7 pass lingering",
        "120.7 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 unread=1 inode=9 ages=30.7/720.7/670.7 quiet",
        "120.7 end",
    ];
    let (lines, text) = told("rules findings", &inputs);
    let finding = of(&lines, "finding");
    assert_eq!(finding["linger_ns"], 30_000_000_000_u64);
    assert_eq!(finding["evidence"]["last_ack_received_ns"], finding["linger_ns"]);
    assert_eq!(finding["evidence"]["last_data_received_ns"], 720_000_000_000_u64);
    assert!(text.contains("last ack 30s ago, data in 12m00s ago"), "{text}");
}

/// What came after the moment of a finding is no negative age, and what was seen long before it is
/// not said at all.
#[test]
fn evidence_of_another_moment_is_not_said_of_this_one() {
    let inputs = [
        "0 tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=web[7]/accept inode=9",
        "31 pass lingering",
        "31 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 inode=9 ages=0.2/31/31",
        "31 end",
        "45 tcp #2 CLOSE_WAIT>LAST_ACK 127.0.0.1:80 10.0.0.9:5000 owner=web[7]/accept inode=9 by=web[7]",
    ];
    let (lines, _) = told("rules findings", &inputs);
    let findings: Vec<_> = lines.iter().filter(|line| line["type"] == "finding").collect();
    let ack = |number: usize| &findings[number]["evidence"]["last_ack_received_ns"];
    assert_eq!((ack(0), ack(1)), (&json!(0), &Value::Null));
}

/// Sockets of others are not counted among those that may have lingered for long enough.
#[test]
fn undecided_are_only_those_that_are_watched() {
    let young = [
        "100 pass everything",
        "100 see #1 LISTEN 127.0.0.1:81 holder=web[9]:3 queue=1/128 inode=5",
        "100 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 inode=9 ages=1/60/60",
        "100 see #3 CLOSE_WAIT 127.0.0.1:81 10.0.0.9:5001 listener=#1 ages=1/60/60",
        "100 end",
    ];
    let undecided = |rules: &str| {
        let (lines, _) = told(rules, &young);
        of(&lines, "summary")["undecided"].as_u64().unwrap()
    };
    assert_eq!(undecided("rules findings linger=5s"), 2);
    assert_eq!(undecided("rules findings linger=5s pid=7"), 1);
    assert_eq!(undecided("rules findings linger=5s pid=9"), 1, "through its listener");
    assert_eq!(undecided("rules findings linger=5s pid=8"), 0);
}
