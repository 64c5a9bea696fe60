//! `tcpwatch [flags]`: shows what happens while it happens.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    attached::Attached,
    live::{self, Live},
};
use crate::{
    Outcome,
    cli::LiveArgs,
    config,
    core::comm::shown,
    exit,
    notify::Notifiers,
    output::{self, Destination},
    sink::{fan::Fan, text},
    stop::Held,
    trace::tape::Tape,
};

/// `tcpwatch [flags]`.
pub fn command(args: &LiveArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    let live = Live {
        plan: config::plan(args, &filter)?,
        rules: config::rules(args, &filter),
        duration: args.duration,
        ends_with_reader: true,
    };
    // Before the kernel program, so that an early ^C still ends in a summary.
    let signals = Held::new()?;
    let mut notifiers = Notifiers::start(&args.notify)?;
    let attached = Attached::new(&live.plan)?;
    let mut stop = signals.stop();
    let mut outlet = output::outlet(&args.output, Destination::Stdout)?;
    let mut recorder = super::record::beside(args.record.as_deref(), &live, &attached)?;
    let writes = recorder.as_ref().map(|_| stop.writes_file());
    let _shows = Destination::Stdout.is_file().then(|| stop.writes_file());
    let tape = recorder.as_mut().map(|recorder| recorder as &mut dyn Tape);
    let mut sink = Fan::new(&mut outlet, vec![&mut notifiers]);
    let ready = || ready(args.ready_file.as_deref());
    let watched = live::run(&live, attached, &mut stop, &mut sink, tape, ready);
    super::record::finish_beside(recorder);
    drop(writes);
    let written = outlet.finish();
    drop(stop);
    notifiers.finish();
    let mut summary = watched?;
    summary.unshown = written?;
    if args.output.csv {
        let _ = text::write_summary(&mut io::stderr().lock(), &summary);
    }
    exit::judge(args.fail_on_leak, summary.leaks(), &summary)
}

/// Says that everything is attached.
pub(crate) fn ready(file: Option<&Path>) -> Result<()> {
    let Some(path) = file else { return Ok(()) };
    let written = output::create(path)?.write_all(b"ready\n");
    written.with_context(|| format!("write {}", shown(path)))
}
