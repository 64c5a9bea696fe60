//! Trace files as they are found: whole, cut off, damaged, of another version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tcpwatch::{
    core::{
        input::Input,
        time::{Nanos, Timestamp},
        tracker::Rules,
    },
    driver::Driver,
    sink::json::JsonSink,
    source::replay::{Notes, Play},
    stop::Stop,
    trace::{
        meta::{Meta, RecordedRules},
        pack::LEVEL,
        recorder::{Options, Recorder},
        recording::{self, Moment, Range},
    },
};

use crate::{notation, properties};

/// A connection that leaks, and healthy ones before, beside and after it.
pub(crate) fn story() -> Vec<Input> {
    let mut lines = vec!["0.1 pass everything".to_owned(), "0.1 end".to_owned()];
    for number in 0..6 {
        let (at, id, port) = (f64::from(number) * 1.5 + 0.2, number + 10, 5000 + number);
        let socket = format!("127.0.0.1:80 10.0.0.9:{port} owner=web[7]/fd inode=5");
        lines.push(format!("{at:.1} tcp #{id} LISTEN>SYN_RECV {socket}"));
        lines.push(format!("{at:.1} tcp #{id} SYN_RECV>ESTABLISHED {socket}"));
        lines.push(format!("{:.1} tcp #{id} ESTABLISHED>CLOSE_WAIT {socket} unread=1", at + 0.3));
        if number != 1 {
            lines.push(format!("{:.1} tcp #{id} CLOSE_WAIT>LAST_ACK {socket} by=web[7]", at + 0.4));
            lines.push(format!("{:.1} tcp #{id} LAST_ACK>CLOSE {socket}", at + 0.5));
        }
        let scope = if number % 2 == 0 { "everything" } else { "lingering" };
        lines.push(format!("{:.1} pass {scope}", at + 1.0));
        if number >= 1 {
            let leaked = "127.0.0.1:80 10.0.0.9:5001 unread=1 holder=web[7]:4 inode=5";
            lines.push(format!("{:.1} see #11 CLOSE_WAIT {leaked}", at + 1.0));
        }
        lines.push(format!("{:.1} end", at + 1.0));
    }
    lines.iter().map(|line| notation::input(line)).collect()
}

fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        level: LEVEL,
        rotate_size: None,
        rotate_every: None,
        keep: None,
    }
}

/// Runs inputs through a pipeline that is recorded; returns what it wrote.
pub(crate) fn record(path: &Path, rules: &Rules, inputs: &[Input], flush_every: usize) -> String {
    let clock = notation::clock(Timestamp(0));
    let meta = Meta {
        recording: "a".to_owned(),
        sequence: 1,
        clock: clock.into(),
        rules: RecordedRules::from(rules),
        ..Meta::default()
    };
    let mut recorder = Recorder::create(&options(path), meta).unwrap();
    let mut out = Vec::new();
    let mut sink = JsonSink::new(&mut out);
    let mut pipeline = Driver::new(rules.clone(), &mut sink);
    pipeline.record_to(&mut recorder);
    pipeline.push(Input::Clock(clock)).unwrap();
    for (number, input) in inputs.iter().enumerate() {
        pipeline.push(input.clone()).unwrap();
        if number % flush_every == 0 {
            pipeline.flush().unwrap();
        }
    }
    pipeline.finish().unwrap();
    assert_eq!(recorder.finish().missing, 0);
    String::from_utf8(out).unwrap()
}

/// What a replay writes, and what it says of the file.
pub(crate) struct Replayed {
    pub(crate) out: String,
    pub(crate) said: Vec<String>,
}

#[derive(Default)]
struct Said(Vec<String>);

impl Notes for Said {
    fn say(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

fn replay(path: &Path, range: Range, stop: &mut Stop) -> anyhow::Result<Replayed> {
    let recordings = recording::recordings(&[path.to_owned()])?;
    let [recording] = &recordings[..] else { panic!("one recording") };
    let (mut out, mut notes) = (Vec::new(), Said::default());
    let play = Play {
        rules: recording.meta.rules.rules(),
        range,
        speed: None,
        follow: false,
        stop,
        partial: false,
        notes: &mut notes,
    };
    play.run(recording, &mut JsonSink::new(&mut out))?;
    Ok(Replayed { out: String::from_utf8(out)?, said: notes.0 })
}

/// The same of the files in a directory.
pub(crate) fn replay_dir(dir: &Path) -> Replayed {
    replay(dir, Range::default(), &mut Stop::when_told()).unwrap()
}

struct Trace {
    dir: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    live: String,
    stop: Stop,
}

impl Trace {
    /// Blocks of a few inputs each.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tcpw");
        let live = record(&path, &properties::rules(false), &story(), 1);
        let bytes = fs::read(&path).unwrap();
        Self { dir, path, bytes, live, stop: Stop::when_told() }
    }

    fn replay(&mut self, bytes: &[u8]) -> anyhow::Result<Replayed> {
        let path = self.dir.path().join("changed.tcpw");
        fs::write(&path, bytes).unwrap();
        replay(&path, Range::default(), &mut self.stop)
    }
}

#[test]
fn a_whole_file_says_nothing() {
    let mut trace = Trace::new();
    let replayed = trace.replay(&trace.bytes.clone()).unwrap();
    assert!(replayed.said.is_empty(), "{:?}", replayed.said);
    assert_eq!(replayed.out, trace.live);
    assert!(trace.live.contains("\"type\":\"finding\""), "the story has findings");
}

#[test]
fn every_prefix_is_read_and_what_is_missing_is_said() {
    let mut trace = Trace::new();
    let whole = trace.bytes.clone();
    let mut lines = 0;
    for len in 0..whole.len() {
        match trace.replay(&whole[..len]) {
            Ok(replayed) => {
                assert!(!replayed.said.is_empty(), "cut at {len}, and nothing is said");
                // Whatever was recorded first is there, as far as the file goes.
                let now =
                    replayed.out.lines().filter(|line| line.contains("\"transition\"")).count();
                assert!(now >= lines, "cut at {len}: {now} transitions, and {lines} before");
                lines = now;
            }
            Err(error) => assert!(len < 16, "cut at {len}: {error:#}"),
        }
    }
    let all = trace.live.lines().filter(|line| line.contains("\"transition\"")).count();
    assert_eq!(lines, all);
}

#[test]
fn every_changed_byte_is_noticed() {
    let mut trace = Trace::new();
    let whole = trace.bytes.clone();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            match trace.replay(&bytes) {
                Ok(replayed) => {
                    let same = replayed.out == trace.live;
                    assert!(
                        !replayed.said.is_empty(),
                        "byte {at}: nothing is said, same output: {same}"
                    );
                }
                Err(error) => assert!(at < 16, "byte {at}: {error:#}"),
            }
        }
    }
}

#[test]
fn what_it_says_of_itself_is_there_twice() {
    let mut trace = Trace::new();
    let mut bytes = trace.bytes.clone();
    bytes[16..120].fill(0);
    let replayed = trace.replay(&bytes).unwrap();
    assert_eq!(
        replayed.out.lines().filter(|line| !line.contains("\"lost\"")).count() + 1,
        trace.live.lines().count(),
        "the same findings, with the same threshold"
    );
    assert!(replayed.said.iter().all(|line| line.contains("damaged")), "{:?}", replayed.said);
}

#[test]
fn a_removed_part_is_counted_exactly() {
    let mut trace = Trace::new();
    let whole = trace.bytes.clone();
    let entries = recording::open(&trace.path).unwrap().entries().unwrap();
    for pair in entries.windows(2) {
        let [from, to] = [0, 1].map(|n: usize| usize::try_from(pair[n].offset).unwrap());
        let bytes = [&whole[..from], &whole[to..]].concat();
        let replayed = trace.replay(&bytes).unwrap();
        let count =
            |text: &str, word| text.lines().filter(|line| line.contains(word)).count() as u64;
        let lost: u64 = replayed
            .out
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|record| record["type"] == "lost")
            .map(|record| record["count"].as_u64().unwrap())
            .sum();
        let word = "\"type\":\"transition\"";
        assert_eq!(
            count(&replayed.out, word) + lost,
            count(&trace.live, word),
            "without {from}..{to}"
        );
    }
}

#[test]
fn what_is_no_trace_is_refused() {
    let mut trace = Trace::new();
    let error = trace.replay(b"").err().expect("refused");
    assert!(format!("{error:#}").contains("empty"), "{error:#}");
    for bytes in [&b"x"[..], b"#!/bin/sh\necho this is no trace at all\n", &[0; 4096]] {
        let error = trace.replay(bytes).err().expect("refused");
        assert!(format!("{error:#}").contains("not a trace file"), "{error:#}");
    }
    // A later major version.
    let mut later = trace.bytes.clone();
    later[8] = 2;
    let crc = crc32fast::hash(&later[..12]);
    later[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = format!("{:#}", trace.replay(&later).err().expect("refused"));
    assert!(error.contains("newer") && error.contains("2.0"), "{error}");
    // A later minor version is read.
    let mut later = trace.bytes.clone();
    later[10] = 7;
    let crc = crc32fast::hash(&later[..12]);
    later[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(trace.replay(&later).unwrap().out, trace.live);
}

#[test]
fn a_part_is_what_the_whole_says_of_that_time() {
    let mut trace = Trace::new();
    let recording = recording::recordings(std::slice::from_ref(&trace.path)).unwrap().remove(0);
    let (start, end) = recording.span().unwrap();
    let wall = notation::clock(Timestamp(0)).real_ns;
    let at = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["mono_ns"].as_u64().unwrap()
    };
    for ms in (0..(end - start) / 1_000_000).step_by(500) {
        let from = Moment::AfterStart(Nanos(ms * 1_000_000));
        let range = recording.range(Some(from), None).unwrap();
        let part = replay(&trace.path, range, &mut trace.stop).unwrap();
        assert!(part.said.is_empty());
        let transitions = |text: &str| {
            let lines = text.lines().filter(|line| line.contains("\"type\":\"transition\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let (whole, part) = (transitions(&trace.live), transitions(&part.out));
        assert!(whole.ends_with(&part), "from {ms} ms");
        let after = whole.iter().filter(|line| at(line) >= start - wall + ms * 1_000_000).count();
        assert_eq!(part.len(), after, "from {ms} ms");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_replay_of_the_file_writes_what_the_run_wrote(
        story in properties::story(),
        flush_every in 1usize..9,
        watch: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tcpw");
        let live = record(&path, &properties::rules(watch), &story, flush_every);
        let replayed = replay(&path, Range::default(), &mut Stop::when_told()).unwrap();
        prop_assert_eq!(replayed.out, live);
        prop_assert!(replayed.said.is_empty());
    }
}
