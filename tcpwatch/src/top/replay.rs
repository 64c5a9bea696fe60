//! `tcpwatch top --replay`: the screen on a recording, which is played, waits, and is skipped through.
//!
//! To go back it is played anew from a place before, as fast as it can (`places.rs`); to go on, as fast
//! as it can from where it is. Both show what playing all of it would have shown.

mod control;
mod places;
mod survey;

use std::{collections::BTreeSet, io};

use anyhow::{Context as _, Result, bail};
use rustix::thread::CapabilitySet;

use self::{
    control::{Control, Player},
    places::Places,
};
use super::{
    app::{Action, App, Subject},
    around::Play as Shown,
    driver::{About, Driver, Shared, Stage},
    frame, live,
    model::Model,
    scope,
};
use crate::{
    Outcome,
    cli::{RulesArgs, TopArgs},
    core::{record::Summary, tracker::Rules},
    exit::Exit,
    output,
    source::replay::{self, Notes, OnStderr, Play},
    stop::Stop,
    trace::recording::{Range, Recording},
};

/// How long nothing is done at the end of a recording before it is asked whether to end.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// Shows it.
pub(super) fn command(args: &TopArgs) -> Outcome {
    let recordings = replay::recordings(&args.recording.replay, CapabilitySet::empty())?;
    let [recording] = &recordings[..] else {
        bail!("top shows one recording, and these are {}", recordings.len());
    };
    let mut rules = replay::rules(&rules_args(args), recording)?;
    rules.findings_only |= args.findings;
    let span = recording.span()?;
    let at = match args.recording.at {
        Some(moment) => recording.range(Some(moment), None)?.from.unwrap_or(span.0),
        None => span.0,
    };
    let about = About {
        host: recording.meta.host.clone(),
        scope: scope::words(&rules.filter),
        unseen: None,
        linger: rules.linger,
        colour: output::colour(true),
    };
    let speed = args.recording.speed.unwrap_or(1.0);
    let mut show = Show {
        control: Control::new(Places::of(recording)?, span, at, speed),
        shared: Shared::new(Model::new(rules.linger)),
        recording,
        rules,
        notes: Once::default(),
    };
    match args.recording.frame {
        Some(size) => show.frame(size, &about, &args.recording.keys),
        None => show.screen(about, args.fail_on_leak),
    }
}

/// What was typed, as the flags of a replay.
fn rules_args(args: &TopArgs) -> RulesArgs {
    RulesArgs {
        linger: args.linger,
        include_half_open: args.include_half_open,
        filter: args.filter.clone(),
    }
}

/// Everything that is needed to show a recording.
struct Show<'a> {
    recording: &'a Recording,
    rules: Rules,
    control: Control,
    shared: Shared,
    notes: Once,
}

impl Show<'_> {
    fn screen(&mut self, about: About, fail_on_leak: bool) -> Outcome {
        let mut stop = Stop::on_signal()?;
        let stage = Box::new(Played(self.control.clone()));
        let app = App::new(Subject::Recording);
        let driver = Driver::open(self.shared.clone(), app, about, stage)?;
        let running = driver.start(stop.flag(), stop.alarm())?;
        let played =
            survey::begin(self.recording.clone(), self.rules.clone(), self.control.clone())
                .and_then(|()| self.play(&mut stop));
        running.end()?;
        let summary = played?;
        live::tell(&self.shared, &summary)?;
        let leaks = fail_on_leak && summary.leaks() > 0;
        Ok(if leaks { Exit::Findings } else { Exit::Ok })
    }

    /// Plays it until it is time to stop; returns what was counted of the part that was played last.
    fn play(&mut self, stop: &mut Stop) -> Result<Summary> {
        let mut summary = Summary::default();
        loop {
            if let Some(to) = self.control.begin() {
                summary = self.play_from(to, stop)?;
                self.control.end();
            } else {
                self.control.wait(LOOK_AGAIN);
            }
            if stop.is_wanted() || output::reader_is_gone() {
                return Ok(summary);
            }
        }
    }

    /// Plays it from before a moment on, until the player has to begin anew.
    fn play_from(&mut self, wall_ns: u64, stop: &mut Stop) -> Result<Summary> {
        let mut player = Player::new(&self.control);
        *self.shared.lock() = Model::new(self.rules.linger);
        let mut sink = self.shared.clone();
        let play = Play {
            rules: self.rules.clone(),
            range: Range::default(),
            speed: None,
            follow: false,
            stop,
            partial: true,
            notes: &mut self.notes,
        };
        play.run_at(self.recording, &self.control.places.before(wall_ns), &mut sink, &mut player)
    }

    /// Writes one frame.
    fn frame(&mut self, size: frame::Size, about: &About, keys: &[String]) -> Outcome {
        self.control.surveyed(survey::of(self.recording, self.rules.clone())?);
        let to = self.control.begin().context("a place to begin")?;
        let mut until = frame::Until(to);
        let mut sink = self.shared.clone();
        let play = Play {
            rules: self.rules.clone(),
            range: Range::default(),
            speed: None,
            follow: false,
            stop: &mut Stop::when_told(),
            partial: true,
            notes: &mut self.notes,
        };
        play.run_at(self.recording, &self.control.places.before(to), &mut sink, &mut until)?;
        let shown = Shown { playing: super::around::Playing::On, ..self.control.play() };
        let shown = Shown { position: to, ..shown };
        let model = &mut self.shared.lock();
        frame::write(&mut io::stdout().lock(), size, model, about, &shown, keys)?;
        Ok(Exit::Ok)
    }
}

/// A recording behind the screen.
struct Played(Control);

impl Stage for Played {
    fn play(&self) -> Option<Shown> {
        Some(self.0.play())
    }

    fn act(&mut self, action: &Action) {
        self.0.act(action);
    }
}

/// What is missing in a file is said once, however often it is read.
#[derive(Default)]
struct Once(BTreeSet<String>);

impl Notes for Once {
    fn say(&mut self, line: &str) {
        const MOST: usize = 1000;
        if self.0.len() < MOST && self.0.insert(line.to_owned()) {
            OnStderr.say(line);
        }
    }
}
