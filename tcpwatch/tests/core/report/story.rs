//! A recording as lines, played through a real pipeline into the collector.

use std::collections::BTreeMap;

use tcpwatch::{
    core::{
        input::{Input, Observation, Transition},
        pipeline::{Pipeline, Rules},
        record::Summary,
        socket::{Holder, SocketId},
        state::State,
        time::{Nanos, Timestamp},
    },
    report::{Collector, Report},
};

use crate::notation;

/// A recording.
pub(crate) struct Story {
    rules: Rules,
    inputs: Vec<Input>,
    looks: bool,
}

impl Story {
    pub(crate) fn new(rules: &str) -> Self {
        Self { rules: notation::rules(rules), inputs: Vec::new(), looks: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Adds what a line says; other lines are none of ours.
    pub(crate) fn line(&mut self, line: &str) {
        if line == "looks" {
            self.looks = true;
        } else if let Some(many) = line.strip_prefix("* ") {
            let mut words = many.splitn(4, ' ');
            let mut number = || words.next().unwrap().parse::<f64>().unwrap();
            let (count, every, from) = (number(), number(), number());
            let what = words.next().unwrap();
            let mut n = 0;
            while f64::from(n) < count {
                let at = from + f64::from(n) * every;
                n += 1;
                self.inputs.push(notation::input(&format!("{at} {}", filled(what, n, at))));
            }
        } else if line.starts_with(|c: char| c.is_ascii_digit()) {
            self.inputs.push(notation::input(line));
        }
    }

    /// The report of all of it.
    pub(crate) fn report(&self) -> Report {
        let mut inputs = self.inputs.clone();
        inputs.sort_by_key(Input::at);
        play(&self.rules, &inputs, self.looks).0
    }
}

/// Plays inputs in order; with `looks` runs the passes that the pipeline wants.
pub(crate) fn play(rules: &Rules, inputs: &[Input], looks: bool) -> (Report, Summary) {
    let mut collector = Collector::new(rules.linger);
    let summary = play_into(&mut collector, rules, inputs, looks);
    (collector.report(), summary)
}

/// The same into a collector.
pub(crate) fn play_into(
    collector: &mut Collector,
    rules: &Rules,
    inputs: &[Input],
    looks: bool,
) -> Summary {
    let start = inputs.first().map_or(Timestamp(0), Input::at);
    collector.begin(start);
    let mut pipeline = Pipeline::new(rules.clone(), collector);
    pipeline.push(Input::Clock(notation::clock(start))).unwrap();
    let mut sockets: BTreeMap<SocketId, Transition> = BTreeMap::new();
    for input in inputs {
        if looks {
            // As a live source does: every deadline has its pass.
            while let Some(deadline) = pipeline.next_deadline().filter(|&at| at <= input.at()) {
                let at = deadline + Nanos(1_000_000);
                pipeline.push(Input::Clock(notation::clock(at))).unwrap();
                look(&mut pipeline, &sockets, at);
            }
        }
        if let Input::Transition(transition) = input {
            sockets.insert(transition.socket.id.unwrap(), *transition);
        }
        pipeline.push(input.clone()).unwrap();
    }
    pipeline.finish().unwrap()
}

fn look(pipeline: &mut Pipeline<'_>, sockets: &BTreeMap<SocketId, Transition>, at: Timestamp) {
    let Some(scope) = pipeline.wants_pass() else { return };
    pipeline.push(Input::PassBegin { at, scope }).unwrap();
    for transition in sockets.values().filter(|of| of.new == State::CloseWait) {
        let socket = transition.socket;
        let holder = socket.owner.map(|owner| Holder { process: owner.process, fd: 4 });
        let seen = Observation {
            at,
            state: State::CloseWait,
            entered: Some(transition.at),
            holder,
            queue: (0, 0),
            activity: None,
            waiters: None,
            send_window: None,
            details: None,
            socket,
        };
        pipeline.push(Input::Observed(seen)).unwrap();
    }
    pipeline.push(Input::PassEnd { at }).unwrap();
}

/// `{}` is the number, `{-0.5}` half a second ago.
fn filled(what: &str, number: u32, at: f64) -> String {
    let what = what.replace("{}", &number.to_string());
    let mut text = String::new();
    let mut rest = what.as_str();
    while let Some((before, after)) = rest.split_once("{-") {
        let (ago, after) = after.split_once('}').unwrap();
        text.push_str(before);
        text.push_str(&(at - ago.parse::<f64>().unwrap()).max(0.0).to_string());
        rest = after;
    }
    text + rest
}
