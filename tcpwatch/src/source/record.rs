//! `tcpwatch record`: a black box. The run is as live; what it shows is only how it goes.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    attached::Attached,
    live::{self, Live},
    watch::ready,
};
use crate::{
    Outcome,
    cli::RecordArgs,
    config,
    core::{
        advice::count,
        comm::shown,
        finding::{Finding, Status},
        record::Record,
        time::ClockMark,
        tracker::Rules,
    },
    exit::{Exit, say},
    kernel::load::Plan,
    notify::Notifiers,
    sink::Sink,
    sink::fan::Fan,
    stop::Held,
    trace::{
        meta::{Meta, RecordedRules},
        pack,
        recorder::{Options, Progress, Recorder, Standing},
    },
};

/// How often the line on a terminal changes.
const TICK: Duration = Duration::from_millis(500);

/// `tcpwatch record`.
pub fn command(args: &RecordArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    let rotates = args.rotate_size.is_some() || args.rotate_every.is_some();
    if args.keep.is_some() && !rotates {
        bail!("--keep needs --rotate-size or --rotate-every: one file is kept anyway");
    }
    let live = Live {
        plan: Plan {
            filter: filter.clone(),
            findings_only: args.findings,
            ring_bytes: args.ring_size,
            exact_accept: true,
            details: args.details,
            follow_from: None,
            tally: false,
        },
        rules: Rules {
            linger: args.linger.into(),
            filter,
            findings_only: args.findings,
            include_half_open: args.include_half_open,
            tell_culprits: true,
        },
        duration: args.duration,
        ends_with_reader: false,
    };
    let signals = Held::new()?;
    let mut notifiers = Notifiers::start(&args.notify)?;
    let attached = Attached::new(&live.plan)?;
    let mut stop = signals.stop();
    let _writes = stop.writes_file();
    let options = Options {
        path: args.output.clone(),
        level: args.level,
        rotate_size: args.rotate_size,
        rotate_every: args.rotate_every,
        keep: args.keep.and_then(|keep| usize::try_from(keep).ok()),
    };
    let mut recorder = Recorder::create(&options, meta(&live.rules, attached.began))?;
    let mut status = Line::new(&args.output, recorder.standing());
    let mut sink = Fan::new(&mut status, vec![&mut notifiers]);
    let ready = || ready(args.ready_file.as_deref());
    let ran = live::run(&live, attached, &mut stop, &mut sink, Some(&mut recorder), ready);
    let progress = recorder.finish();
    status.bar.finish_and_clear();
    drop(stop);
    notifiers.finish();
    let summary = ran?;
    say(&format!(
        "tcpwatch: recorded {} and {} in {}: {} in {}; {} lost",
        count(status.transitions, "transition"),
        count(status.findings, "finding"),
        summary.duration,
        bytes(progress.bytes),
        shown(&args.output),
        summary.lost
    ));
    tell_missing(&progress);
    Ok(if progress.failing { Exit::Error } else { Exit::Ok })
}

/// A recording beside a run that shows something else.
pub(crate) fn beside(
    path: Option<&Path>,
    live: &Live,
    attached: &Attached,
) -> Result<Option<Recorder>> {
    let Some(path) = path else { return Ok(None) };
    let options = Options {
        path: path.to_owned(),
        level: pack::LEVEL,
        rotate_size: None,
        rotate_every: None,
        keep: None,
    };
    Recorder::create(&options, meta(&live.rules, attached.began)).map(Some)
}

/// Ends it.
pub(crate) fn finish_beside(recorder: Option<Recorder>) {
    if let Some(recorder) = recorder {
        tell_missing(&recorder.finish());
    }
}

fn tell_missing(progress: &Progress) {
    if progress.missing > 0 {
        let missing = count(progress.missing, "transition");
        say(&format!("tcpwatch: {missing} could not be recorded"));
    }
}

/// What a recording says of the run.
pub(crate) fn meta(rules: &Rules, began: ClockMark) -> Meta {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    Meta {
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        recording: read("/proc/sys/kernel/random/uuid"),
        sequence: 1,
        host: text(uname.nodename()),
        kernel: text(uname.release()),
        machine: text(uname.machine()),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        clock: began.into(),
        scanned_ns: None,
        rules: RecordedRules::from(rules),
    }
}

/// A size as people read it.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A line on a terminal that says how the recording goes.
struct Line {
    bar: ProgressBar,
    standing: Standing,
    transitions: u64,
    findings: u64,
    lost: u64,
    name: String,
}

impl Line {
    fn new(path: &Path, standing: Standing) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        let name = shown(path);
        Self { bar, standing, transitions: 0, findings: 0, lost: 0, name }
    }
}

impl Sink for Line {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Transition(_) => self.transitions += 1,
            Record::Finding(Finding { status: Status::Open, .. }) => self.findings += 1,
            Record::Lost(lost) => self.lost = lost.total,
            _ => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.bar.is_hidden() {
            let progress = self.standing.progress();
            let failing = if progress.failing { "; CANNOT WRITE" } else { "" };
            self.bar.set_message(format!(
                "{}: {}, {}, {}, {} lost{failing}",
                self.name,
                count(self.transitions, "transition"),
                bytes(progress.bytes),
                count(self.findings, "finding"),
                self.lost
            ));
        }
        Ok(())
    }
}
