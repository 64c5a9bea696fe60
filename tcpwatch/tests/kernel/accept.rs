//! The exact acceptor, where the kernel allows a program at the end of `inet_csk_accept`.

use std::sync::LazyLock;

use serde_json::json;
use tcpwatch::{
    core::filter::Filter,
    kernel::load::{AcceptProbe, Kernel, Plan},
};

use crate::{
    Test,
    peers::{Program, port},
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    let all: [(_, fn()); 6] = [
        ("who_accepted_is_known_before_any_look", before_any_look),
        ("pid_of_a_worker_shows_it_from_accept_on", of_a_worker),
        ("an_accept_from_before_the_start_is_not_exact", from_before),
        ("an_accept_that_fails_is_nobodys", failing),
        ("a_thread_accepts_for_its_process", in_a_thread),
        ("a_child_that_serves_has_not_inherited", child_serves),
    ];
    let exact = |(name, body)| Test::new(name, body).needs_kernel("the exact acceptor", is_exact);
    all.into_iter().map(exact).collect()
}

/// Asked of this kernel as tcpwatch asks it.
fn is_exact() -> bool {
    static EXACT: LazyLock<bool> = LazyLock::new(|| {
        let plan = Plan {
            filter: Filter::default(),
            findings_only: true,
            ring_bytes: 4096,
            exact_accept: true,
            details: false,
            follow_from: None,
            tally: false,
        };
        let attached = Kernel::attach(&plan);
        attached.is_ok_and(|(kernel, _, _)| kernel.accept == AcceptProbe::Attached)
    });
    *EXACT
}

/// No finding, so no look confirms anything.
const NO_LOOK: [&str; 2] = ["--linger", "1h"];

/// Two processes share a listener. Told a number, that one accepts a connection; told so again, it
/// closes it.
const WORKERS: &str = "
import ctypes, os, socket, sys
s = socket.create_server(('127.0.0.1', 0))
workers = []
for number in range(2):
    orders, order = os.pipe()
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: end with the parent
        open('/proc/self/comm', 'w').write(f'worker-{number}')
        while os.read(orders, 1):
            a, _ = s.accept()
            os.write(tell, b'a')
            os.read(orders, 1)
            a.close()
            os.write(tell, b'c')
        os._exit(0)
    workers.append((pid, order, done))
print(s.getsockname()[1], *[pid for pid, _, _ in workers])
for line in sys.stdin:
    _, order, done = workers[int(line)]
    os.write(order, b'x')
    print(os.read(done, 1).decode())
";

struct Workers {
    program: Program,
    port: u16,
    pids: [u32; 2],
}

impl Workers {
    fn start() -> Self {
        let mut program = Program::start(WORKERS);
        let line = program.answer();
        let numbers: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [port, first, second] = numbers[..] else { panic!("{line}") };
        Self { program, port: port.try_into().unwrap(), pids: [first, second] }
    }

    /// One accepts a connection, its client closes, and then it closes. Says which port the client
    /// had.
    fn serve(&mut self, worker: usize) -> u16 {
        let client = connect(self.port);
        let from = port(&client);
        assert_eq!(self.program.tell(&worker.to_string()), "a");
        drop(client);
        assert_eq!(self.program.tell(&worker.to_string()), "c");
        from
    }
}

fn connect(port: u16) -> std::net::TcpStream {
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()
}

fn before_any_look() {
    let mut workers = Workers::start();
    let mut watch = Watch::start(&NO_LOOK);
    let clients = [1, 0, 1].map(|worker| (worker, workers.serve(worker)));
    for (worker, from) in clients {
        let end = watch.until("the end of a connection", |t| {
            t["old"] == "LAST_ACK" && t["remote"]["port"] == from
        });
        let owner = json!({
            "pid": workers.pids[worker], "comm": format!("worker-{worker}"), "how": "accept",
        });
        for t in watch.lines.iter().filter(|t| t["socket"] == end["socket"]) {
            let accepted = ["CLOSE_WAIT", "LAST_ACK"].iter().any(|state| t["old"] == *state);
            assert_eq!(t["owner"]["how"] == "accept", accepted || t["new"] == "CLOSE_WAIT", "{t}");
            if t["owner"]["how"] == "accept" {
                assert_eq!(t["owner"], owner, "{t}");
            }
        }
    }
    watch.stop();
}

fn of_a_worker() {
    let mut workers = Workers::start();
    let pid = workers.pids[0].to_string();
    let mut watch = Watch::start(&[&NO_LOOK[..], &["-p", &pid]].concat());
    workers.serve(1);
    let from = workers.serve(0);
    let closed = watch.until("its close", |t| t["new"] == "CLOSE");
    assert_eq!(closed["remote"]["port"], from);
    let done = watch.stop();
    let transitions = done.of("transition");
    assert!(transitions.iter().all(|t| t["socket"] == closed["socket"]), "{transitions:#?}");
    let of_worker = json!({"pid": workers.pids[0], "comm": "worker-0", "how": "accept"});
    assert!(transitions.iter().any(|t| t["new"] == "CLOSE_WAIT" && t["owner"] == of_worker));
}

/// A server that waits in `accept`, and keeps what it gets.
const KEEPER: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
kept = []
while True:
    kept.append(s.accept()[0])
    print('accepted')
";

/// The call has passed the place where the program is put.
fn from_before() {
    const ACCEPT4: &str = "288 ";
    let mut keeper = Program::start(KEEPER);
    let pid = keeper.pid();
    let at = keeper.answer().parse().unwrap();
    let call = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    while !call().starts_with(ACCEPT4) {
        std::thread::yield_now();
    }
    let mut watch = Watch::start(&["--linger", "300ms"]);
    for how in ["fd", "accept"] {
        drop(connect(at));
        assert_eq!(keeper.answer(), "accepted");
        let finding = watch.finding("open");
        assert_eq!(finding["owner"], json!({"pid": pid, "comm": "python3", "how": how}));
    }
    watch.stop();
    keeper.kill();
}

/// Asks before anybody has connected, as an event loop may, and then once more.
const IMPATIENT: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
s.setblocking(False)
for _ in range(2):
    input()
    try:
        a, _ = s.accept()
        print('accepted')
    except BlockingIOError:
        print('nothing')
input()
";

fn failing() {
    let mut program = Program::start(IMPATIENT);
    let at = program.answer().parse().unwrap();
    let mut watch = Watch::start(&["--linger", "300ms"]);
    assert_eq!(program.tell(""), "nothing");
    drop(connect(at));
    assert_eq!(program.tell(""), "accepted");
    let finding = watch.finding("open");
    let owner = json!({"pid": program.pid(), "comm": "python3", "how": "accept"});
    assert_eq!(finding["owner"], owner);
    let done = watch.stop();
    let exact = |t: &&&serde_json::Value| t["owner"]["how"] == "accept";
    let transitions = done.of("transition");
    let accepted: Vec<_> = transitions.iter().filter(exact).map(|t| &t["socket"]).collect();
    assert!(accepted.iter().all(|socket| **socket == finding["socket"]), "{transitions:#?}");
    program.kill();
}

/// Only its second thread accepts.
const THREADED: &str = "
import socket, threading
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
input()
kept = []
def accept():
    open('/proc/thread-self/comm', 'w').write('acceptor')
    kept.append(s.accept()[0])
    print('accepted')
threading.Thread(target=accept).start()
input()
";

fn in_a_thread() {
    let mut program = Program::start(THREADED);
    let at = program.answer().parse().unwrap();
    let mut watch = Watch::start(&["--linger", "300ms"]);
    program.order("");
    drop(connect(at));
    assert_eq!(program.answer(), "accepted");
    let owner = json!({"pid": program.pid(), "comm": "python3", "how": "accept"});
    assert_eq!(watch.finding("open")["owner"], owner);
    program.kill();
}

/// Forks for each connection; the child does not read to the end.
const FORKING: &str = "
import ctypes, os, signal, socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
input()
a, _ = s.accept()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).prctl(1, 9)
    s.close()
    signal.pause()
a.close()
print(child)
input()
";

fn child_serves() {
    let mut program = Program::start(FORKING);
    let at = program.answer().parse().unwrap();
    let mut watch = Watch::start(&["--linger", "300ms"]);
    program.order("");
    let client = connect(at);
    let child: u32 = program.answer().parse().unwrap();
    drop(client);
    let finding = watch.finding("open");
    assert_eq!(finding["verdict"], "not-reading", "{finding:#}");
    assert_eq!(finding["owner"], json!({"pid": child, "comm": "python3", "how": "fd"}));
    assert_eq!(finding["evidence"]["opener"]["pid"], program.pid(), "who accepted is told");
    program.kill();
}
