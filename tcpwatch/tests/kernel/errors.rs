//! What tcpwatch says when it cannot, or nobody listens.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use crate::{
    Test,
    peers::{Kind, listen, pair},
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_closed_pipe_ends_quietly", closed_pipe),
        Test::new("a_gone_reader_is_noticed_without_output", gone_reader),
        Test::new("it_can_be_stopped_while_nobody_reads", blocked),
        Test::new("a_process_that_ends_during_the_start_ends_the_watch", ends_at_start),
        Test::new("duration_ends_the_run", duration),
        Test::new("the_demo_finds_its_three_leaks", demo),
        Test::new("doctor_says_that_it_works", doctor),
        Test::new("what_is_not_mounted_is_named", not_mounted),
    ]
}

fn closed_pipe() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["-j", "-N", &crate::watch::namespace(), "--ready-file", "/dev/stderr"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let listener = listen(Kind::V4);
    drop(pair(Kind::V4, &listener));
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    drop(pair(Kind::V4, &listener));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    line.clear();
    stderr.read_to_string(&mut line).unwrap();
    assert_eq!(line, "", "it says nothing");
}

fn gone_reader() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["-j", "-N", &crate::watch::namespace()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A full pipe whose reader does not read, as a paused pager.
fn blocked() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["-j", "-N", &crate::watch::namespace(), "--ready-file", "/dev/stderr"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let listener = listen(Kind::V4);
    for _ in 0..100 {
        drop(pair(Kind::V4, &listener));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.contains("nobody takes the output"), "{line}");
}

fn ends_at_start() {
    let mut short = Command::new("sleep").arg("0.05").spawn().unwrap();
    let pid = short.id().to_string();
    let output =
        Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(["--pid", &pid]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Whichever comes first, it says so and ends.
    let words = [format!("process {pid} has ended"), format!("there is no process {pid}")];
    assert!(words.iter().any(|words| said.contains(words.as_str())), "{said}");
    short.wait().unwrap();
}

fn duration() {
    let done = Watch::start(&["-d", "200ms"]).wait();
    let span = done.summary()["duration_ns"].as_u64().unwrap();
    assert!(span >= 200_000_000, "{span}");
    assert_eq!(done.status.code(), Some(0));
}

fn demo() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(["demo", "-j"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let open: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["type"] == "finding" && line["status"] == "open")
        .collect();
    let mut verdicts: Vec<_> =
        open.iter().map(|finding| finding["verdict"].as_str().unwrap()).collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["never-accepted", "not-closed", "not-reading"]);
    for finding in open {
        assert_eq!(finding["owner"]["comm"], "leaky-server");
    }
}

fn doctor() {
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch")).arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("tcpwatch works here"), "{text}");
    assert!(!text.contains("NO "), "{text}");
}

/// What the kernel says in `/proc` and `/sys` is missed as such, and not for something else.
fn not_mounted() {
    let without = |mount: &str, flags: &str| {
        let program = env!("CARGO_BIN_EXE_tcpwatch");
        let script = format!("umount -l {mount} && exec {program} {flags}");
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .output()
            .expect("unshare (util-linux) is needed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    for flags in ["-d 1s", "leaks", "-p 1", "run -- true", "states", "doctor"] {
        let said = without("/proc", flags);
        assert!(said.contains("/proc is not mounted here"), "{flags}: {said}");
        assert!(said.contains("mount -t proc proc /proc"), "{flags}: {said}");
        assert!(!said.contains("namespace of its own"), "{flags}: {said}");
    }
    for flags in ["-d 1s", "leaks", "doctor"] {
        let said = without("/sys", flags);
        assert!(said.contains("/sys is not mounted here"), "{flags}: {said}");
        assert!(said.contains("mount -t sysfs sysfs /sys"), "{flags}: {said}");
        assert!(!said.contains("CONFIG_DEBUG_INFO_BTF"), "{flags}: {said}");
    }
}
