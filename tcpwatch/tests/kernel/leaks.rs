//! One look at what began before tcpwatch did.

use std::{
    io::Write as _,
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Test,
    peers::{Kind, Program, connect, listen, pair, read_to_end},
    watch::namespace,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("leaks_finds_what_began_before", before),
        Test::new("leaks_groups_by_culprit", groups),
        Test::new("leaks_gives_ages_that_enclose_the_truth", ages),
        Test::new("leaks_does_not_report_a_half_close_in_use", in_use),
        Test::new("states_counts_what_ss_counts", states),
        Test::new("leaks_is_silent_when_nothing_lingers", silent),
        Test::new("leaks_in_a_pid_namespace_is_no_all_clear", blind),
        Test::new("a_run_in_a_pid_namespace_is_no_all_clear", blind_run),
        Test::new("leaks_says_which_queues_it_may_not_look_into", queues_elsewhere),
        Test::new("a_queue_is_found_though_its_holder_lives_elsewhere", holder_elsewhere),
        Test::new("leaks_says_that_nothing_leads_to_a_namespace", nobody_there),
        Test::new("leaks_of_one_process_counts_no_others", strangers),
    ]
}

pub(crate) fn leaks(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["leaks", "-N", &namespace()])
        .args(flags)
        .output()
        .unwrap()
}

/// The lines of this type that `tcpwatch leaks -j` writes.
pub(crate) fn lines(flags: &[&str], kind: &str) -> Vec<Value> {
    let output = leaks(&[&["-j"], flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["type"] == kind)
        .collect()
}

fn before() {
    let listener = listen(Kind::V4);
    let (mut client, unread) = pair(Kind::V4, &listener);
    client.write_all(b"12345").unwrap();
    let (second, mut read) = pair(Kind::V4, &listener);
    drop((client, second));
    read_to_end(&mut read);
    let (third, mut dead) = pair(Kind::V4, &listener);
    drop(third);
    read_to_end(&mut dead);
    while dead.write_all(b"x").is_ok() {}
    drop(connect(Kind::V4, &listener));
    let findings = lines(&[], "finding");
    let of = |verdict: &str| {
        let found: Vec<_> = findings.iter().filter(|f| f["verdict"] == verdict).collect();
        assert_eq!(found.len(), 1, "{verdict}: {findings:#?}");
        found[0].clone()
    };
    assert_eq!(findings.len(), 4, "{findings:#?}");
    assert_eq!(of("not-reading")["unread"], 6);
    assert_eq!(of("not-closed")["unread"], 0);
    assert_eq!(of("dead-fd")["state"], "CLOSE");
    for verdict in ["not-reading", "not-closed", "dead-fd"] {
        assert_eq!(of(verdict)["holders"][0]["pid"], std::process::id());
        assert_eq!(of(verdict)["linger_at_least"], verdict == "dead-fd");
    }
    let waiting = of("never-accepted");
    assert_eq!(waiting["listener"]["local"]["port"], listener.local_addr().unwrap().port());
    assert_eq!(waiting["listener"]["queue_len"], 1);
    assert_eq!(waiting["role"], "server");
    let output = leaks(&["--fail-on-leak"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("4 sockets linger"), "{text}");
    drop((unread, read, dead));
}

fn groups() {
    let (mine, other) = (listen(Kind::V4), listen(Kind::V4));
    let kept: Vec<_> = [&mine, &mine, &mine, &other]
        .into_iter()
        .map(|listener| {
            let (client, server) = pair(Kind::V4, listener);
            drop(client);
            server
        })
        .collect();
    let culprits = lines(&["-p", &std::process::id().to_string()], "culprit");
    let counts: Vec<_> = culprits.iter().map(|c| (c["count"].clone(), c["end"].clone())).collect();
    assert_eq!(
        counts,
        [
            (json!(3), json!(mine.local_addr().unwrap().to_string())),
            (json!(1), json!(other.local_addr().unwrap().to_string())),
        ]
    );
    assert_eq!(culprits[0]["share"], 0.75);
    assert!(culprits[0]["fds"].as_u64().unwrap() > 4);
    drop(kept);
}

/// A client sends, waits, closes; the true age of the `CLOSE_WAIT` is known here.
fn ages() {
    let listener = listen(Kind::V4);
    let (mut client, mut server) = pair(Kind::V4, &listener);
    client.write_all(b"x").unwrap();
    // Time has to pass here: ages are what is measured.
    std::thread::sleep(Duration::from_millis(700));
    let before = tcpwatch::kernel::clock::now();
    drop(client);
    read_to_end(&mut server);
    let after = tcpwatch::kernel::clock::now();
    std::thread::sleep(Duration::from_millis(800));
    let finding = &lines(&[], "finding")[0];
    let now = finding["mono_ns"].as_u64().unwrap();
    let linger = finding["linger_ns"].as_u64().unwrap();
    let jiffy = 10_000_000;
    assert!(linger <= now - before.0 + jiffy, "older than it can be: {finding}");
    assert!(linger + jiffy >= now - after.0, "much younger than it is: {finding}");
    assert_eq!(finding["linger_at_least"], false, "nothing of ours came after: {finding}");
    // The FIN was the last that came in; both ages are of the moment of the second look.
    let ack = finding["evidence"]["last_ack_received_ns"].as_u64().unwrap();
    assert!(ack.abs_diff(linger) <= jiffy, "ages of two moments: {finding}");
}

/// Sends on after the peer has closed its side.
const SENDER: &str = "
import socket, threading
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname())
a, _ = s.accept()
c.shutdown(socket.SHUT_WR)
def read():
    while c.recv(4096): pass
threading.Thread(target=read, daemon=True).start()
a.recv(1)
stop = threading.Event()
def send():
    while not stop.wait(0.05): a.send(b'more')
threading.Thread(target=send, daemon=True).start()
print('sending')
input()
";

fn in_use() {
    let mut sender = Program::start(SENDER);
    assert_eq!(sender.answer(), "sending");
    assert_eq!(lines(&[], "finding"), Vec::<Value>::new());
    let shown = lines(&["--include-half-open"], "finding");
    assert_eq!(shown[0]["verdict"], "half-open-in-use");
    assert_eq!(shown[0]["owner"]["pid"], sender.pid());
    sender.kill();
}

fn silent() {
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    let output = leaks(&["--fail-on-leak"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "nothing lingers\n");
    drop((client, server));
}

/// tcpwatch in a pid namespace of its own, where nobody's sockets are seen.
fn apart(flags: &[&str]) -> Output {
    Command::new("unshare")
        .args(["--fork", "--pid", "--mount-proc", env!("CARGO_BIN_EXE_tcpwatch")])
        .args(flags)
        .output()
        .expect("unshare (util-linux) is needed")
}

fn blind() {
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    let namespace = namespace();
    let flags = ["leaks", "--linger", "0s", "-N", &namespace];
    let output = apart(&flags);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("nothing was seen to linger\n"), "{text}");
    assert!(text.contains("not seen: sockets that only processes outside this pid"), "{text}");
    let output = apart(&[&flags[..], &["--fail-on-leak"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: that nothing lingers is not known"), "{said}");
    let output = apart(&[&flags[..], &["-j"]].concat());
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["unseen"], json!(["other-pid-namespaces"]), "{summary}");
    assert_eq!(lines(&["--linger", "0s"], "summary")[0]["unseen"], json!([]));
    let output = apart(&["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("tcpwatch works here, but does not see everything"), "{text}");
    drop(server);
}

fn blind_run() {
    let place = tempfile::tempdir().unwrap();
    let recording = place.path().join("blind.tcpw").display().to_string();
    let namespace = namespace();
    let flags = ["-q", "-j", "-d", "100ms", "-N", &namespace, "--fail-on-leak"];
    let output = apart(&[&flags[..], &["--record", &recording]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["this is a pid namespace of its own", "that nothing lingers is not known"] {
        assert!(said.contains(words), "{said}");
    }
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["unseen"], json!(["other-pid-namespaces"]), "{summary}");
    let tcpwatch = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
        String::from_utf8(command.args(flags).arg(&recording).output().unwrap().stdout).unwrap()
    };
    let summary: Value = serde_json::from_str(&tcpwatch(&["replay", "-q", "-j"])).unwrap();
    assert_eq!(summary["unseen"], json!(["other-pid-namespaces"]), "{summary}");
    assert!(tcpwatch(&["report"]).contains("The run could not see sockets"));
    let output = apart(&["run", "--", "true"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("process ids are those of the host"), "{said}");
}

/// Twenty wait in a queue and have not closed; behind them one has, which only a look into its
/// namespace shows.
const QUEUE: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0), backlog=128)
kept = [socket.create_connection(s.getsockname()) for _ in range(20)]
socket.create_connection(s.getsockname()).close()
print('ready')
input()
";

fn queues_elsewhere() {
    let mut program = Program::start(QUEUE);
    assert_eq!(program.answer(), "ready");
    let namespace = namespace();
    let elsewhere = |capabilities: &[&str], flags: &[&str]| {
        Command::new("unshare")
            .args([&["--net", "setpriv"], capabilities, &[env!("CARGO_BIN_EXE_tcpwatch")]].concat())
            .args([&["leaks", "--linger", "0s", "-N", &namespace], flags].concat())
            .output()
            .expect("unshare and setpriv (util-linux) are needed")
    };
    let few = ["--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all"];
    let output = elsewhere(&few, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("nothing was seen to linger\n"), "{text}");
    assert!(text.contains("not seen: connections that wait in long accept queues"), "{text}");
    assert_eq!(elsewhere(&few, &["--fail-on-leak"]).status.code(), Some(2));
    let text = String::from_utf8(elsewhere(&["--no-new-privs"], &[]).stdout).unwrap();
    assert!(text.starts_with("1 socket lingers") && !text.contains("not seen"), "{text}");
    program.kill();
}

/// The same in a network namespace of its own, which its only holder then leaves; nobody stays there, or a process
/// without a socket.
const LEFT: &str = "
import ctypes, os, socket, subprocess
def leave():
    assert ctypes.CDLL(None).unshare(0x40000000) == 0
leave()
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
stays = subprocess.Popen(['sleep', '300']) if INHABITED else None
s = socket.create_server(('127.0.0.1', 0), backlog=128)
kept = [socket.create_connection(s.getsockname()) for _ in range(20)]
socket.create_connection(s.getsockname()).close()
there = os.stat('/proc/self/ns/net').st_ino
leave()
print(there)
input()
if stays:
    stays.kill()
print('done')
";

fn leaks_there(program: &mut Program) -> Output {
    let namespace = program.answer();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    command.args(["leaks", "--linger", "0s", "-N", &namespace]).output().unwrap()
}

fn holder_elsewhere() {
    let mut program = Program::start(&format!("INHABITED = True\n{LEFT}"));
    let output = leaks_there(&mut program);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("1 socket lingers") && !text.contains("not seen"), "{text}");
    assert_eq!(program.tell(""), "done");
}

fn nobody_there() {
    let mut program = Program::start(&format!("INHABITED = False\n{LEFT}"));
    let output = leaks_there(&mut program);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("nothing was seen to linger\n"), "{text}");
    assert!(text.contains("not seen: connections that wait in long accept queues"), "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no process and no name leads there"), "{said}");
    program.kill();
}

/// Half closed and in use, with traffic that hides how old it is: the last data came in long ago, the
/// last ACK just now.
const CHATTY: &str = "
import socket, threading, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname())
a, _ = s.accept()
c.send(b'x'); a.recv(1); c.shutdown(socket.SHUT_WR)
def talk():
    while True:
        a.send(b'y'); c.recv(1)
        time.sleep(0.02)
threading.Thread(target=talk, daemon=True).start()
time.sleep(5)
print('ready')
input()
";

fn strangers() {
    let mut program = Program::start(CHATTY);
    assert_eq!(program.answer(), "ready");
    let leaks = |pid: u32| leaks(&["--linger", "5s", "--pid", &pid.to_string()]);
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let (own, other) = (leaks(program.pid()), leaks(std::process::id()));
    assert!(text(&own).contains("1 socket may have lingered that long"), "{}", text(&own));
    assert_eq!(text(&other), "nothing has lingered for 5s\n");
    program.kill();
}

/// The same counts as `ss`, `TIME_WAIT` included.
fn states() {
    let listener = listen(Kind::V4);
    let mut kept = Vec::new();
    for round in 0..7 {
        let (mut client, mut server) = pair(Kind::V4, &listener);
        match round % 3 {
            // We close first: TIME_WAIT on the server's side.
            0 => {
                drop(server);
                read_to_end(&mut client);
            }
            // The client closes, we do not: CLOSE_WAIT here, FIN_WAIT2 there.
            1 => {
                drop(client);
                read_to_end(&mut server);
                kept.push(server);
            }
            _ => kept.extend([client, server]),
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["states", "--by", "port", "-j", "-N", &namespace()])
        .output()
        .unwrap();
    let mut ours = std::collections::BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for (state, count) in line["states"].as_object().unwrap() {
            *ours.entry(state.clone()).or_insert(0) += count.as_u64().unwrap();
        }
    }
    let output = Command::new("ss").args(["-tanH"]).output().unwrap();
    let mut theirs = std::collections::BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let word = line.split_whitespace().next().unwrap();
        let state: tcpwatch::core::state::State = word.parse().unwrap();
        *theirs.entry(state.to_string()).or_insert(0) += 1;
    }
    assert_eq!(ours, theirs);
    assert_eq!((ours["TIME_WAIT"], ours["CLOSE_WAIT"], ours["FIN_WAIT2"]), (3, 2, 2));
    drop(kept);
}
