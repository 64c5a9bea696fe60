//! Whose socket it is: never a process that does not exist, never one that is unrelated.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    Test,
    peers::{Kind, Program, listen, pair},
    watch::{Watch, change},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_prefork_workers_socket_is_the_workers", prefork),
        Test::new("pid_of_a_worker_shows_what_the_worker_accepted", pid_of_a_worker),
        Test::new("pid_of_a_listeners_owner_shows_what_its_workers_do_to_the_end", pid_of_a_parent),
        Test::new("pid_shows_what_another_process_closes_to_the_end", pid_of_a_giver),
        Test::new("listeners_that_come_and_go_are_written_to_the_last", churn),
        Test::new("a_daemon_that_forked_after_listen_is_named", daemonised),
        Test::new("an_inherited_fd_names_its_holder", inherited),
        Test::new("a_clients_owner_is_who_connected", client),
        Test::new("the_watch_ends_with_its_process", ends_with_process),
        Test::new("sigterm_ends_in_a_summary", sigterm),
    ]
}

/// Two workers share the master's listener. On a line with a worker's number that worker accepts
/// one connection and keeps it.
const PREFORK: &str = r"
import ctypes, os, socket, sys
s = socket.create_server(('127.0.0.1', 0))
pipes, pids = [], []
for _ in range(2):
    r, w = os.pipe()
    r2, w2 = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: end with the master
        kept = []
        while os.read(r, 1):
            kept.append(s.accept()[0])
            os.write(w2, b'k')
        os._exit(0)
    pipes.append((w, r2))
    pids.append(pid)
print(s.getsockname()[1], *pids)
for line in sys.stdin:
    w, r2 = pipes[int(line)]
    os.write(w, b'a')
    os.read(r2, 1)
    print('accepted')
for pid in pids:
    os.kill(pid, 9)
";

struct Prefork {
    program: Program,
    port: u16,
    workers: [u32; 2],
}

impl Prefork {
    fn start() -> Self {
        let mut program = Program::start(PREFORK);
        let line = program.answer();
        let numbers: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [port, first, second] = numbers[..] else { panic!("{line}") };
        Self { program, port: u16::try_from(port).unwrap(), workers: [first, second] }
    }

    /// A client connects and closes; the worker accepts and keeps the connection.
    fn leak_in(&mut self, worker: usize) {
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        assert_eq!(self.program.tell(&worker.to_string()), "accepted");
    }
}

fn prefork() {
    let mut watch = Watch::start(&["--linger", "500ms"]);
    let mut server = Prefork::start();
    let master = server.program.pid();
    server.leak_in(1);
    let finding = watch.finding("open");
    assert_eq!(finding["owner"]["pid"], server.workers[1]);
    let how = finding["owner"]["how"].as_str().unwrap();
    assert!(["fd", "accept"].contains(&how), "accept where the kernel allows fexit: {how}");
    assert_eq!(finding["holders"].as_array().unwrap().len(), 1);
    server.leak_in(0);
    let finding = watch.finding("open");
    assert_eq!(finding["owner"]["pid"], server.workers[0]);
    let done = watch.stop();
    for t in done.of("transition") {
        let known = [
            u64::from(master),
            server.workers[0].into(),
            server.workers[1].into(),
            std::process::id().into(),
        ];
        let pid = t["owner"]["pid"].as_u64();
        assert!(pid.is_none_or(|pid| known.contains(&pid)), "{t}");
        if t["owner"]["how"] == "listener" {
            assert_eq!(t["owner"]["pid"], master, "{t}");
        }
    }
}

fn pid_of_a_worker() {
    let mut server = Prefork::start();
    let mine = server.workers[0];
    let mut watch = Watch::start(&["-p", &mine.to_string(), "--linger", "500ms"]);
    server.leak_in(1);
    server.leak_in(0);
    server.leak_in(1);
    let finding = watch.finding("open");
    assert_eq!(finding["owner"]["pid"], mine);
    let done = watch.stop();
    assert!(!done.of("transition").is_empty(), "the worker's transitions are shown");
    let sockets: std::collections::BTreeSet<u64> =
        done.of("transition").iter().map(|t| t["socket"].as_u64().unwrap()).collect();
    assert_eq!(sockets.len(), 1, "only the one this worker accepted: {:#?}", done.lines);
    assert_eq!(done.summary()["findings"], 1);
}

/// The parent listens and its child accepts four connections: it closes two of them first, and its client the
/// others.
const PARENT: &str = r"
import os, socket, sys
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
if os.fork() == 0:
    for turn in range(4):
        c = socket.create_connection(s.getsockname())
        a, _ = s.accept()
        first, last = (a, c) if turn % 2 else (c, a)
        first.close()
        last.recv(1)
        last.close()
    os._exit(0)
os.wait()
print('done', flush=True)
sys.stdin.readline()
";

fn pid_of_a_parent() {
    let mut program = Program::start(PARENT);
    let port: u16 = program.answer().parse().unwrap();
    let watch = Watch::start(&["-p", &program.pid().to_string()]);
    assert_eq!(program.tell(""), "done");
    let done = watch.stop();
    let mut paths = std::collections::BTreeMap::<u64, Vec<String>>::new();
    for t in done.of("transition").into_iter().filter(|t| t["local"]["port"] == port) {
        let path = paths.entry(t["socket"].as_u64().unwrap()).or_default();
        path.push(t["new"].as_str().unwrap().to_owned());
    }
    let paths: Vec<_> = paths.into_values().filter(|path| path[0] == "SYN_RECV").collect();
    let ends = |path: &Vec<String>| path.last().unwrap() == "CLOSE";
    assert_eq!(paths.len(), 4, "{:#?}", done.lines);
    assert!(paths.iter().all(ends), "{paths:?}");
    for state in ["FIN_WAIT1", "CLOSE_WAIT"] {
        let through = paths.iter().filter(|path| path.iter().any(|one| one == state)).count();
        assert_eq!(through, 2, "{paths:?}");
    }
}

/// A process that did not open its listener accepts, and gives the connections to its child, which closes
/// them: one before its client does, and one after.
const GIVER: &str = r"
import array, os, socket, sys
def give(at, s):
    at.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
def take(at):
    for _, _, data in at.recvmsg(1, 64)[1]:
        return socket.socket(fileno=array.array('i', data)[0])
    os._exit(0)
ours, theirs = socket.socketpair()
if os.fork() == 0:
    give(theirs, socket.create_server(('127.0.0.1', 0)))
    os._exit(0)
s = take(ours)
os.wait()
if os.fork() == 0:
    s.close()
    ours.close()
    while True:
        take(theirs).close()
        theirs.send(b'x')
theirs.close()
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
for client_first in (False, True):
    c = socket.create_connection(s.getsockname())
    a, _ = s.accept()
    if client_first:
        c.close()
    give(ours, a)
    a.close()
    ours.recv(1)
    c.close()
print('done', flush=True)
sys.stdin.readline()
";

fn pid_of_a_giver() {
    let mut program = Program::start(GIVER);
    let port: u16 = program.answer().parse().unwrap();
    let watch = Watch::start(&["-p", &program.pid().to_string()]);
    assert_eq!(program.tell(""), "done");
    let done = watch.stop();
    let accepted = |t: &&&serde_json::Value| t["local"]["port"] == port && t["role"] == "server";
    let changes: Vec<_> =
        done.of("transition").iter().filter(accepted).map(|t| change(t)).collect();
    let expected = [
        "LISTEN>SYN_RECV",
        "SYN_RECV>ESTABLISHED",
        "ESTABLISHED>FIN_WAIT1",
        "FIN_WAIT1>FIN_WAIT2",
        "FIN_WAIT2>CLOSE",
        "LISTEN>SYN_RECV",
        "SYN_RECV>ESTABLISHED",
        "ESTABLISHED>CLOSE_WAIT",
        "CLOSE_WAIT>LAST_ACK",
        "LAST_ACK>CLOSE",
    ];
    assert_eq!(changes, expected, "{:#?}", done.lines);
}

/// Beside many that stay; what is still to be said when it is told to stop is said.
fn churn() {
    const STAY: usize = 1_000;
    const COME: usize = 20_000;
    let stay: Vec<_> = (0..STAY).map(|_| listen(Kind::V4)).collect();
    let (watch, mut file) = Watch::start_to_file(&[]);
    for _ in 0..COME {
        drop(listen(Kind::V4));
    }
    let done = watch.stop_and_read(&mut file);
    let count = |new: &str| done.of("transition").iter().filter(|t| t["new"] == new).count();
    let lost = done.summary()["lost"].as_u64().unwrap();
    assert_eq!((count("LISTEN"), count("CLOSE"), lost), (COME, COME, 0));
    drop(stay);
}

/// A daemon: the process that called listen is gone before anybody connects.
const DAEMON: &str = r"
import os, socket, sys
s = socket.create_server(('127.0.0.1', 0))
r, w = os.pipe()
first = os.fork()
if first == 0:
    s2 = s
    os.read(r, 1)          # until the caller of listen is told to go
    print(s.getsockname()[1], os.getpid(), flush=True)
    kept = [s.accept()[0] for _ in range(2)]
    print('accepted', flush=True)
    sys.stdin.readline()
    os._exit(0)
os.write(w, b'x')
os._exit(0)
";

fn daemonised() {
    let mut watch = Watch::start(&["--linger", "300ms"]);
    let mut program = Program::start(DAEMON);
    let caller = program.pid();
    let line = program.answer();
    let (port, daemon) = line.split_once(' ').unwrap();
    let daemon: u32 = daemon.parse().unwrap();
    let port: u16 = port.parse().unwrap();
    while std::fs::metadata(format!("/proc/{caller}/fd/0")).is_ok() {
        std::thread::yield_now();
    }
    for _ in 0..2 {
        drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    }
    assert_eq!(program.answer(), "accepted");
    for _ in 0..2 {
        assert_eq!(watch.finding("open")["owner"]["pid"], daemon);
    }
    let done = watch.stop();
    let of_children: Vec<_> = done
        .of("transition")
        .into_iter()
        .filter(|t| t["local"]["port"] == port && t["old"] != "CLOSE" && t["remote"]["port"] != 0)
        .collect();
    assert!(!of_children.is_empty());
    for t in of_children {
        assert_ne!(t["owner"]["pid"], caller, "that process is gone: {t}");
    }
    assert_eq!(program.tell(""), "");
}

/// The parent opens a connection, a child inherits it, the parent closes its copy.
const INHERITED: &str = r"
import ctypes, os, socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.stdin.readline())))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    ctypes.CDLL(None).prctl(1, 9)
    os.read(r, 1)
    os._exit(0)
print(pid, flush=True)
sys.stdin.readline()
s.close()
print('closed', flush=True)
sys.stdin.readline()
os.write(w, b'x')
";

fn inherited() {
    let mut watch = Watch::start(&["--linger", "1s"]);
    let listener = listen(Kind::V4);
    let mut program = Program::start(INHERITED);
    let child: u32 =
        program.tell(&listener.local_addr().unwrap().port().to_string()).parse().unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(server);
    let finding = watch.finding("open");
    assert_eq!((&finding["verdict"], &finding["role"]), (&json!("inherited"), &json!("client")));
    // In the order of their ids, and those begin anew now and then.
    let pids: BTreeSet<_> =
        finding["holders"].as_array().unwrap().iter().map(|h| h["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids, BTreeSet::from([program.pid().into(), child.into()]));
    assert_eq!(program.tell(""), "closed");
    let still = watch.until("one holder", |f| {
        f["type"] == "finding" && f["holders"].as_array().unwrap().len() == 1
    });
    assert_eq!(
        (&still["verdict"], &still["holders"][0]["pid"]),
        (&json!("inherited"), &json!(child))
    );
    assert_eq!(still["owner"], json!({"pid": child, "comm": "python3", "how": "fd"}));
}

fn client() {
    let mut watch = Watch::start(&["--linger", "300ms"]);
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    drop(server);
    let finding = watch.finding("open");
    assert_eq!((&finding["role"], &finding["owner"]["how"]), (&json!("client"), &json!("connect")));
    assert_eq!(finding["owner"]["pid"], std::process::id());
    drop(client);
}

fn ends_with_process() {
    let server = Prefork::start();
    let pid = server.program.pid();
    let watch = Watch::start(&["-p", &pid.to_string()]);
    server.program.kill();
    let done = watch.wait();
    assert!(done.status.success());
    assert!(done.stderr.contains(&format!("process {pid} has ended")), "{}", done.stderr);
    done.summary();
}

fn sigterm() {
    let watch = Watch::start(&[]);
    watch.signal(Signal::TERM);
    let done = watch.wait();
    assert_eq!(done.status.code(), Some(0));
    done.summary();
}
