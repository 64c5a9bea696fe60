//! A recording of several files: leaks go on from one into the next, and end in the last.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tcpwatch::{
    core::{
        input::{Input, Scope},
        time::{Nanos, Timestamp},
    },
    driver::Driver,
    kernel::clock,
    sink::json::JsonSink,
    trace::tape::Due,
    trace::{
        meta::{Meta, RecordedRules},
        pack::LEVEL,
        recorder::{Options, Recorder},
    },
};

use crate::{notation, story};

/// Seconds between two files.
const EVERY: u64 = 20;
const FILES: u64 = 5;
/// Connections that linger from the first file into the last, and how many come in each file.
const LEAKS: u64 = 4;

/// Text of what happened: connections of `api` that it does not close until the end, and some that it
/// closes after a second.
fn text() -> String {
    let mut text = "rules linger=5s\n".to_owned();
    let mut lines: Vec<(u64, String)> = Vec::new();
    let socket = |id: u64| {
        format!("10.0.0.1:{} 10.0.0.9:5432 owner=api[7]/connect role=client inode={id}", 4000 + id)
    };
    let mut line = |ms: u64, what: String| lines.push((ms, what));
    let end = FILES * EVERY * 1000;
    for id in 1..=LEAKS {
        let at = id * 1000;
        line(at, format!("tcp #{id} CLOSE>SYN_SENT {} by=api[7] born={id}", socket(id)));
        line(at, format!("tcp #{id} SYN_SENT>ESTABLISHED {} born={id} entered={id}", socket(id)));
        line(at, format!("tcp #{id} ESTABLISHED>CLOSE_WAIT {} unread=1 entered={id}", socket(id)));
        let closes = format!("{} by=api[7] entered={id}", socket(id));
        line(end - 4000 + id, format!("tcp #{id} CLOSE_WAIT>LAST_ACK {closes}"));
        line(end - 3000, format!("tcp #{id} LAST_ACK>CLOSE {}", socket(id)));
    }
    for file in 0..FILES {
        let (at, id) = (file * EVERY * 1000, 100 + file);
        for ms in [at, at + 10_000] {
            if ms + 4000 >= end {
                continue;
            }
            let scope = if ms == at { "everything" } else { "lingering" };
            line(ms, format!("pass {scope}"));
            for id in (1..=LEAKS).filter(|id| id * 1000 < ms) {
                line(
                    ms,
                    format!(
                        "see #{id} CLOSE_WAIT {} holder=api[7]:{id} unread=1 entered={id}",
                        socket(id)
                    ),
                );
            }
            line(ms, "end".to_owned());
        }
        let at = at + 12_000;
        line(at, format!("tcp #{id} CLOSE>SYN_SENT {} by=api[7]", socket(id)));
        line(at, format!("tcp #{id} SYN_SENT>ESTABLISHED {}", socket(id)));
        let entered = at / 1000;
        line(at, format!("tcp #{id} ESTABLISHED>CLOSE_WAIT {}", socket(id)));
        let closes = format!("{} by=api[7] entered={entered}", socket(id));
        line(at + 1000, format!("tcp #{id} CLOSE_WAIT>LAST_ACK {closes}"));
        line(at + 1001, format!("tcp #{id} LAST_ACK>CLOSE {}", socket(id)));
    }
    // Those of one moment stay in their order.
    lines.sort_by_key(|(ms, _)| *ms);
    for (ms, line) in lines {
        writeln!(text, "{}.{:03} {line}", ms / 1000, ms % 1000).unwrap();
    }
    text
}

/// Records it into files in this directory; returns them in order.
pub(crate) fn record(directory: &Path) -> Vec<PathBuf> {
    fs::create_dir(directory).unwrap();
    let (rules, inputs) = story::parse(&text());
    let options = Options {
        path: directory.join("a.tcpw"),
        level: LEVEL,
        rotate_size: None,
        rotate_every: Some(Duration::from_secs(EVERY)),
        keep: None,
    };
    let meta = Meta {
        host: "web-1".to_owned(),
        clock: notation::clock(Timestamp(0)).into(),
        rules: RecordedRules::from(&rules),
        ..story::meta()
    };
    let mut recorder = Recorder::create(&options, meta).unwrap();
    let mut sink = JsonSink::new(Vec::new());
    let mut pipeline = Driver::new(rules, &mut sink);
    pipeline.record_to(&mut recorder);
    pipeline.push(Input::Clock(notation::clock(Timestamp(0)))).unwrap();
    for input in inputs {
        let at = input.at();
        let tape = pipeline.tape().unwrap();
        let everything = matches!(input, Input::PassBegin { scope: Scope::Everything, .. });
        if everything && at > Timestamp(0) {
            // As soon as the thread that writes has begun the one before.
            let until = clock::now() + Nanos(120_000_000_000);
            while tape.due(at) != Due::File {
                assert!(clock::now() < until, "no file is due");
                thread::yield_now();
            }
            tape.begin_file(&notation::clock(at));
            pipeline.push(Input::Clock(notation::clock(at))).unwrap();
        }
        pipeline.push(input).unwrap();
        pipeline.flush().unwrap();
    }
    pipeline.finish().unwrap();
    assert_eq!(recorder.finish().missing, 0);
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
