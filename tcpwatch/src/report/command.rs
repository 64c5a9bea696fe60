//! `tcpwatch report` and `tcpwatch diff`: recordings through the pipeline, into a report.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use rustix::thread::CapabilitySet;

use super::{Collector, Report, diff, html, json, text};
use crate::{
    Outcome,
    cli::{DiffArgs, ReportArgs},
    core::{comm::shown, tracker::Rules},
    exit::Exit,
    kernel::{processes, shed},
    output,
    source::replay::{self, Bar, Notes, Play},
    stop::Stop,
    trace::recording::{self, Range, Recording},
};

/// What a terminal of unknown width can show.
const USUAL_WIDTH: usize = 100;

/// `tcpwatch report`.
pub fn report(args: &ReportArgs) -> Outcome {
    let recordings = replay::recordings(&args.trace.files, CapabilitySet::empty())?;
    if let Some(to) = &args.html {
        return html::command::command(args, to, &recordings);
    }
    let mut stop = Stop::on_signal()?;
    let mut reports = Vec::new();
    {
        let mut bar = Bar::new(&recordings);
        for recording in &recordings {
            let range = recording.range(args.trace.from, args.trace.until)?;
            let rules = replay::rules(&args.trace.rules, recording)?;
            let mut collector = Collector::new(rules.linger);
            reports.push(collect(&mut collector, rules, recording, range, &mut stop, &mut bar)?);
        }
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let style = style(args.top);
    for (number, (recording, report)) in recordings.iter().zip(&reports).enumerate() {
        if args.json {
            json::write(&mut out, report)?;
        } else {
            if number > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{}", title(recording))?;
            writeln!(out)?;
            text::write(&mut out, report, &style)?;
        }
    }
    out.flush()?;
    let leaks = reports.iter().any(|report| report.culprits.iter().any(|c| c.leaks() > 0));
    Ok(if args.fail_on_leak && leaks { Exit::Findings } else { Exit::Ok })
}

/// `tcpwatch diff`.
pub fn diff(args: &DiffArgs) -> Outcome {
    processes::allow_many_files();
    let opened = [&args.before, &args.after]
        .map(|path| (path, recording::open_all(std::slice::from_ref(path))));
    shed::all()?;
    let mut stop = Stop::on_signal()?;
    let mut reports = Vec::new();
    for (path, opened) in opened {
        let recordings = opened?.recordings()?;
        let [recording] = &recordings[..] else {
            bail!("{} holds {} recordings; compare one with one", shown(path), recordings.len());
        };
        let mut bar = Bar::new(&recordings);
        let rules = replay::rules(&args.rules, recording)?;
        let mut collector = Collector::new(rules.linger);
        let all = Range::default();
        let report = collect(&mut collector, rules, recording, all, &mut stop, &mut bar)?;
        reports.push((title(recording), report));
    }
    let [(before_title, before), (after_title, after)] = &reports[..] else {
        bail!("two recordings are needed");
    };
    let changes = diff::compare(before, after);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        json::write(&mut out, &changes)?;
    } else {
        writeln!(out, "A  {before_title}\nB  {after_title}\n")?;
        diff::text::write(&mut out, &changes, &style(args.top))?;
    }
    out.flush()?;
    Ok(if args.fail_on_leak && changes.worse { Exit::Findings } else { Exit::Ok })
}

/// Plays a recording into a collector.
pub(super) fn collect(
    collector: &mut Collector,
    rules: Rules,
    recording: &Recording,
    range: Range,
    stop: &mut Stop,
    bar: &mut Bar,
) -> Result<Report> {
    if let Some(start) = recording.start(range) {
        collector.begin(start);
    }
    let mut notes = Kept { bar, lines: Vec::new() };
    let play =
        Play { rules, range, speed: None, follow: false, stop, partial: false, notes: &mut notes };
    play.run(recording, collector)?;
    let mut report = collector.report();
    notes.lines.iter().for_each(|line| report.note(line));
    Ok(report)
}

/// Keeps what is said of the files, as the report says it, too.
struct Kept<'a> {
    bar: &'a mut Bar,
    lines: Vec<String>,
}

impl Notes for Kept<'_> {
    fn say(&mut self, line: &str) {
        self.bar.say(line);
        self.lines.push(line.to_owned());
    }

    fn read(&mut self, bytes: u64) {
        self.bar.read(bytes);
    }
}

fn title(recording: &Recording) -> String {
    let meta = &recording.meta;
    let file = recording.files.first().map(|file| shown(file.path())).unwrap_or_default();
    let more = match recording.files.len() {
        0 | 1 => String::new(),
        files => format!(" and {} more", files - 1),
    };
    format!("{file}{more}: {}, Linux {}, by tcpwatch {}", meta.host, meta.kernel, meta.tool)
}

fn style(top: usize) -> text::Style {
    let width = output::stdout_width();
    text::Style {
        width: if width == usize::MAX { USUAL_WIDTH } else { width },
        colour: output::colour(io::stdout().is_terminal()),
        top,
        zone: TimeZone::system(),
    }
}
