//! Output that nobody takes, and the run that goes on.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, PipeReader},
    os::fd::OwnedFd,
    thread,
};

use serde_json::Value;
use tcpwatch::{
    core::{
        input::Input,
        record::{Record, Summary},
        time::ClockMark,
    },
    output::{Inlet, Outlet},
    sink::Sink,
    sink::{
        csv::CsvSink,
        json::JsonSink,
        text::{Style, TextSink},
    },
};

use crate::notation;

fn piped() -> (PipeReader, Outlet) {
    piped_as(|out| Box::new(JsonSink::new(out)))
}

type Make = fn(BufWriter<Inlet>) -> Box<dyn Sink>;

fn piped_as(make: Make) -> (PipeReader, Outlet) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, Outlet::new(File::from(OwnedFd::from(writer)), make))
}

fn show(outlet: &mut Outlet, transitions: u64) -> io::Result<()> {
    let line = "1 tcp #2 SYN_RECV>ESTABLISHED 127.0.0.1:80 10.0.0.9:5000 inode=9";
    let Input::Transition(transition) = notation::input(line) else { panic!("a transition") };
    for _ in 0..transitions {
        outlet.record(&ClockMark::default(), &Record::Transition(&transition))?;
    }
    outlet.flush()
}

/// Many times what a pipe holds is kept, more than that is counted, and nothing waits.
#[test]
fn what_nobody_takes_is_counted() {
    const SHOWN: u64 = 100_000;
    let (reader, mut outlet) = piped();
    show(&mut outlet, SHOWN).unwrap();
    let summary = Summary { transitions: SHOWN, ..Summary::default() };
    outlet.record(&ClockMark::default(), &Record::Summary(&summary)).unwrap();
    outlet.flush().unwrap();
    let lines = thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect());
    let unshown = outlet.finish().unwrap();
    let lines: Vec<String> = lines.join().unwrap();
    let [transitions @ .., lost, summary] = &lines[..] else { panic!("{} lines", lines.len()) };
    assert!(unshown > 0, "there was room for all");
    assert!(transitions.iter().all(|line| line.contains("\"transition\"")));
    assert_eq!(transitions.len() as u64 + unshown, SHOWN);
    let [lost, summary]: [Value; 2] =
        [lost, summary].map(|line| serde_json::from_str(line).unwrap());
    assert_eq!((&lost["type"], &lost["where"]), (&"lost".into(), &"output".into()));
    assert_eq!((&lost["count"], &lost["total"]), (&unshown.into(), &unshown.into()));
    assert_eq!((&summary["unshown"], &summary["lost"]), (&unshown.into(), &0.into()));
}

#[test]
fn what_is_taken_is_complete() {
    let (reader, mut outlet) = piped();
    let lines = thread::spawn(move || BufReader::new(reader).lines().count());
    for _ in 0..100 {
        show(&mut outlet, 100).unwrap();
    }
    assert_eq!(outlet.finish().unwrap(), 0);
    assert_eq!(lines.join().unwrap(), 10_000);
}

#[test]
fn a_closed_pipe_is_an_error() {
    const STYLE: Style =
        Style { colour: false, width: None, time: true, elapsed: false, wide: true };
    let makes: [Make; 3] = [
        |out| Box::new(JsonSink::new(out)),
        |out| Box::new(CsvSink::new(out)),
        |out| Box::new(TextSink::new(out, STYLE)),
    ];
    for make in makes {
        let (reader, mut outlet) = piped_as(make);
        drop(reader);
        let error = loop {
            if let Err(error) = show(&mut outlet, 1000) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(outlet.finish().unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
