//! Who holds what lingers: nobody, a helper that was started later, many, or the workers of a server.

use serde_json::{Value, json};

use crate::{
    Test,
    leaks::{leaks, lines},
    peers::Program,
    watch::Watch,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_descriptor_in_flight_leads_nowhere", in_flight),
        Test::new("a_descriptor_of_io_uring_alone_leads_nowhere", io_uring).only_if(has_io_uring),
        Test::new("a_helper_started_later_has_inherited", helper),
        Test::new("a_parent_and_twenty_children_hold_it", twenty_children),
        Test::new("workers_are_named_and_not_their_idle_master", prefork),
    ]
}

const LINGER: [&str; 2] = ["--linger", "1s"];

fn open_findings(flags: &[&str]) -> Vec<Value> {
    let mut found = lines(flags, "finding");
    found.retain(|finding| finding["status"] == "open");
    found
}

/// Sends an accepted connection over a unix socket, where it is not received before an order.
pub(crate) const IN_FLIGHT: &str = "
import array, socket
l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname()); s, _ = l.accept()
a, b = socket.socketpair()
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
s.close(); c.close()
print(l.getsockname()[1])
input()
b.recvmsg(1, socket.CMSG_SPACE(4))
print('received')
input()
";

fn in_flight() {
    let mut watch = Watch::start(&LINGER);
    let mut program = Program::start(IN_FLIGHT);
    let port: u16 = program.answer().parse().unwrap();
    let seen_to_come = watch.finding("open");
    leads_nowhere(&seen_to_come, port);
    let found_by_a_look = open_findings(&[]);
    assert_eq!(found_by_a_look.len(), 1, "{found_by_a_look:#?}");
    leads_nowhere(&found_by_a_look[0], port);
    assert_eq!(leaks(&["--fail-on-leak"]).status.code(), Some(1));
    let mut later = Watch::start(&LINGER);
    leads_nowhere(&later.finding("open"), port);
    assert_eq!(program.tell(""), "received");
    for watch in [&mut watch, &mut later] {
        let held = watch.until("holder", |line| line["holders"][0]["pid"] == program.pid());
        assert_eq!(held["verdict"], "not-reading", "{held:#}");
    }
    program.kill();
    for mut watch in [watch, later] {
        watch.finding("ended");
    }
}

fn leads_nowhere(finding: &Value, port: u16) {
    assert_eq!((&finding["verdict"], &finding["state"]), (&json!("unheld"), &json!("CLOSE_WAIT")));
    assert_eq!((&finding["holders"], &finding["local"]["port"]), (&json!([]), &json!(port)));
    assert!(finding["inode"].as_u64().is_some_and(|inode| inode > 0), "{finding:#}");
    let summary = finding["summary"].as_str().unwrap();
    assert!(summary.starts_with("no file descriptor leads to the connection"), "{summary}");
}

/// Registers an accepted connection with an `io_uring` ring, which then is all that has it. The numbers
/// are those of the system calls, the same on all architectures, and of `IORING_REGISTER_FILES`.
const IO_URING: &str = "
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))
l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname()); s, _ = l.accept()
done = libc.syscall(427, ring, 2, (ctypes.c_int * 1)(s.fileno()), 1) if ring >= 0 else -1
s.close(); c.close()
print(l.getsockname()[1] if done == 0 else 'refused')
input()
";

fn has_io_uring() -> bool {
    Program::start(IO_URING).answer() != "refused"
}

fn io_uring() {
    let mut program = Program::start(IO_URING);
    let port: u16 = program.answer().parse().unwrap();
    let found = open_findings(&[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    leads_nowhere(&found[0], port);
    program.kill();
}

/// Accepts, starts a helper that gets the connection, too, and closes its own copy.
const HELPER: &str = "
import os, socket, subprocess
l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname()); s, _ = l.accept()
s.set_inheritable(True)
helper = subprocess.Popen(['sleep', '300'], close_fds=False)
s.close(); c.close()
print(l.getsockname()[1], helper.pid)
input()
helper.kill(); helper.wait()
print('gone')
";

fn helper() {
    let mut watch = Watch::start(&LINGER);
    let mut server = Program::start(HELPER);
    let answer = server.answer();
    let (port, sleep) = answer.split_once(' ').unwrap();
    let finding = watch.finding("open");
    assert_eq!(finding["verdict"], "inherited", "{finding:#}");
    assert_eq!(finding["holders"][0]["pid"].to_string(), sleep);
    assert_eq!(finding["evidence"]["server"], json!({"pid": server.pid(), "comm": "python3"}));
    let words = format!(
        "which came through python3[{}] at :{port} before sleep[{sleep}] was started",
        server.pid()
    );
    assert!(finding["summary"].as_str().unwrap().contains(&words), "{finding:#}");
    assert_eq!(server.tell(""), "gone");
    watch.finding("ended");
}

/// A connection that a parent and twenty children have.
const CHILDREN: &str = "
import os, socket
l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname()); s, _ = l.accept()
end, w = os.pipe()
for i in range(20):
    if os.fork() == 0:
        l.close(); c.close(); os.close(w); os.read(end, 1); os._exit(0)
c.close()
print('ready')
input()
";

fn twenty_children() {
    let mut program = Program::start(CHILDREN);
    assert_eq!(program.answer(), "ready");
    let mut watch = Watch::start(&["-q", "--linger", "1s"]);
    for finding in [watch.finding("open"), open_findings(&["--linger", "1s"]).remove(0)] {
        assert_eq!(finding["verdict"], "inherited");
        assert_eq!(finding["holders"].as_array().unwrap().len(), 21, "{finding:#}");
    }
    program.kill();
}

/// A master and two workers, all with the listener. Each worker accepts one connection and is busy with
/// it; five more clients come and go.
const PREFORK: &str = "
import os, select, socket
l = socket.create_server(('127.0.0.1', 0))
end, w = os.pipe(); told, tell = os.pipe()
workers = []
for i in range(2):
    worker = os.fork()
    if worker == 0:
        os.close(w)
        s, _ = l.accept()
        os.write(tell, b'x'); os.read(end, 1); os._exit(0)
    workers.append(worker)
    c = socket.create_connection(l.getsockname()); os.read(told, 1)
    globals()[f'c{i}'] = c
for _ in range(5):
    socket.create_connection(l.getsockname()).close()
print(*workers)
e = select.epoll(); e.register(0, select.EPOLLIN); e.poll()
";

fn prefork() {
    let mut early = Watch::start(&LINGER);
    let mut server = Program::start(PREFORK);
    let answer = server.answer();
    let workers: Vec<u32> = answer.split(' ').map(|pid| pid.parse().unwrap()).collect();
    let mut late = Watch::start(&LINGER);
    let mut found = open_findings(&[]);
    for watch in [&mut early, &mut late] {
        found.extend((0..5).map(|_| watch.finding("open")));
    }
    assert_eq!(found.len(), 15, "{found:#?}");
    for finding in &found {
        assert_eq!(finding["verdict"], "never-accepted");
        let listener = &finding["listener"];
        assert_eq!(listener["accepting"], 2, "{finding:#}");
        assert_eq!(listener["holders"].as_array().unwrap().len(), 3);
        let first = &json!(workers.iter().min().unwrap());
        assert_eq!((&finding["owner"]["pid"], &listener["holders"][0]["pid"]), (first, first));
        let summary = finding["summary"].as_str().unwrap();
        assert!(!summary.contains(&format!("[{}]", server.pid())), "{summary}");
    }
    let culprits = lines(&[], "culprit");
    assert_eq!(culprits.len(), 1, "one group for all workers: {culprits:#?}");
    server.kill();
}
