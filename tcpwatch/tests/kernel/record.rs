//! Recordings of real connections: complete, bounded, and readable whatever happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tcpwatch::{core::time::Nanos, kernel::clock};

use crate::{
    Test,
    peers::{Kind, churn, eventually, listen, pair, quiet, under_load},
    privileges::Place,
    watch::{Watch, namespace},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_replay_writes_what_the_live_run_wrote", same),
        Test::new("a_replay_finds_with_another_threshold", other_threshold),
        Test::new("a_recording_rotates_and_keeps_so_many", rotates),
        Test::new("a_leak_over_several_files_is_one_finding", leak_over_files),
        Test::new("a_recorder_that_is_killed_leaves_what_it_wrote", killed),
        Test::new("a_full_disk_loses_nothing_that_was_written", full_disk),
        Test::new("a_full_disk_costs_no_history", full_disk_at_rotation),
        Test::new("a_growing_file_is_followed", followed),
        Test::new("run_records_what_it_shows", run_records),
        Test::new("what_cannot_be_recorded_is_refused", refused),
        Test::new("a_replay_needs_no_privilege", unprivileged),
    ]
}

fn tcpwatch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(args).output().unwrap()
}

/// Runs a verb that must succeed and say nothing but this on standard error.
fn quietly(args: &[&str]) -> String {
    let output = tcpwatch(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(lines: &[Value], kind: &str) -> usize {
    lines.iter().filter(|line| line["type"] == kind).count()
}

/// How many lines are transitions, of a text that may be too long to be kept as values.
fn transitions(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("{\"type\":\"transition\"")).count()
}

fn info(path: &Path) -> Value {
    serde_json::from_str(&quietly(&["info", "-j", path.to_str().unwrap()])).unwrap()
}

/// A place for files, and the name of one in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tcpw");
    (dir, path)
}

/// Starts to record the sockets of this namespace.
fn recorder(path: &Path, flags: &[&str]) -> Watch {
    let namespace = namespace();
    let path = path.to_str().unwrap();
    Watch::start_raw(&[&["record", "-o", path, "-N", &namespace], flags].concat())
}

/// The same, and does not wait until it has begun.
fn start(path: &Path) -> Watch {
    let namespace = namespace();
    let path = path.to_str().unwrap();
    let flags = ["record", "-o", path, "-N", &namespace, "--ready-file", "/dev/stderr"];
    Watch::start_unattached(&flags)
}

/// How many transitions it says that it has recorded.
fn recorded(stderr: &str) -> usize {
    let after = stderr.split("recorded ").nth(1).unwrap_or_else(|| panic!("{stderr}"));
    after.split(' ').next().unwrap().parse().unwrap()
}

/// A leak that is found, grows old, and is closed; a connection that nobody accepts; a dead fd.
fn leak(watch_open: impl FnOnce()) {
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    let (reset, dead) = pair(Kind::V4, &listener);
    let waiting = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop((client, waiting));
    crate::peers::reset(reset);
    churn(&listener, 20);
    watch_open();
    drop((server, dead, listener));
}

fn same() {
    let (dir, _) = place();
    for format in ["-j", "-s", "-w", "-qj"] {
        let path = dir.path().join(format!("trace{format}.tcpw"));
        let name = path.to_str().unwrap();
        let out = dir.path().join("live");
        let namespace = namespace();
        let flags = [format, "-N", &namespace, "--linger", "300ms", "--record", name];
        let watch = Watch::spawn(&flags, fs::File::create(&out).unwrap().into());
        leak(|| {
            let live = || fs::read_to_string(&out).unwrap();
            let verdicts = ["not-reading", "never-accepted", "dead-fd"];
            let all = |text: &str| verdicts.iter().all(|verdict| text.contains(verdict));
            eventually("not all are found", live, all);
        });
        quiet(0);
        let done = watch.stop();
        assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
        let live = fs::read_to_string(&out).unwrap();
        let output = tcpwatch(&["replay", format, name]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), live, "{format}");
    }
}

fn other_threshold() {
    let (_dir, path) = place();
    let watch = recorder(&path, &["--linger", "1h"]);
    let mut other = Watch::start(&["--linger", "400ms"]);
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    // One that is reset and closed, which is no dead fd.
    let (client, closed) = pair(Kind::V4, &listener);
    crate::peers::reset(client);
    drop(closed);
    other.finding("open");
    watch.stop();
    drop(server);
    let name = path.to_str().unwrap();
    assert_eq!(count(&json_lines(&quietly(&["replay", "-qj", name])), "finding"), 0);
    let found = json_lines(&quietly(&["replay", "-qj", "--linger", "100ms", name]));
    let open: Vec<_> =
        found.iter().filter(|line| line["type"] == "finding" && line["status"] == "open").collect();
    assert_eq!(open.len(), 1, "{found:#?}");
    assert_eq!(open[0]["verdict"], "not-reading");
    let port = open[0]["remote"]["port"].as_u64().unwrap().to_string();
    let one = json_lines(&quietly(&["replay", "-j", "--linger", "100ms", "-D", &port, name]));
    assert!(count(&one, "transition") > 0);
    // Before 6.15 the remote end is not known yet at SYN_RECV.
    let is_it =
        |line: &Value| line["remote"]["port"].as_u64().is_none_or(|p| p.to_string() == port);
    assert!(one.iter().all(|line| is_it(line) || line["new"] == "SYN_RECV"), "{one:#?}");
    let fails = tcpwatch(&["replay", "-q", "--linger", "100ms", "--fail-on-leak", name]);
    assert_eq!(fails.status.code(), Some(1));
}

fn rotates() {
    const CONNECTIONS: usize = 15_000;
    let (dir, path) = place();
    let all = dir.path().join("all.tcpw");
    let kept = recorder(&path, &["--rotate-size", "64K", "--keep", "3"]);
    let whole = recorder(&all, &["--rotate-every", "300ms"]);
    let listener = listen(Kind::V4);
    churn(&listener, CONNECTIONS);
    drop(listener);
    quiet(0);
    assert_eq!(kept.stop().status.code(), Some(0));
    assert_eq!(whole.stop().status.code(), Some(0));
    let files = |stem: &str| {
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
            .filter(|name| name.contains(&format!("/{stem}.")))
            .collect();
        files.sort();
        files
    };
    let (kept, whole) = (files("a"), files("all"));
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(whole.len() > 2, "{whole:?}");
    for name in kept.iter().chain(&whole) {
        let info = info(Path::new(name));
        assert_eq!((&info["missing"], &info["damage"]), (&json!(0), &json!([])), "{info}");
        assert!(info["snapshots"].as_u64().unwrap() >= 1, "each can be read alone: {info}");
        let alone = tcpwatch(&["replay", "-q", name]);
        let said = String::from_utf8_lossy(&alone.stderr);
        let goes_on = said.lines().all(|line| line.contains("goes on after its file"));
        assert!(alone.status.success() && goes_on, "{alone:?}");
    }
    let replay = |files: &[String]| {
        let args: Vec<_> =
            ["replay", "-j"].into_iter().chain(files.iter().map(String::as_str)).collect();
        let output = tcpwatch(&args);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (transitions(&text), summary["lost"].clone(), String::from_utf8(output.stderr).unwrap())
    };
    let (transitions, lost, said) = replay(&whole);
    assert_eq!((transitions, lost, &*said), (CONNECTIONS * 10 + 2, json!(0), ""));
    assert_eq!(replay(&kept).1, 0, "three files in a row miss nothing");
    // Without one from the middle, what is missing is known.
    let mut without = whole.clone();
    let removed = info(Path::new(&without.remove(1)))["transitions"].as_u64().unwrap();
    let (_, lost, said) = replay(&without);
    assert_eq!(lost, removed);
    assert!(said.contains("are missing"), "{said}");
}

fn leak_over_files() {
    let (dir, path) = place();
    let watch = recorder(&path, &["--linger", "300ms", "--rotate-every", "1s"]);
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    let files = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let count_files = || files().len().to_string();
    eventually("not many files are begun", count_files, |count| count.parse::<u8>().unwrap() >= 6);
    let between = files().into_iter().nth(3).unwrap();
    drop((server, listener));
    quiet(0);
    watch.stop();
    let count = |text: &str, status: &str| {
        let lines = json_lines(text);
        let is_it = |line: &&Value| line["type"] == "finding" && line["status"] == status;
        lines.iter().filter(is_it).count()
    };
    let export = |path: &Path| {
        let name = path.to_str().unwrap();
        let output = tcpwatch(&["export", name, "--to", "jsonl", "--findings", "-o", "-"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let alone: Vec<_> = files().iter().map(|path| export(path)).collect();
    let all = |status: &str| alone.iter().map(|text| count(text, status)).sum::<usize>();
    assert_eq!((all("open"), all("ended")), (1, 1), "{alone:#?}");
    assert!(all("still") >= 4, "it is in the files between: {alone:#?}");
    // Each file alone says that it is there, as there may be no other.
    let replayed = tcpwatch(&["replay", "-qj", between.to_str().unwrap()]);
    assert_eq!(count(std::str::from_utf8(&replayed.stdout).unwrap(), "open"), 1);
    let whole = quietly(&["replay", "-qj", dir.path().to_str().unwrap()]);
    assert_eq!((count(&whole, "open"), count(&whole, "ended")), (1, 1), "{whole}");
}

/// A hundred, five at a time, at moments that are in step with nothing: between their start and
/// their second block. Where starting them takes long, as in software emulation, fewer.
fn killed() {
    const ROUNDS: u64 = 20;
    const FEWEST: u64 = 5;
    const ENOUGH: u64 = 60_000_000_000;
    const AT_ONCE: u64 = 5;
    let (dir, _) = place();
    let (sizes, connections) = under_load(|| {
        let mut sizes = std::collections::BTreeSet::new();
        let until = clock::now() + Nanos(ENOUGH);
        for round in 0..ROUNDS {
            if round >= FEWEST && clock::now() > until {
                break;
            }
            let names = (0..AT_ONCE).map(|number| dir.path().join(format!("{number}.tcpw")));
            // All of them start at once.
            let watches: Vec<_> = names.map(|path| (start(&path), path)).collect();
            for (watch, _) in &watches {
                watch.said("ready");
            }
            for (number, (watch, _)) in watches.iter().enumerate() {
                let micros = (round * AT_ONCE + number as u64) * 7919 % 200_000;
                thread::sleep(Duration::from_micros(micros));
                watch.signal(Signal::KILL);
            }
            for (watch, path) in watches {
                drop(watch);
                sizes.insert(is_readable(&path));
                fs::remove_file(&path).unwrap();
            }
        }
        sizes
    });
    assert!(sizes.len() > 3, "not always at the same place: {sizes:?}");
    assert!(connections > 0);
}

/// What a killed recorder left is whole up to its end; says how long it is.
fn is_readable(path: &Path) -> u64 {
    let info = info(path);
    assert_eq!((&info["missing"], &info["damage"]), (&json!(0), &json!([])), "{info}");
    let name = path.to_str().unwrap();
    let output = tcpwatch(&["replay", "-j", name]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{info}");
    assert_eq!(transitions(&text) as u64, info["transitions"].as_u64().unwrap());
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    // As in `real/load.rs`.
    let most = if tcpwatch::kernel::preemption::is_known_to_be_on() { 5 } else { 0 };
    assert!(summary["lost"].as_u64().unwrap() <= most, "{summary}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(name), "its end is missing");
    info["bytes"].as_u64().unwrap()
}

/// A file system of some KiB; gone with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(kib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(status.unwrap().success());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn full_disk() {
    let disk = SmallDisk::new(512);
    let (filler, path) = (disk.0.path().join("filler"), disk.0.path().join("a.tcpw"));
    fs::write(&filler, vec![1; 400 << 10]).unwrap();
    let watch = recorder(&path, &[]);
    let ((), connections) = under_load(|| {
        watch.said("No space left on device");
        fs::remove_file(&filler).unwrap();
        watch.said("the recording goes on");
    });
    quiet(0);
    let done = watch.stop();
    assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("could not be recorded"), "{}", done.stderr);
    let all = recorded(&done.stderr);
    assert_eq!(all, connections * 10 + 2);
    let info = info(&path);
    let there = info["transitions"].as_u64().unwrap();
    let missing = info["missing"].as_u64().unwrap();
    assert_eq!(there + missing, all as u64, "{info}");
    assert!(missing > 0);
    let output = tcpwatch(&["replay", "-j", path.to_str().unwrap()]);
    let lines = json_lines(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(count(&lines, "transition") as u64, there);
    assert_eq!(lines.last().unwrap()["lost"], missing);
    // Whether a connection is cut by the hole is up to chance; that there is one is told in any case.
    assert!(count(&lines, "lost") > 0);
}

/// A disk that something else fills while a series goes on, and that has room for the series.
fn full_disk_at_rotation() {
    // With room for the series also where a slow machine lets its files grow long.
    const KIB: usize = 8 << 10;
    let disk = SmallDisk::new(KIB);
    let (filler, path) = (disk.0.path().join("filler"), disk.0.path().join("a.tcpw"));
    let watch = recorder(&path, &["--rotate-every", "150ms", "--keep", "3"]);
    let files = || {
        let names = fs::read_dir(disk.0.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = names.filter(|path| *path != filler).collect();
        names.sort();
        names
    };
    under_load(|| {
        while files().len() < 3 {
            thread::yield_now();
        }
        // As much as there is room for.
        let _ = fs::write(&filler, vec![1; KIB << 10]);
        watch.said("No space left on device");
        let before = files();
        // It tries again and again.
        thread::sleep(Duration::from_secs(2));
        let whole = |path: &&PathBuf| info(path)["closed"] == true;
        let kept = before.iter().filter(|path| path.exists()).filter(whole).count();
        assert!(kept >= 2, "history is kept: {before:?}, then {:?}", files());
        fs::remove_file(&filler).unwrap();
        watch.said("the recording goes on");
    });
    watch.stop();
    let output = tcpwatch(&["replay", "-q", disk.0.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}

fn followed() {
    let (_dir, path) = place();
    let watch = recorder(&path, &["--linger", "300ms"]);
    let mut replay = Watch::start_unattached(&["replay", "-jf", path.to_str().unwrap()]);
    leak(|| {
        for _ in 0..3 {
            replay.finding("open");
        }
    });
    quiet(0);
    watch.stop();
    let done = replay.wait();
    assert_eq!((done.status.code(), &*done.stderr), (Some(0), ""), "it ends with the recorder");
    assert_eq!(done.summary()["lost"], 0);
    // One whose recorder is gone without a word is left by a signal.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 200]).unwrap();
    let mut replay = Watch::start_unattached(&["replay", "-jf", path.to_str().unwrap()]);
    replay.finding("open");
    let done = replay.stop();
    assert_eq!(done.status.code(), Some(0));
    done.summary();
}

fn run_records() {
    const LEAKY: &str = "
import socket, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
time.sleep(0.8)
";
    let (dir, path) = place();
    let (name, out) = (path.to_str().unwrap(), dir.path().join("out"));
    let flags = ["run", "-aj", "--linger", "300ms", "--record", name, "-o", out.to_str().unwrap()];
    let output = tcpwatch(&[&flags[..], &["--", "python3", "-c", LEAKY]].concat());
    assert!(output.status.success(), "{output:?}");
    let live = fs::read_to_string(&out).unwrap();
    assert!(live.contains("not-reading") && live.contains("ended"), "{live}");
    assert_eq!(quietly(&["replay", "-j", name]), live);
}

fn refused() {
    let (dir, path) = place();
    let name = path.to_str().unwrap();
    recorder(&path, &["-d", "100ms"]).wait();
    let before = fs::read(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let says = |args: &[&str], words: &str| {
        let output = tcpwatch(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} does not say '{words}': {said}");
    };
    says(&["record", "-o", name], "never overwritten");
    says(&["-d", "1s", "--record", name], "never overwritten");
    assert_eq!(fs::read(&path).unwrap(), before, "it is as it was");
    says(&["record", "-o", "/no/such/dir/a.tcpw"], "/no/such/dir/a.tcpw");
    says(&["record", "-o", "/no/such/dir/a.tcpw", "--rotate-size", "1M"], "/no/such/dir");
    says(&["record", "-o", name, "--keep", "3"], "--rotate-size");
    says(&["record"], "--output");
    let limited = dir.path().join("limited.tcpw");
    recorder(&limited, &["-D", "81", "-d", "100ms"]).wait();
    let limited = limited.to_str().unwrap();
    says(&["replay", "-D", "80", limited], "remote port 81");
    quietly(&["replay", "-D", "81", limited]);
}

fn unprivileged() {
    let (dir, path) = place();
    recorder(&path, &["-d", "100ms"]).wait();
    for file in [dir.path(), &path] {
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(file, readable).unwrap();
    }
    // A copy, as the build may be where only root may look.
    let copy = Place::new();
    for verb in ["replay", "info"] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .args([copy.program.to_str().unwrap(), verb, path.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{verb}: {output:?}");
        assert!(!output.stdout.is_empty());
    }
}
