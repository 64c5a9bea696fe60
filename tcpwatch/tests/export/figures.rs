//! What an export costs: one format per process, so that its peak memory is its own.
//!
//! `TCPWATCH_FORMAT=parquet cargo test --release --test export -- --ignored figures --nocapture`;
//! the format `none` is what making the records costs, to be taken off;
//! `perfetto-hostile` never says whose a socket is, and none ends.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    time::Instant,
};

use tcpwatch::{
    core::{
        input::Transition,
        record::{Record, Summary},
        socket::SocketId,
        state::State,
        time::{ClockMark, Timestamp},
    },
    export::{
        parquet::{ParquetSink, PartitionedSink},
        perfetto::PerfettoSink,
    },
    sink::Sink,
    sink::{csv::CsvSink, json::JsonSink},
};

use crate::{notation, story, workload::Workload};

struct Nothing;

impl Sink for Nothing {
    fn record(&mut self, _: &ClockMark, _: &Record<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// A change of another socket each time, of which nobody says whose it is and that never ends.
fn hostile(mut transition: Transition, number: u64) -> Transition {
    transition.socket.id = Some(SocketId(number));
    transition.socket.owner = None;
    transition.new = State::CloseWait;
    transition
}

fn size(path: &std::path::Path) -> u64 {
    let meta = fs::metadata(path).unwrap();
    if meta.is_file() {
        return meta.len();
    }
    fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
}

#[test]
#[ignore = "a measurement: TCPWATCH_FORMAT, TCPWATCH_ROWS"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn figures() {
    let format = std::env::var("TCPWATCH_FORMAT").unwrap_or_else(|_| "parquet".to_owned());
    let rows = std::env::var("TCPWATCH_ROWS").map_or(2_000_000, |rows| rows.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let meta = story::meta();
    let file = || BufWriter::with_capacity(1 << 16, File::create(&path).unwrap());
    let mut sink: Box<dyn Sink> = match &format[..] {
        "none" => Box::new(Nothing),
        "csv" => Box::new(CsvSink::new(file())),
        "jsonl" => Box::new(JsonSink::new(file())),
        "parquet" => Box::new(ParquetSink::new(file(), &meta, true).unwrap()),
        "partitioned" => Box::new(PartitionedSink::new(&path, &meta, true).unwrap()),
        "perfetto" | "perfetto-hostile" => Box::new(PerfettoSink::new(file(), &meta).unwrap()),
        other => panic!("no format {other}"),
    };
    let clock = notation::clock(Timestamp(0));
    let begin = Instant::now();
    let mut at = Timestamp(0);
    for (transition, number) in Workload::new().take(rows).zip(1..) {
        let transition =
            if format == "perfetto-hostile" { hostile(transition, number) } else { transition };
        at = transition.at;
        sink.record(&clock, &Record::Transition(&transition)).unwrap();
    }
    sink.record(&clock, &Record::Summary(&Summary { at, ..Summary::default() })).unwrap();
    sink.flush().unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    drop(sink);
    let bytes = if path.exists() { size(&path) } else { 0 };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!(
        "{format}: {rows} rows in {seconds:.2} s, {:.0} rows/s, {:.1} bytes/row, {peak}",
        rows as f64 / seconds,
        bytes as f64 / rows as f64
    );
    if let Ok(keep) = std::env::var("TCPWATCH_KEEP")
        && path.is_file()
    {
        fs::copy(&path, keep).unwrap();
    }
}
