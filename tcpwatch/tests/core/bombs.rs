//! Forged recordings: small files that ask for much memory or time. Each is made here, read by the
//! program in a process of its own, and must be read or refused in bounded memory.
//!
//! `cargo test --test core bombs -- --nocapture` says what each took.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::sys::resource::{UsageWho, getrusage};
use tcpwatch::{
    core::{
        detail::{self, TcpDetails},
        input::Input,
        process::{ProcessFacts, Threads},
        time::{ClockMark, Timestamp},
    },
    kernel::clock,
    trace::{
        encode::{Encoder, Sealed},
        meta::Meta,
        pack::LEVEL,
        writer::Writer,
    },
};

use crate::notation;

/// Bytes of a payload: nearly the most there may be.
const PAYLOAD: usize = 2_000_000;
/// What the program may have: a gigabyte, and some for what came in since it last looked.
const MOST_MIB: u64 = 1024 + 128;
/// CPU time, in ticks of a hundredth of a second. No bomb takes nearly so much, however busy the machine
/// is; one whose time grows with its square takes far more.
const MOST_TICKS: u64 = 30_000;

/// A block of these inputs.
fn block(inputs: &[Input]) -> Sealed {
    let clock = ClockMark { mono: Timestamp(1), boot: Timestamp(1), real_ns: 1 };
    let mut encoder = Encoder::new(clock);
    for input in inputs {
        encoder.push(input);
    }
    encoder.seal(Vec::new())
}

/// Blocks of inputs that differ from each other always by the same: `input(n)` is the nth. Between
/// them is what `around` begins and ends each block with.
fn repeated(
    blocks: u64,
    around: [&'static str; 2],
    input: impl Fn(u64) -> Input + 'static,
) -> impl Iterator<Item = Sealed> {
    let mut next = 0;
    (0..blocks).map(move |_| {
        let [begin, end] = around.map(notation::input);
        let few = |count: u64| -> Vec<Input> {
            let inputs = (0..count).map(|n| input(next + n));
            std::iter::once(begin.clone()).chain(inputs).collect()
        };
        // The third and the fourth have the same bytes: there are as many of those as have room.
        let [three, four] = [few(3), few(4)].map(|inputs| block(&inputs));
        let unit = four.payload[three.payload.len()..].to_vec();
        let end = {
            let mut inputs = few(3);
            inputs.push(end);
            block(&inputs).payload[three.payload.len()..].to_vec()
        };
        let more = (PAYLOAD - three.payload.len()) / unit.len();
        let mut sealed = three;
        for _ in 0..more {
            sealed.payload.extend_from_slice(&unit);
        }
        sealed.payload.extend_from_slice(&end);
        sealed.header.inputs = u32::try_from(more + 5).unwrap().into();
        next += u64::try_from(more).unwrap() + 3;
        sealed
    })
}

/// Each block is a scan of its own,
const SCAN: [&str; 2] = ["1 pass everything", "1 end"];
/// or none of them begins or ends one.
const NONE: [&str; 2] = ["1 clock", "1 clock"];

fn see(n: u64, state: &str, more: &str) -> Input {
    notation::input(&format!("1 see #{n} {state} 10.0.0.1:80 10.0.0.9:5000 inode=5 {more}"))
}

fn with(mut input: Input, change: impl FnOnce(&mut tcpwatch::core::input::Observation)) -> Input {
    if let Input::Observed(seen) = &mut input {
        change(seen);
    }
    input
}

/// Processes that each have as many threads as a record has room for.
fn facts(count: usize) -> impl Iterator<Item = Sealed> {
    const PID: usize = 1_000_000;
    let threads = vec![Threads { count: 1, state: 'S', wait: None }; PAYLOAD / 16];
    let pid = u32::try_from(PID).unwrap();
    let facts = ProcessFacts { pid, at: Timestamp(1), threads, ..ProcessFacts::default() };
    let one = block(&[Input::Process(Arc::new(facts))]);
    let text = PID.to_string();
    let at = one.payload.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
    let with_pid = move |pid: usize| {
        let mut payload = one.payload.clone();
        payload[at..at + text.len()].copy_from_slice(pid.to_string().as_bytes());
        Sealed { header: one.header, payload }
    };
    (PID..PID + count).map(with_pid)
}

/// Characters that become longer when they are made harmless.
fn name(n: u32) -> Input {
    let name = Some("\u{200b}".repeat(PAYLOAD / 3).into());
    Input::Namespace { at: Timestamp(1), inode: n, name }
}

fn details() -> Arc<TcpDetails> {
    let numbers = detail::NAMES.into_iter().map(|name| (name, Some(7))).collect();
    Arc::new(TcpDetails { numbers, ..TcpDetails::default() })
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap() + 1
}

fn write(path: &Path, blocks: impl Iterator<Item = Sealed>) {
    let meta = Meta { recording: "a".to_owned(), sequence: 1, ..Meta::default() };
    let mut writer = Writer::create(path, &meta, LEVEL).unwrap();
    blocks.for_each(|block| writer.write(&block).unwrap());
    writer.close(0, false).unwrap();
}

/// CPU time of a process, of which this is the `stat`.
fn ticks(stat: &str) -> u64 {
    const USER: usize = 11;
    let stat = fs::read_to_string(stat).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let times = behind_name.split_whitespace().skip(USER).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// Reads a file with this verb; says how much memory that took at most, in MiB, and how it ended.
fn read(verb: &str, path: &Path) -> (u64, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .arg(verb)
        .arg(path)
        .stdout(Stdio::null())
        .stderr(fs::File::create(path.with_extension("said")).unwrap())
        .spawn()
        .unwrap();
    let about = format!("/proc/{}", child.id());
    let (begun, mut peak) = (clock::now(), 0);
    let ended = loop {
        let high = fs::read_to_string(format!("{about}/status")).unwrap_or_default();
        let high = high.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB"));
        peak = high.map_or(peak, |kib| kib.trim().parse::<u64>().unwrap() >> 10).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if ticks(&format!("{about}/stat")) > MOST_TICKS {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{verb} of {} does not end", path.display());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let said = fs::read_to_string(path.with_extension("said")).unwrap();
    let refused = ended.code() == Some(2) && said.contains("MiB of memory");
    assert!(ended.success() || refused, "{verb} of {}: {ended}, {said}", path.display());
    let how = if refused { "refused" } else { "read" };
    (peak, format!("{how} in {}", clock::now().since(begun)))
}

/// Makes it and has it read.
fn check(name: &str, verb: &str, blocks: impl Iterator<Item = Sealed>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{name}.tcpw"));
    write(&path, blocks);
    let kib = fs::metadata(&path).unwrap().len() >> 10;
    let (peak, how) = read(verb, &path);
    println!("{name}, {kib} KiB: {verb}: {peak} MiB, {how}");
    assert!(peak <= MOST_MIB, "{verb} of {name} takes {peak} MiB");
    // What was missed between two looks at the process.
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() >> 10;
    assert!(u64::try_from(most).unwrap() <= MOST_MIB, "{most} MiB");
}

const LINGERS: &str = "unread=1 holder=web[7]:4";

#[test]
fn forged_facts_are_bounded() {
    check("facts", "report", facts(240));
}

#[test]
fn forged_names_are_bounded() {
    check("names", "replay", (0..240).map(|n| block(&[name(n)])));
}

#[test]
fn forged_details_are_bounded() {
    let details = details();
    let seen = move |n| {
        with(see(n, "CLOSE_WAIT", LINGERS), |seen| seen.details = Some(Arc::clone(&details)))
    };
    check("details", "report", repeated(40, SCAN, seen));
}

#[test]
fn forged_holders_are_bounded_and_each_is_looked_up() {
    let holder = |n: u64| {
        with(see(1, "CLOSE_WAIT", LINGERS), |seen| seen.holder.as_mut().unwrap().fd = small(n))
    };
    check("holders", "replay", repeated(10, SCAN, holder));
}

#[test]
fn forged_sockets_that_linger_are_bounded() {
    check("lingering", "report", repeated(16, SCAN, |n| see(n, "CLOSE_WAIT", LINGERS)));
}

#[test]
fn forged_sockets_of_a_scan_are_bounded() {
    let begin = block(&[notation::input("1 pass everything")]);
    let seen = repeated(40, NONE, |n| see(n, "ESTABLISHED", ""));
    check("sockets", "replay", std::iter::once(begin).chain(seen));
}

#[test]
fn forged_namespaces_are_bounded() {
    let lives = |n: u64| with(see(1, "ESTABLISHED", LINGERS), |seen| seen.socket.netns = small(n));
    check("namespaces", "report", repeated(60, SCAN, lives));
}

#[test]
fn forged_listeners_are_bounded() {
    let listens = |n: u64| {
        notation::input(&format!("1 tcp #{n} CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0 by=web[7]"))
    };
    check("listeners", "replay", repeated(40, NONE, listens));
}
