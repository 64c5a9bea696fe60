//! Exports, read by the tools they are for: `check.py`.
//!
//! Run with `TCPWATCH_PYTHON` naming a Python that has duckdb, pyarrow, polars, pandas and perfetto:
//! `TCPWATCH_PYTHON=… cargo test --test export -- --ignored consumers`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tcpwatch::{
    core::{finding::Verdict, input::Input, record::Record, time::ClockMark, tracker::Rules},
    export::{
        parquet::{ParquetSink, PartitionedSink},
        perfetto::PerfettoSink,
    },
    sink::Sink,
};

use crate::{
    notation, series,
    story::{self, LEAK},
    workload::Workload,
};

/// `type`, `old`, `new`, `verdict`.
type Kind = (&'static str, Option<String>, String, Option<&'static str>);

/// Counts what an export must contain.
#[derive(Default)]
struct Expected {
    rows: u64,
    counts: BTreeMap<Kind, u64>,
    days: BTreeSet<String>,
    sockets: BTreeSet<u64>,
    findings: u64,
    losses: u64,
    lost: u64,
}

impl Sink for Expected {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        let (key, at, socket) = match record {
            Record::Transition(t) => {
                let key = ("transition", Some(t.old.to_string()), t.new.to_string(), None);
                (key, t.at, t.socket)
            }
            Record::Finding(f) => {
                self.findings += 1;
                let verdict = f.verdict.map(Verdict::word);
                (("finding", None, f.state.to_string(), verdict), f.at, f.socket)
            }
            Record::Lost(lost) => {
                self.losses += 1;
                self.lost = lost.total;
                return Ok(());
            }
            Record::Culprit(_) | Record::Summary(_) => return Ok(()),
        };
        self.rows += 1;
        *self.counts.entry(key).or_default() += 1;
        self.sockets.extend(socket.id.map(|id| id.0));
        let wall = jiff::Timestamp::from_nanosecond(clock.wall_ns(at).into()).unwrap();
        self.days.insert(wall.strftime("%Y-%m-%d").to_string());
        Ok(())
    }
}

/// The story of a leak, then a busy host until after midnight.
fn inputs() -> (Rules, Vec<Input>) {
    let (rules, mut inputs) = story::parse(LEAK);
    let midnight = notation::time("86400");
    inputs.push(notation::input("86390 clock"));
    let busy = Workload::new().take(200_000).map(|mut transition| {
        let later = midnight.0 - 2_000_000_000;
        transition.at.0 += later;
        transition.entered =
            transition.entered.map(|at| tcpwatch::core::time::Timestamp(at.0 + later));
        transition.socket.born =
            transition.socket.born.map(|at| tcpwatch::core::time::Timestamp(at.0 + later));
        transition.socket.id =
            transition.socket.id.map(|id| tcpwatch::core::socket::SocketId(id.0 + 1_000));
        Input::Transition(transition)
    });
    inputs.extend(busy);
    // Findings that no pass confirms.
    inputs.push(notation::input("86499 clock"));
    inputs.push(notation::input("86500 failed"));
    (rules, inputs)
}

fn export(directory: &Path) -> Expected {
    let meta = story::meta();
    let file = |name: &str| File::create(directory.join(name)).unwrap();
    let sinks: [(Box<dyn Sink>, Box<dyn Sink>); 3] = [
        (
            Box::new(ParquetSink::new(file("single.parquet"), &meta, true).unwrap()),
            Box::new(ParquetSink::new(file("empty.parquet"), &meta, true).unwrap()),
        ),
        (
            Box::new(PartitionedSink::new(&directory.join("partitioned"), &meta, true).unwrap()),
            Box::new(
                PartitionedSink::new(&directory.join("empty-partitioned"), &meta, true).unwrap(),
            ),
        ),
        (
            Box::new(PerfettoSink::new(file("timeline.pftrace"), &meta).unwrap()),
            Box::new(PerfettoSink::new(file("empty.pftrace"), &meta).unwrap()),
        ),
    ];
    for (mut full, mut empty) in sinks {
        let (rules, inputs) = inputs();
        story::run(rules.clone(), inputs, &mut *full);
        story::run(rules, Vec::new(), &mut *empty);
    }
    let mut expected = Expected::default();
    let (rules, inputs) = inputs();
    story::run(rules, inputs, &mut expected);
    expected
}

#[test]
#[ignore = "needs a Python with duckdb, pyarrow, polars, pandas and perfetto: TCPWATCH_PYTHON"]
fn consumers_read_what_was_exported() {
    let python = std::env::var("TCPWATCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let directory = tempfile::tempdir().unwrap();
    let expected = export(directory.path());
    assert!(expected.findings > 3 && expected.days.len() == 2);
    let counts: Vec<_> = expected
        .counts
        .iter()
        .map(|((kind, old, new, verdict), rows)| {
            json!({ "type": kind, "old": old, "new": new, "verdict": verdict, "rows": rows })
        })
        .collect();
    let json = json!({
        "rows": expected.rows,
        "host": story::meta().host,
        "boot_id": story::meta().boot_id,
        "lost": expected.lost,
        "days": expected.days,
        "counts": counts,
        "timeline": {
            "sockets": expected.sockets.len(),
            "findings": expected.findings,
            "lost_events": expected.losses,
        },
    });
    std::fs::write(directory.path().join("expected.json"), json.to_string()).unwrap();
    check(&python, "check.py", directory.path());
}

#[test]
#[ignore = "needs a Python with duckdb, pyarrow, polars, pandas and perfetto: TCPWATCH_PYTHON"]
fn consumers_count_what_the_report_counts() {
    let python = std::env::var("TCPWATCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    for entry in std::fs::read_dir(traces).unwrap() {
        let trace = entry.unwrap().path();
        if trace.extension().is_none_or(|extension| extension != "tcpw") {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let tcpwatch = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
            let output = command.args(args).arg(&trace).current_dir(directory.path()).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
            output.stdout
        };
        std::fs::write(directory.path().join("report.json"), tcpwatch(&["report", "-j"])).unwrap();
        tcpwatch(&["export", "--to", "parquet", "--findings", "-o", "all.parquet"]);
        check(&python, "check_report.py", directory.path());
    }
}

#[test]
#[ignore = "needs a Python with duckdb: TCPWATCH_PYTHON"]
fn consumers_answer_what_the_fleet_page_asks() {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/shop.tcpw");
    let directory = tempfile::tempdir().unwrap();
    answer_the_fleet_page(directory.path(), &[trace]);
}

/// The same of the files of a series, exported one by one: a leak that goes on over all of them is one.
#[test]
#[ignore = "needs a Python with duckdb: TCPWATCH_PYTHON"]
fn consumers_count_each_socket_of_a_series_once() {
    let directory = tempfile::tempdir().unwrap();
    let files = series::record(&directory.path().join("series"));
    assert_eq!(files.len(), 5);
    for late in &files[2..] {
        export_to(directory.path(), "late", late);
    }
    answer_the_fleet_page(directory.path(), &files);
}

fn answer_the_fleet_page(directory: &Path, files: &[PathBuf]) {
    let python = std::env::var("TCPWATCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut report = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    let report = report.args(["report", "-j"]).args(files).output().unwrap();
    assert!(report.status.success(), "{report:?}");
    std::fs::write(directory.join("report.json"), report.stdout).unwrap();
    for file in files {
        export_to(directory, "lake", file);
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fleet.md");
    std::fs::copy(page, directory.join("fleet.md")).unwrap();
    check(&python, "check_fleet.py", directory);
}

fn export_to(directory: &Path, lake: &str, file: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    let flags = ["export", "--to", "parquet", "--findings", "--partition", "-o", lake];
    let output = command.args(flags).arg(file).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn check(python: &str, script: &str, directory: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(script);
    let output = Command::new(python).arg(script).arg(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}
