//! Every format shows hostile texts without doing what they say.
//!
//! A forged recording holds them raw wherever a recording has text, and its directory is named so.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use prost::Message as _;
use tcpwatch::{
    core::{
        comm::Comm,
        container::{Container, Names},
        input::Input,
        process::{ProcessFacts, Threads},
    },
    trace::tape::Tape as _,
    trace::{
        meta::{Meta, RecordedRules},
        pack::LEVEL,
        recorder::{Options, Recorder},
    },
};

use crate::{harmless, notation, parquet::texts, story, wire::Trace};

/// How a verb's output is checked.
type Check = fn(&[u8]);

/// What the story has of others.
fn inputs(text: &[u8]) -> Vec<Input> {
    let comm = Comm::from_bytes(&text[..text.len().min(15)]);
    let lossy = String::from_utf8_lossy(text).into_owned();
    let (_, mut inputs) = story::parse(story::LEAK);
    for input in &mut inputs {
        match input {
            Input::Transition(transition) => {
                let owner = transition.socket.owner.as_mut().map(|owner| &mut owner.process);
                owner.into_iter().chain(&mut transition.actor).for_each(|one| one.comm = comm);
            }
            Input::Observed(seen) => {
                let owner = seen.socket.owner.as_mut().map(|owner| &mut owner.process);
                let holder = seen.holder.as_mut().map(|holder| &mut holder.process);
                owner.into_iter().chain(holder).for_each(|one| one.comm = comm);
            }
            _ => {}
        }
    }
    let name =
        Input::Namespace { at: notation::time("0"), inode: 1, name: Some(lossy.clone().into()) };
    inputs.insert(0, name);
    let end = inputs.iter().rposition(|input| matches!(input, Input::PassEnd { .. })).unwrap();
    inputs.insert(
        end,
        Input::Process(Arc::new(ProcessFacts {
            pid: 7,
            at: inputs[end].at(),
            cgroup: Some(lossy.clone()),
            container: Some(Container {
                id: lossy.clone(),
                runtime: None,
                pod_uid: Some(lossy.clone()),
                names: Some(Names {
                    namespace: lossy.clone(),
                    pod: lossy.clone(),
                    container: Some(lossy.clone()),
                }),
            }),
            fds: Some(3),
            fd_limit: Some(1024),
            threads: vec![Threads { count: 1, state: 'S', wait: Some(lossy) }],
            ..ProcessFacts::default()
        })),
    );
    inputs
}

/// A recording below a directory that is named so.
fn recording(parent: &Path, text: &[u8]) -> PathBuf {
    let path = harmless::directory(parent, text).join("a.tcpw");
    let options = Options {
        path: path.clone(),
        level: LEVEL,
        rotate_size: None,
        rotate_every: None,
        keep: None,
    };
    let lossy = String::from_utf8_lossy(text).into_owned();
    let (rules, _) = story::parse(story::LEAK);
    let meta = Meta {
        tool: lossy.clone(),
        recording: lossy.clone(),
        host: lossy.clone(),
        kernel: lossy.clone(),
        machine: lossy.clone(),
        boot_id: lossy,
        rules: RecordedRules::from(&rules),
        ..story::meta()
    };
    let clock = notation::clock(notation::time("0"));
    let mut recorder = Recorder::create(&options, meta).unwrap();
    recorder.keep(&Input::Clock(clock));
    for input in inputs(text) {
        recorder.keep(&input);
    }
    assert_eq!(recorder.finish().missing, 0);
    path
}

fn run(flags: &[&str], files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(flags).args(files).output().unwrap()
}

fn parquet(bytes: &[u8]) {
    let texts = texts(bytes::Bytes::copy_from_slice(bytes));
    assert!(texts.len() > 20, "{texts:?}");
    for text in texts {
        harmless::line(&text);
    }
}

fn perfetto(bytes: &[u8]) {
    let packets = Trace::decode(bytes).unwrap().packet;
    let mut count = 0;
    for packet in packets {
        let track = packet.track_descriptor.into_iter();
        let tracks =
            track.flat_map(|t| t.name.into_iter().chain(t.process.map(|p| p.process_name)));
        let event = packet.track_event.into_iter();
        let notes = event.flat_map(|e| {
            e.name.into_iter().chain(e.debug_annotations.into_iter().filter_map(|n| n.string_value))
        });
        let interned = packet.interned_data.into_iter().flat_map(|data| data.event_names);
        for text in tracks.chain(notes).chain(interned.map(|name| name.name)) {
            harmless::line(&text);
            count += 1;
        }
    }
    assert!(count > 20, "only {count} texts");
}

#[test]
fn hostile_texts_do_no_harm_in_any_format() {
    let formats: [(&[&str], Check); 16] = [
        (&["replay"], harmless::human),
        (&["replay", "-wtT"], harmless::human),
        (&["replay", "-j"], harmless::json),
        (&["replay", "-s"], harmless::csv),
        (&["report"], harmless::human),
        (&["report", "-j"], harmless::json),
        (&["diff"], harmless::human),
        (&["diff", "-j"], harmless::json),
        (&["info"], harmless::human),
        (&["info", "-j"], harmless::json),
        (&["export", "-o", "-", "--findings", "--to", "csv"], harmless::csv),
        (&["export", "-o", "-", "--findings", "--to", "jsonl"], harmless::json),
        (&["export", "-o", "-", "--findings", "--to", "parquet"], parquet),
        (&["export", "-o", "-", "--to", "perfetto"], perfetto),
        (&["replay", "-q"], harmless::human),
        (&["replay", "-q", "-N", "1"], harmless::human),
    ];
    let dir = tempfile::tempdir().unwrap();
    for text in harmless::HOSTILE {
        let file = recording(dir.path(), text);
        for (flags, check) in formats {
            let files = vec![file.as_path(); if flags[0] == "diff" { 2 } else { 1 }];
            let output = run(flags, &files);
            println!("{flags:?} {:?}", String::from_utf8_lossy(text));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            check(&output.stdout);
            harmless::human(&output.stderr);
        }
    }
}

/// Names that are typed come back in messages.
#[test]
fn hostile_arguments_do_no_harm_in_messages() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let verbs: [&[&str]; 14] = [
        &["replay"],
        &["report"],
        &["info"],
        &["diff", "x"],
        &["export", "x", "--to", "csv", "-o"],
        &["record", "-o", "/no/such/place", "--linger"],
        &["--netns"],
        &["--pid"],
        &["--state"],
        &["explain"],
        &["replay", "x", "-N"],
        &["record", "-q", "-d", "1ms", "-o"],
        &["run", "-d"],
        &[],
    ];
    let dir = tempfile::tempdir().unwrap();
    for text in harmless::HOSTILE {
        for flags in verbs {
            let typed = Path::new("no-such-directory").join(OsStr::from_bytes(text));
            let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
                .args(flags)
                .arg(&typed)
                .current_dir(dir.path())
                .output()
                .unwrap();
            println!("{flags:?} {typed:?}");
            assert_eq!(output.status.code(), Some(2));
            assert!(!output.stderr.is_empty());
            harmless::human(&output.stderr);
        }
    }
}
