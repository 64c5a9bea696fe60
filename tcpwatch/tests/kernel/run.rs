//! `tcpwatch run`: a command and its descendants.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("run_fails_a_command_that_leaks", leaks),
        Test::new("run_hands_on_output_and_exit_code", hands_on),
        Test::new("run_hands_on_signals", signals),
        Test::new("run_hands_on_a_signal_from_the_first_moment", early_signal),
        Test::new("run_follows_descendants_and_nobody_else", descendants),
        Test::new("run_tells_what_was_done_while_it_stood_still", late),
        Test::new("run_tells_closed_from_ended", ended),
    ]
}

fn tcpwatch(flags: &[&str], command: &[&str]) -> Output {
    run(flags, command).output().unwrap()
}

fn run(flags: &[&str], command: &[&str]) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    run.arg("run").args(flags).arg("--").args(command);
    run
}

fn lines(output: &Output, kind: &str) -> Vec<Value> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] == kind).collect()
}

/// Leaves a connection unclosed for as long as its argument says, then ends as its second says.
const LEAKY: &str = "
import os, socket, sys, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
time.sleep(float(sys.argv[1]))
os._exit(int(sys.argv[2]))
";

fn leaks() {
    let leaky = |seconds, code| ["python3", "-c", LEAKY, seconds, code];
    let flags = ["--fail-on-leak", "--linger", "300ms", "-j"];
    let output = tcpwatch(&flags, &leaky("0.8", "0"));
    let findings = lines(&output, "finding");
    assert_eq!(output.status.code(), Some(1), "{findings:#?}");
    assert_eq!(findings[0]["verdict"], "not-reading");
    assert_eq!(findings[0]["role"], "server");
    let output = tcpwatch(&flags, &leaky("0.8", "7"));
    assert_eq!(output.status.code(), Some(7), "its own failure comes first");
    let output = tcpwatch(&flags, &leaky("0", "0"));
    assert_eq!(output.status.code(), Some(0), "what does not linger is no leak");
    let output = tcpwatch(&flags[1..], &leaky("0.8", "0"));
    assert_eq!(output.status.code(), Some(0));
}

fn hands_on() {
    let output = tcpwatch(&[], &["sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(output.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"), "{output:?}");
    let output = tcpwatch(&[], &["sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(128 + 15));
    let output = tcpwatch(&[], &["/no/such/program"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"));
}

fn signals() {
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = run(&[], &["sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    assert_eq!(output.next().unwrap(), "ready");
    kill(pid, Signal::SIGUSR1).unwrap();
    assert_eq!(output.next().unwrap(), "usr1");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(output.next().unwrap(), "term");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

/// A command that tells its parent, which is tcpwatch, as soon as it runs.
fn early_signal() {
    for _ in 0..10 {
        let script = "trap 'exit 9' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done";
        assert_eq!(tcpwatch(&[], &["sh", "-c", script]).status.code(), Some(9));
    }
}

/// Grandchildren one after the other, each too short-lived for anybody to ask about; all the while
/// somebody else connects, too.
const FAMILY: &str = "
import os, socket
for _ in range(40):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            s = socket.create_server(('127.0.0.1', 0))
            c = socket.create_connection(s.getsockname()); a, _ = s.accept()
            c.close(); a.close(); s.close()
            os._exit(0)
        os.wait()
        os._exit(0)
    os.waitpid(child, 0)
";

const STRANGER: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
print('ready')
while True:
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    c.close(); a.close()
";

fn descendants() {
    let mut stranger = crate::peers::Program::start(STRANGER);
    assert_eq!(stranger.answer(), "ready");
    let output = tcpwatch(&["--transitions", "-j"], &["python3", "-c", FAMILY]);
    let transitions = lines(&output, "transition");
    let count = |new: &str| transitions.iter().filter(|t| t["new"] == new).count();
    assert_eq!((count("LISTEN"), count("SYN_SENT")), (40, 40));
    assert_eq!(count("CLOSE_WAIT"), 40, "also what the kernel does for them");
    let owners: std::collections::BTreeSet<_> =
        transitions.iter().filter_map(|t| t["owner"]["pid"].as_u64()).collect();
    assert_eq!(owners.len(), 40, "each grandchild is its own: {owners:?}");
    assert!(!owners.contains(&u64::from(stranger.pid())));
    stranger.kill();
}

/// tcpwatch stands still for longer than what comes after a process's end is waited for.
fn late() {
    let script = format!("print('go', flush=True); input(){FAMILY}print('done', flush=True)")
        .replace("range(40):", "range(5):\n    time.sleep(0.6)")
        .replace("import os", "import time, os");
    let mut command = run(&["--transitions", "-j"], &["python3", "-c", &script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().unwrap(), "go");
    kill(pid, Signal::SIGSTOP).unwrap();
    writeln!(child.stdin.take().unwrap()).unwrap();
    assert_eq!(said.next().unwrap(), "done");
    kill(pid, Signal::SIGCONT).unwrap();
    let transitions = lines(&child.wait_with_output().unwrap(), "transition");
    let count = |new: &str| transitions.iter().filter(|t| t["new"] == new).count();
    let counts = (count("LISTEN"), count("SYN_SENT"), count("CLOSE_WAIT"));
    assert_eq!(counts, (5, 5, 5), "{transitions:#?}");
}

fn ended() {
    let closes = "
import socket, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
time.sleep(0.8); a.close()
";
    let how = |command: &[&str]| {
        let output = tcpwatch(&["--linger", "300ms", "-j"], command);
        let findings = lines(&output, "finding");
        findings.iter().find(|f| f["status"] == "ended").unwrap()["ended"]["how"].clone()
    };
    assert_eq!(how(&["python3", "-c", closes]), "closed");
    assert_eq!(how(&["python3", "-c", LEAKY, "0.8", "0"]), "exited");
}
