//! A recording as lines, played through a real pipeline into the collector.

use std::{collections::BTreeMap, time::Duration};

use tcpwatch::{
    core::{
        input::{Input, Observation, Transition},
        record::Summary,
        socket::{Holder, SocketId},
        state::State,
        time::{Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    report::{Collector, Report},
    sink::Sink,
};

use crate::notation;

/// A recording.
pub(crate) struct Story {
    rules: Rules,
    inputs: Vec<Input>,
    looks: bool,
    ticks: bool,
    /// What processes say when they are asked: notation without the time.
    facts: Vec<String>,
}

impl Story {
    pub(crate) fn new(rules: &str) -> Self {
        Self {
            rules: notation::rules(rules),
            inputs: Vec::new(),
            looks: false,
            ticks: false,
            facts: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Adds what a line says; other lines are none of ours.
    pub(crate) fn line(&mut self, line: &str) {
        if line == "looks" {
            self.looks = true;
        } else if line == "ticks" {
            self.ticks = true;
        } else if line.starts_with("process ") {
            self.facts.push(line.to_owned());
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

    /// All of it into a sink.
    pub(crate) fn tell(&self, sink: &mut dyn Sink) -> Summary {
        let mut inputs = self.inputs.clone();
        inputs.sort_by_key(Input::at);
        let mut player = Player {
            pipeline: Driver::new(self.rules.clone(), sink),
            sockets: BTreeMap::new(),
            looks: self.looks,
            ticks: self.ticks.then(Timestamp::default),
            facts: &self.facts,
        };
        player.play(&inputs)
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
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
    let mut player = Player {
        pipeline: Driver::new(rules.clone(), collector),
        sockets: BTreeMap::new(),
        looks,
        ticks: None,
        facts: &[],
    };
    player.play(inputs)
}

/// What a live source does.
struct Player<'a> {
    pipeline: Driver<'a>,
    sockets: BTreeMap<SocketId, Transition>,
    looks: bool,
    /// When the clock is marked next, if it is marked every second.
    ticks: Option<Timestamp>,
    facts: &'a [String],
}

impl Player<'_> {
    fn play(&mut self, inputs: &[Input]) -> Summary {
        let start = inputs.first().map_or(Timestamp(0), Input::at);
        self.mark(start);
        self.ticks = self.ticks.map(|_| start + Nanos::SECOND);
        for input in inputs {
            while let Some(tick) = self.ticks.filter(|&tick| tick <= input.at()) {
                self.look_until(tick);
                self.mark(tick);
                self.ticks = Some(tick + Nanos::SECOND);
            }
            self.look_until(input.at());
            if let Input::Transition(transition) = input {
                self.sockets.insert(transition.socket.id.unwrap(), *transition);
            }
            self.pipeline.push(input.clone()).unwrap();
        }
        self.pipeline.finish().unwrap()
    }

    fn mark(&mut self, at: Timestamp) {
        self.pipeline.push(Input::Clock(notation::clock(at))).unwrap();
    }

    /// As a live source does: every deadline has its pass.
    fn look_until(&mut self, until: Timestamp) {
        while self.looks
            && let Some(deadline) = self.pipeline.tracker.next_deadline().filter(|&at| at <= until)
        {
            let at = deadline + Nanos(1_000_000);
            self.mark(at);
            self.look(at);
        }
    }

    fn look(&mut self, at: Timestamp) {
        let Some(scope) = self.pipeline.tracker.wants_pass() else { return };
        self.pipeline.push(Input::PassBegin { at, scope }).unwrap();
        for transition in self.sockets.values().filter(|of| of.new == State::CloseWait) {
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
            self.pipeline.push(Input::Observed(seen)).unwrap();
        }
        for facts in self.facts {
            let seconds = Duration::from_nanos(at.0).as_secs_f64();
            self.pipeline.push(notation::input(&format!("{seconds} {facts}"))).unwrap();
        }
        self.pipeline.push(Input::PassEnd { at }).unwrap();
    }
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
