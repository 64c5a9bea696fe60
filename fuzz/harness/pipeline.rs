//! Any order of inputs about a few sockets, processes and moments, as each byte chooses.

use std::{collections::HashMap, io};

use tcpwatch::{
    core::{
        filter::Filter,
        finding::Status,
        input::Input,
        record::{Record, Summary},
        socket::SocketId,
        time::{ClockMark, Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    sink::Sink,
    sink::json::JsonSink,
};

use super::{
    everything::Everything,
    world::{Choices, input},
};

/// So much time between two inputs at most, ms.
const APART: u64 = 4_000;

/// Concludes from them, and holds what came of it against what must be. Panics where something is wrong.
pub(crate) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let rules = rules(&mut choices);
    let mut inputs = Vec::new();
    let mut at = Timestamp(1_000_000_000);
    while !choices.are_made() {
        at = at + Nanos(choices.below(16) * APART / 15 * 1_000_000);
        inputs.push(input(&mut choices, at));
    }
    let plain = shown(&rules, &inputs, false);
    assert!(plain == shown(&rules, &inputs, true), "clock marks change what is shown");
    check(&rules, &inputs);
    let mut sink = Everything::new(rules.linger);
    push(rules, &inputs, false, &mut sink);
    sink.report().expect("nothing is written anywhere");
}

fn rules(choices: &mut Choices<'_>) -> Rules {
    let kind = choices.below(5);
    let pids = match kind {
        0 | 1 => [].into(),
        2 => [7].into(),
        _ => [7, 8].into(),
    };
    Rules {
        linger: Nanos(3_000_000_000),
        filter: Filter { pids, follow: kind == 4, ..Filter::default() },
        findings_only: kind == 1,
        include_half_open: choices.below(2) == 0,
        tell_culprits: true,
    }
}

fn push(rules: Rules, inputs: &[Input], ticks: bool, sink: &mut dyn Sink) -> Summary {
    let mut pipeline = Driver::new(rules, sink);
    let nobody_writes = "nothing is written anywhere";
    pipeline.push(clock(Timestamp::default())).expect(nobody_writes);
    let mut before = Timestamp::default();
    for input in inputs {
        if ticks {
            let half = Nanos(input.at().since(before).0 / 2);
            pipeline.push(clock(before + half)).expect(nobody_writes);
            before = input.at();
        }
        pipeline.push(input.clone()).expect(nobody_writes);
        // A live source asks after every input; asking changes nothing.
        if ticks {
            let _ = (pipeline.tracker.wants_pass(), pipeline.tracker.next_deadline());
        }
    }
    pipeline.finish().expect(nobody_writes)
}

/// The wall clock follows the monotonic one, so where a mark stands makes no difference.
fn clock(at: Timestamp) -> Input {
    Input::Clock(ClockMark { mono: at, boot: at, real_ns: 1_767_225_600_000_000_000 + at.0 })
}

fn shown(rules: &Rules, inputs: &[Input], ticks: bool) -> Vec<u8> {
    let mut out = Vec::new();
    push(rules.clone(), inputs, ticks, &mut JsonSink::new(&mut out));
    out
}

/// A finding opens, is told of again, and ends at most once; the summary counts what was shown.
fn check(rules: &Rules, inputs: &[Input]) {
    let mut checker = Checker::default();
    let summary = push(rules.clone(), inputs, true, &mut checker);
    assert_eq!(summary.ended, checker.ended, "findings that ended");
    assert_eq!(summary.findings(), checker.opened, "findings");
    assert_eq!(summary.lost, checker.lost, "lost");
    if !rules.findings_only {
        assert_eq!(summary.transitions, checker.transitions, "transitions");
        let all = inputs.iter().filter(|input| matches!(input, Input::Transition(_))).count();
        let counted = summary.transitions + summary.others + summary.unclaimed;
        assert_eq!(counted, all as u64, "transitions that are shown, others' or unclaimed");
    }
}

#[derive(Default)]
struct Checker {
    /// Whether one is open, and the time of what was last said of it.
    told: HashMap<Option<SocketId>, (bool, Timestamp)>,
    transitions: u64,
    opened: u64,
    ended: u64,
    lost: u64,
}

impl Sink for Checker {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(_) => self.transitions += 1,
            Record::Finding(finding) => {
                let (open, at) = self.told.entry(finding.socket.id).or_default();
                assert_eq!(*open, finding.status != Status::Open, "{:?}", finding.status);
                // Of one socket. Who is not there any more ended when the pass that shows it began, and
                // somebody else may have ended while it ran.
                assert!(finding.at >= *at || !*open, "time goes back");
                (*open, *at) = (finding.status != Status::Ended, finding.at);
                self.opened += u64::from(finding.status == Status::Open);
                self.ended += u64::from(finding.status == Status::Ended);
            }
            Record::Lost(lost) => {
                self.lost += lost.count;
                assert_eq!(lost.total, self.lost, "lost in all");
            }
            Record::Culprit(_) | Record::Summary(_) => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
