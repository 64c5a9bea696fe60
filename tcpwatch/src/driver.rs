//! The driver: it records an input, has the tracker conclude, and hands the events to the sinks.

use std::io;

use crate::{
    core::{
        input::Input,
        record::{Event, Record, Summary},
        time::Timestamp,
        tracker::{Rules, Tracker},
    },
    sink::Sink,
    trace::tape::Tape,
};

/// A tracker between what records its inputs and what shows its events.
pub struct Driver<'a> {
    /// What is concluded.
    pub tracker: Tracker,
    tape: Option<&'a mut dyn Tape>,
    sink: &'a mut dyn Sink,
    events: Vec<Event>,
}

impl<'a> Driver<'a> {
    /// A driver that writes to `sink`.
    pub fn new(rules: Rules, sink: &'a mut dyn Sink) -> Self {
        Self { tracker: Tracker::new(rules), tape: None, sink, events: Vec::new() }
    }

    /// Has every input recorded from now on.
    pub fn record_to(&mut self, tape: &'a mut dyn Tape) {
        self.tape = Some(tape);
    }

    /// What records the inputs.
    pub fn tape(&mut self) -> Option<&mut (dyn Tape + 'a)> {
        self.tape.as_deref_mut()
    }

    /// Takes one input. An error is the sink's.
    pub fn push(&mut self, input: Input) -> io::Result<()> {
        if let Some(tape) = &mut self.tape {
            tape.keep(&input);
        }
        self.tracker.push(input, &mut self.events);
        self.show()
    }

    /// Counts from here on: [`Tracker::begin_here`].
    pub fn begin_here(&mut self, at: Timestamp) -> io::Result<()> {
        self.tracker.begin_here(at, &mut self.events);
        self.show()
    }

    /// Shows what was due by `until` as not confirmed: [`Tracker::give_up`].
    pub fn give_up(&mut self, until: Timestamp) -> io::Result<()> {
        self.tracker.give_up(until, &mut self.events);
        self.show()
    }

    /// Ends the run: the summary is the last record.
    pub fn finish(&mut self) -> io::Result<Summary> {
        let summary = self.tracker.finish(&mut self.events);
        self.show()?;
        self.sink.flush()?;
        Ok(summary)
    }

    /// Writes out what is at hand.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tape) = &mut self.tape {
            tape.flush(self.tracker.now());
        }
        self.sink.flush()
    }

    fn show(&mut self) -> io::Result<()> {
        let clock = self.tracker.clock();
        for event in self.events.drain(..) {
            let record = match &event {
                Event::Census(census) => {
                    self.sink.census(clock, census)?;
                    continue;
                }
                Event::Transition(transition) => Record::Transition(transition),
                Event::Finding(finding) => Record::Finding(finding),
                Event::Culprit(culprit) => Record::Culprit(culprit),
                Event::Lost(lost) => Record::Lost(*lost),
                Event::Summary(summary) => Record::Summary(summary),
            };
            self.sink.record(clock, &record)?;
        }
        Ok(())
    }
}
