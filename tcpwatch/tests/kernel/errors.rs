//! What tcpwatch says when it may not, cannot, or nobody listens.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use crate::{
    Test,
    peers::{Kind, listen, pair, read_to_end},
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("without_privilege_the_error_names_the_capabilities", unprivileged),
        Test::new("cap_bpf_and_cap_perfmon_are_enough", two_capabilities),
        Test::new("a_closed_pipe_ends_quietly", closed_pipe),
        Test::new("a_gone_reader_is_noticed_without_output", gone_reader),
        Test::new("it_can_be_stopped_while_nobody_reads", blocked),
        Test::new("a_process_that_ends_during_the_start_ends_the_watch", ends_at_start),
        Test::new("duration_ends_the_run", duration),
        Test::new("the_demo_finds_its_three_leaks", demo),
        Test::new("doctor_says_that_it_works", doctor),
    ]
}

/// Runs a copy of tcpwatch that anybody can execute as nobody, with these capabilities.
fn as_nobody(capabilities: &str, flags: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("tcpwatch");
    std::fs::copy(env!("CARGO_BIN_EXE_tcpwatch"), &program).unwrap();
    let sets = format!("--inh-caps=-all{capabilities}");
    let ambient = format!("--ambient-caps=-all{capabilities}");
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", &sets, &ambient])
        .arg(&program)
        .args(flags)
        .output()
        .expect("setpriv (util-linux) is needed")
}

fn unprivileged() {
    let output = as_nobody("", &["-d", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in ["CAP_BPF", "CAP_PERFMON", "sudo", "setcap cap_bpf,cap_perfmon+ep"] {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
    let output = as_nobody(",+bpf", &["-d", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("missing CAP_PERFMON (to"), "{said}");
}

fn two_capabilities() {
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    let output = as_nobody(",+bpf,+perfmon", &["-q", "-j", "--linger", "100ms", "-d", "1s"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let us = format!("\"holders\":[{{\"pid\":{}", std::process::id());
    assert!(text.contains(&us), "{text}");
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
