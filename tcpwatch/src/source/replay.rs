//! The recorded source: drives the core with what a trace file holds.
//!
//! The pipeline is the very same as live, and so are its sinks. What is missing in a file enters the
//! pipeline as a gap, so nothing is concluded from what was not seen.

mod budget;
mod notes;
mod pace;
mod player;
mod window;

use std::{io, path::PathBuf};

use anyhow::{Result, bail};
use rustix::thread::CapabilitySet;

pub use self::{
    notes::{Bar, Notes, OnStderr},
    pace::{Pace, Wait},
};
use crate::{
    Outcome,
    cli::{ReplayArgs, RulesArgs},
    config,
    core::tracker::Rules,
    exit::Exit,
    kernel::{processes, shed},
    output::{self, Destination},
    sink::text,
    stop::Stop,
    trace::recording::{self, Range, Recording},
};

/// How to go through a recording.
pub struct Play<'a> {
    /// What to conclude and show.
    pub rules: Rules,
    /// Which part of it.
    pub range: Range,
    /// So many times as fast as it happened; `None` is as fast as it can.
    pub speed: Option<f64>,
    /// Go on when the file grows.
    pub follow: bool,
    /// When to stop before the end.
    pub stop: &'a mut Stop,
    /// What was read by then counts; if not, to be stopped is an error.
    pub partial: bool,
    /// Who is told about the files.
    pub notes: &'a mut dyn Notes,
}

/// Opens recordings, gives up every privilege but these, and only then reads what is in them.
pub fn recordings(files: &[PathBuf], kept: CapabilitySet) -> Result<Vec<Recording>> {
    processes::allow_many_files();
    let opened = recording::open_all(files)?;
    shed::all_but(kept)?;
    opened.recordings()
}

/// `tcpwatch replay`.
pub fn command(args: &ReplayArgs) -> Outcome {
    let next_file =
        if args.follow { CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() };
    let recordings = recordings(&args.trace.files, next_file)?;
    if args.follow && recordings.len() > 1 {
        bail!("-f follows one recording, and these are {}", recordings.len());
    }
    let mut stop = Stop::on_signal()?;
    let mut sink = output::sink(&args.output, Destination::Stdout)?;
    let mut leaks = 0;
    for recording in &recordings {
        let mut rules = rules(&args.trace.rules, recording)?;
        rules.findings_only |= args.findings;
        let play = Play {
            rules,
            range: recording.range(args.trace.from, args.trace.until)?,
            speed: args.speed,
            follow: args.follow,
            stop: &mut stop,
            partial: true,
            notes: &mut OnStderr,
        };
        let summary = play.run(recording, sink.as_mut())?;
        if args.output.csv {
            let _ = text::write_summary(&mut io::stderr().lock(), &summary);
        }
        leaks += summary.leaks();
    }
    Ok(if args.fail_on_leak && leaks > 0 { Exit::Findings } else { Exit::Ok })
}

/// The rules of the recording run, as the flags change them. What was not recorded cannot be asked
/// for.
pub fn rules(args: &RulesArgs, recording: &Recording) -> Result<Rules> {
    let mut rules = recording.meta.rules.rules();
    if let Some(linger) = args.linger {
        rules.linger = linger.into();
    }
    rules.include_half_open |= args.include_half_open;
    config::narrow(&mut rules.filter, &args.filter)?;
    Ok(rules)
}
