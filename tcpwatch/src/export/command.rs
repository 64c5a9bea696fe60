//! `tcpwatch export`: a recording through the pipeline, into a file for other tools.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::CapabilitySet;

use super::{
    newfile::{NewFile, is_replaceable},
    parquet::{ParquetSink, PartitionedSink},
    perfetto::PerfettoSink,
};
use crate::{
    Outcome,
    cli::{ExportArgs, Format},
    core::{
        comm::shown,
        finding::{Finding, Status},
        record::Record,
        time::ClockMark,
    },
    exit::Exit,
    sink::Sink,
    sink::{csv::CsvSink, json::JsonSink},
    source::replay::{self, Bar, Play},
    stop::Stop,
    trace::{
        meta::{Meta, RecordedRules},
        recording::Recording,
    },
};

const BUFFER: usize = 1 << 18;

/// `tcpwatch export`.
pub fn command(args: &ExportArgs) -> Outcome {
    if args.partition && args.to != Format::Parquet {
        bail!("--partition needs --to parquet");
    }
    let recordings = replay::recordings(&args.trace.files, CapabilitySet::empty())?;
    let (first, more) = recordings.split_first().context("no recording")?;
    let mut stop = Stop::on_signal()?;
    let mut bar = Bar::new(&recordings);
    if args.partition {
        for recording in &recordings {
            let meta = meta(args, recording)?;
            let mut sink = PartitionedSink::new(&args.output, &meta, args.findings)
                .with_context(|| format!("write to {}", shown(&args.output)))?;
            run(args, recording, &mut sink, &mut stop, &mut bar)?;
        }
        return Ok(Exit::Ok);
    }
    if !more.is_empty() {
        bail!(
            "these are {} recordings, and one file takes one: export each, or use --to parquet --partition",
            recordings.len()
        );
    }
    if first.files.iter().any(|file| file.is(&args.output)) {
        bail!("{} is the recording itself; choose another name", shown(&args.output));
    }
    let name = || format!("write {}", shown(&args.output));
    if args.output == Path::new("-") {
        let out = BufWriter::with_capacity(BUFFER, io::stdout());
        write(args, first, out, &mut stop, &mut bar)?;
    } else if !is_replaceable(&args.output) {
        let file = File::options().write(true).truncate(true).open(&args.output);
        let out = BufWriter::with_capacity(BUFFER, file.with_context(name)?);
        write(args, first, out, &mut stop, &mut bar).with_context(name)?;
    } else {
        let mut file = NewFile::create(&args.output).with_context(name)?;
        let out = BufWriter::with_capacity(BUFFER, &mut file);
        write(args, first, out, &mut stop, &mut bar).with_context(name)?;
        file.commit().with_context(name)?;
    }
    Ok(Exit::Ok)
}

fn write(
    args: &ExportArgs,
    recording: &Recording,
    out: impl Write + Send,
    stop: &mut Stop,
    bar: &mut Bar,
) -> Result<()> {
    let meta = meta(args, recording)?;
    match args.to {
        Format::Jsonl => {
            let mut sink =
                Chosen { sink: JsonSink::new(out), meta: &meta, findings: args.findings };
            run(args, recording, &mut sink, stop, bar)
        }
        Format::Csv => {
            let mut sink = Chosen { sink: CsvSink::new(out), meta: &meta, findings: args.findings };
            run(args, recording, &mut sink, stop, bar)
        }
        Format::Parquet => {
            let mut sink = ParquetSink::new(out, &meta, args.findings)?;
            run(args, recording, &mut sink, stop, bar)
        }
        Format::Perfetto => run(args, recording, &mut PerfettoSink::new(out, &meta)?, stop, bar),
    }
}

/// What the first file says of itself, with the rules that are in force.
fn meta(args: &ExportArgs, recording: &Recording) -> Result<Meta> {
    let rules = replay::rules(&args.trace.rules, recording)?;
    Ok(Meta { rules: RecordedRules::from(&rules), ..recording.meta.clone() })
}

fn run(
    args: &ExportArgs,
    recording: &Recording,
    sink: &mut dyn Sink,
    stop: &mut Stop,
    bar: &mut Bar,
) -> Result<()> {
    let play = Play {
        rules: replay::rules(&args.trace.rules, recording)?,
        range: recording.range(args.trace.from, args.trace.until)?,
        speed: None,
        follow: false,
        stop,
        partial: false,
        notes: bar,
    };
    play.run(recording, sink)?;
    Ok(())
}

/// Leaves out findings that were not asked for. One that an earlier file has, too, is not opened once
/// more.
struct Chosen<'a, S> {
    sink: S,
    meta: &'a Meta,
    findings: bool,
}

impl<S: Sink> Sink for Chosen<'_, S> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Finding(_) | Record::Culprit(_) if !self.findings => Ok(()),
            Record::Finding(finding)
                if finding.status == Status::Open && self.meta.carries_over(finding) =>
            {
                let still = Finding { status: Status::Still, ..(*finding).clone() };
                self.sink.record(clock, &Record::Finding(&still))
            }
            _ => self.sink.record(clock, record),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
