//! What all of a recording holds, found out while it is played: where findings are open, and where
//! something is missing.

use std::thread;

use anyhow::Result;

use super::control::Control;
use crate::{
    core::tracker::Rules,
    report::{Collector, Report},
    source::replay::{Notes, Play},
    stop::Stop,
    top::around::Survey,
    trace::recording::{Range, Recording},
};

/// Goes through it on another thread. If that fails, nothing is shown of it: the player says why.
pub(super) fn begin(recording: Recording, rules: Rules, control: Control) -> Result<()> {
    thread::Builder::new().name("survey".to_owned()).spawn(move || {
        if let Ok(survey) = of(&recording, rules) {
            control.surveyed(survey);
        }
    })?;
    Ok(())
}

/// What it holds.
pub(super) fn of(recording: &Recording, rules: Rules) -> Result<Survey> {
    let mut collector = Collector::new(rules.linger);
    let range = Range::default();
    if let Some(start) = recording.start(range) {
        collector.begin(start);
    }
    let play = Play {
        rules,
        range,
        speed: None,
        follow: false,
        stop: &mut Stop::when_told(),
        partial: true,
        notes: &mut Silent,
    };
    play.run(recording, &mut collector)?;
    Ok(survey(&collector.report()))
}

fn survey(report: &Report) -> Survey {
    let buckets = &report.timeline.buckets;
    Survey {
        from: buckets.first().map_or(0, |bucket| bucket.ts.0),
        width: report.timeline.width_ns,
        open: buckets.iter().map(|bucket| bucket.open).collect(),
        gaps: buckets.iter().map(|bucket| bucket.gaps > 0).collect(),
    }
}

/// The player says the same.
struct Silent;

impl Notes for Silent {
    fn say(&mut self, _: &str) {}
}
