//! What fuzzing has found worth keeping, through the very functions that the fuzz targets run.
//!
//! `fuzz/corpus` is made by `cargo xtask fuzz-corpus`; it begins with what [`seeds`] writes.

#[path = "../../../fuzz/harness/everything.rs"]
mod everything;
#[path = "../../../fuzz/harness/kernel_records.rs"]
mod kernel_records;
#[path = "../../../fuzz/harness/pipeline.rs"]
mod pipeline;
#[path = "../../../fuzz/harness/trace_block.rs"]
mod trace_block;
#[path = "../../../fuzz/harness/trace_file.rs"]
mod trace_file;
#[path = "../../../fuzz/harness/world.rs"]
mod world;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use proptest::{
    arbitrary::any,
    collection::vec,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use tcpwatch::trace::{
    encode::Sealed,
    meta::Meta,
    pack::LEVEL,
    reader::{Next, Reader},
    writer::Writer,
};

use tcpwatch_common::{RawObserved, RawSocket, RawTransition, flag, how, look};
use zerocopy::{FromZeros as _, IntoBytes as _};

use self::trace_file::TraceFile;
use crate::{damage, notation, properties, trace};

/// The corpus of a target, in a certain order.
fn corpus(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    files(&dir)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_file_of_the_corpus_is_read() {
    let corpus = corpus("trace_file");
    let mut file = TraceFile::new();
    for path in &corpus {
        println!("{}", path.display());
        file.run(&fs::read(path).unwrap());
    }
    assert!(corpus.len() >= 10, "only {} files were found", corpus.len());
}

#[test]
fn every_payload_of_the_corpus_is_read() {
    each("trace_block", trace_block::run);
}

#[test]
fn every_kernel_record_of_the_corpus_is_decoded() {
    each("kernel_records", kernel_records::run);
}

#[test]
fn every_order_of_inputs_of_the_corpus_is_concluded_from() {
    each("pipeline", pipeline::run);
}

fn each(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    for path in &corpus {
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
    }
    assert!(corpus.len() >= 10, "only {} files were found", corpus.len());
}

/// Writes what fuzzing begins with: the stories of these tests and some inputs of every kind, as
/// files and as payloads. Recordings that are there already are made nobody's and taken apart, too.
#[test]
#[ignore = "cargo xtask fuzz-corpus runs it, and says where to write"]
fn seeds() {
    let dir = PathBuf::from(env::var_os("TCPWATCH_SEEDS").expect("TCPWATCH_SEEDS is a directory"));
    let (whole, payloads) = (dir.join("trace_file"), dir.join("trace_block"));
    for path in files(&whole) {
        let bytes = anonymous(&path);
        fs::write(path, bytes).unwrap();
    }
    let mut runner = TestRunner::deterministic();
    raw_seeds(&dir, &mut runner);
    let rules = properties::rules(false);
    damage::record(&whole.join("story.tcpw"), &rules, &damage::story(), 5);
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")) {
        let text = fs::read_to_string(&path).unwrap();
        let rules = text.lines().find(|line| line.starts_with("rules")).unwrap_or("rules");
        let is_input = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
        let inputs: Vec<_> = text.lines().filter(is_input).map(notation::input).collect();
        let name = path.with_extension("tcpw");
        let name = whole.join(name.file_name().unwrap());
        damage::record(&name, &notation::rules(rules), &inputs, 4);
    }
    for number in 0..8 {
        let inputs = vec(trace::input(), 6).new_tree(&mut runner).unwrap().current();
        damage::record(&whole.join(format!("any-{number}.tcpw")), &rules, &inputs, 3);
    }
    for path in files(&whole) {
        for (number, block) in blocks(&path).1.iter().enumerate() {
            let name = path.file_stem().unwrap().to_string_lossy();
            fs::write(payloads.join(format!("{name}-{number}")), &block.payload).unwrap();
        }
    }
}

/// Records as the kernel program writes them, and orders of inputs as any bytes choose them.
fn raw_seeds(dir: &Path, runner: &mut TestRunner) {
    for number in 0..8 {
        let name = format!("any-{number}");
        let events =
            vec((0..4u8, 1..13u8, 1..13u8, 1..4u64), 12).new_tree(runner).unwrap().current();
        let records: Vec<u8> = events.into_iter().flat_map(raw_record).collect();
        fs::write(dir.join("kernel_records").join(&name), records).unwrap();
        let choices = vec(any::<u8>(), 600).new_tree(runner).unwrap().current();
        fs::write(dir.join("pipeline").join(&name), choices).unwrap();
    }
}

/// Behind a byte that says what it is: a transition, a look, or the end of a pass.
fn raw_record((kind, old, new, id): (u8, u8, u8, u64)) -> Vec<u8> {
    let at_ns = 1_000_000_000 * u64::from(old);
    let mut socket = RawSocket::new_zeroed();
    (socket.id, socket.inode, socket.family, socket.protocol) = (id, 100 + id, 2, 6);
    (socket.owner_pid, socket.owner_how, socket.unread) = (7, how::CONNECT, 1);
    (socket.local_port, socket.remote_port) = (80, 5000);
    socket.flags = flag::HAS_SOCKET | flag::TCP_INFO;
    let mut record = vec![kind];
    match kind {
        0 | 1 => {
            let raw = RawTransition { at_ns, socket, old, new, ..RawTransition::new_zeroed() };
            record.extend_from_slice(raw.as_bytes());
        }
        2 => {
            let bits = look::HAS_AGES | look::HAS_WAITERS;
            let (state, holder_pid) = (8, 7);
            let zero = RawObserved::new_zeroed();
            let raw = RawObserved { at_ns, socket, state, holder_pid, bits, ..zero };
            record.extend_from_slice(raw.as_bytes());
        }
        _ => record = vec![6, 7],
    }
    record
}

/// The same file, without what it says of the host where it was recorded.
fn anonymous(path: &Path) -> Vec<u8> {
    let (meta, blocks) = blocks(path);
    let meta = Meta {
        tool: "0.1.0".to_owned(),
        recording: "a".to_owned(),
        host: "box".to_owned(),
        kernel: "6.12.0".to_owned(),
        boot_id: "b".to_owned(),
        ..meta
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tcpw");
    let mut writer = Writer::create(&path, &meta, LEVEL).unwrap();
    let mut before = 0;
    for block in &blocks {
        writer.write(block).unwrap();
        before += u64::from(block.header.transitions.get());
    }
    writer.close(before, false).unwrap();
    fs::read(path).unwrap()
}

/// What a file says of itself, and its blocks of inputs.
fn blocks(path: &Path) -> (Meta, Vec<Sealed>) {
    let mut reader = Reader::open(path).unwrap();
    let meta = reader.meta().cloned().unwrap_or_default();
    let mut blocks = Vec::new();
    loop {
        match reader.next_block().unwrap() {
            Next::Inputs(header) => {
                blocks.push(Sealed { header, payload: reader.payload().to_vec() });
            }
            Next::Damage(_) => {}
            Next::End { .. } | Next::Pending { .. } => return (meta, blocks),
        }
    }
}
