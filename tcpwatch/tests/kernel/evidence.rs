//! The evidence behind a verdict: who waits for the socket, and what its process does.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    Test,
    leaks::lines,
    peers::{Kind, LEAK, Program, listen, pair},
    watch::namespace,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("waiters_are_told_apart", waiters),
        Test::new("a_blocked_writer_is_seen", blocked_writer),
        Test::new("a_stopped_process_is_seen", stopped),
        Test::new("a_process_says_what_it_does", process),
        Test::new("a_namespace_has_a_name", namespace_name),
        Test::new("who_opened_an_old_connection_is_known", roles),
        Test::new("a_child_forked_later_has_inherited", younger_child),
        Test::new("a_child_on_its_way_to_exec_has_not_inherited", spawner),
        Test::new("what_grows_is_told_from_what_does_not", growth),
        Test::new("what_ss_shows_is_shown", what_ss_shows),
        Test::new("a_watch_tells_what_there_is_at_its_end", at_the_end),
    ]
}

fn findings(flags: &[&str]) -> Vec<Value> {
    lines(flags, "finding")
}

/// Six connections whose peer has closed, each waited for in another way. Their ports come in that
/// order.
const WAITERS: &str = "
import select, socket, threading
s = socket.create_server(('127.0.0.1', 0))
def pair():
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    return c, a
pairs = [pair() for _ in range(6)]
E = select.epoll()
_, level, edge, oneshot, out, polled = [a for _, a in pairs]
E.register(level, select.EPOLLIN)
E.register(edge, select.EPOLLIN | select.EPOLLET)
E.register(oneshot, select.EPOLLIN | select.EPOLLONESHOT)
E.register(out, select.EPOLLOUT)
p = select.poll()
# Nothing wakes it: it asks for nothing but errors.
p.register(polled, 0)
threading.Thread(target=p.poll, daemon=True).start()
ports = [a.getpeername()[1] for _, a in pairs]
for c, _ in pairs: c.close()
while not any(fd == oneshot.fileno() for fd, _ in E.poll()): pass
import os, time
def asleep():
    return any(open(f'/proc/self/task/{t}/stat').read().split()[2] == 'S' for t in os.listdir('/proc/self/task'))
while not asleep(): time.sleep(0.01)
print(*ports)
input()
";

fn waiters() {
    let mut program = Program::start(WAITERS);
    let ports: Vec<u16> = program.answer().split(' ').map(|port| port.parse().unwrap()).collect();
    let found = findings(&[]);
    assert_eq!(found.len(), 6, "{found:#?}");
    let expected = [
        ("nobody", json!([])),
        ("epoll-level", json!(["IN"])),
        ("epoll-edge", json!(["IN", "ET"])),
        ("epoll-disarmed", json!(["ONESHOT"])),
        ("epoll-not-reading", json!(["OUT"])),
        ("polled", json!([])),
    ];
    for (port, (waiting, events)) in ports.iter().zip(expected) {
        let finding = found.iter().find(|f| f["remote"]["port"] == *port).unwrap();
        let waiters = &finding["evidence"]["waiters"];
        assert_eq!(waiters["waiting"], waiting, "{finding:#}");
        assert_eq!(waiters["epoll_events"], events, "{finding:#}");
        assert_eq!(finding["verdict"], "not-reading");
    }
    program.kill();
}

/// A thread that writes to a peer which has closed its side and does not read.
const WRITER: &str = "
import os, socket, threading, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
c.shutdown(socket.SHUT_WR)
a.recv(1)
threading.Thread(target=lambda: a.sendall(bytes(50_000_000)), daemon=True).start()
def waits():
    return any('wait_woken' in open(f'/proc/self/task/{t}/wchan').read() or
               'sk_stream' in open(f'/proc/self/task/{t}/wchan').read() for t in os.listdir('/proc/self/task'))
while not waits(): time.sleep(0.01)
print('blocked')
input()
";

fn blocked_writer() {
    let mut program = Program::start(WRITER);
    assert_eq!(program.answer(), "blocked");
    let found = findings(&[]);
    let finding = &found[0];
    assert_eq!((found.len(), &finding["verdict"]), (1, &json!("write-blocked")), "{found:#?}");
    let waiters = &finding["evidence"]["waiters"];
    assert_eq!((&waiters["blocked"], &waiters["blocked_pid"]), (&json!(1), &json!(program.pid())));
    assert!(finding["unsent"].as_u64().unwrap() > 0);
    assert!(finding["summary"].as_str().unwrap().contains("thread is blocked"), "{finding:#}");
    let output = Command::new("ss").args(["-Htno", "state", "close-wait"]).output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let timer = &finding["evidence"]["tcp"]["timer"];
    let kind = timer["kind"].as_str().unwrap_or_else(|| panic!("no timer, but {theirs}"));
    assert!(theirs.contains(&format!("timer:({kind},")), "{timer}: {theirs}");
    program.kill();
}

fn stopped() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    program.stop();
    let finding = &findings(&[])[0];
    assert_eq!(finding["process"]["stopped"], true, "{finding:#}");
    assert!(finding["summary"].as_str().unwrap().contains("is stopped"), "{finding:#}");
    program.kill();
}

fn process() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let finding = &findings(&[])[0];
    let process = &finding["process"];
    let pid = program.pid();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!((&process["pid"], &process["fds"]), (&json!(pid), &json!(fds)));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(process["fd_limit"].to_string(), limit.split_whitespace().nth(3).unwrap());
    assert_eq!(process["threads"][0]["count"], 1);
    assert_eq!(process["threads"][0]["state"], "S");
    let wait = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
    assert_eq!(process["threads"][0]["wait"], wait);
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroups.contains(process["cgroup_path"].as_str().unwrap()), "{process}");
    program.kill();
}

fn namespace_name() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    // `ip netns attach` names the namespace of a process.
    let name = format!("tcpwatch-test-{}", program.pid());
    let ip = |what: &str| {
        let pid = program.pid().to_string();
        let args: &[&str] =
            if what == "attach" { &["netns", what, &name, &pid] } else { &["netns", what, &name] };
        Command::new("ip").args(args).status().unwrap().success()
    };
    assert!(ip("attach"));
    let named = findings(&[])[0]["netns_name"].clone();
    assert!(ip("delete"));
    assert_eq!(named, name);
    let unnamed = findings(&[])[0]["netns_name"].as_str().unwrap().to_owned();
    assert!(unnamed.contains('['), "a process stands for it: {unnamed}");
    program.kill();
}

/// Both ends in `CLOSE_WAIT`-like positions: a client whose server has closed, and the reverse.
fn roles() {
    let listener = listen(Kind::V4);
    let (client, server) = pair(Kind::V4, &listener);
    drop(server);
    let (other, accepted) = pair(Kind::V4, &listener);
    drop(other);
    // Without the listener nothing but the counters tells who connected.
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let found = findings(&[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    for finding in &found {
        let expected = if finding["remote"]["port"] == port { "client" } else { "server" };
        assert_eq!(finding["role"], expected, "{finding:#}");
    }
    drop((client, accepted));
}

/// The peer closes, then the server forks, and its parent closes its own copy.
const FORK: &str = "
import os, socket, sys, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
c.close()
a.recv(1)
time.sleep(0.1)
r, w = os.pipe()
child = os.fork()
if child == 0:
    s.close()
    os.write(w, b'1')
    sys.stdin.read()
    os._exit(0)
os.read(r, 1)
a.close()
print(child)
input()
";

fn younger_child() {
    let mut program = Program::start(FORK);
    let child: u32 = program.answer().parse().unwrap();
    let finding = &findings(&[])[0];
    assert_eq!(finding["verdict"], "inherited", "{finding:#}");
    assert_eq!(finding["holders"][0]["pid"], child);
    assert_eq!(finding["holders"].as_array().unwrap().len(), 1);
    program.kill();
}

/// One server keeps every connection whose peer has closed, another as many as it closes.
const GROWING: &str = "
import collections, socket, threading
leaky, pool = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
kept, pooled = [], collections.deque()
def leave(s):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
    return a
for _ in range(4): pooled.append(leave(pool))
stop = threading.Event()
def work():
    while not stop.wait(0.4):
        kept.append(leave(leaky))
        pooled.append(leave(pool)); pooled.popleft().close()
kept.append(leave(leaky))
threading.Thread(target=work, daemon=True).start()
print(leaky.getsockname()[1], pool.getsockname()[1])
input()
";

fn growth() {
    let mut program = Program::start(GROWING);
    let answer = program.answer();
    let (leaky, pool) = answer.split_once(' ').unwrap();
    let culprits = lines(&["--watch", "11s", "--linger", "0s"], "culprit");
    let culprit = |port: &str| {
        let end = format!("127.0.0.1:{port}");
        culprits.iter().find(|line| line["end"] == end).unwrap()
    };
    let growing = culprit(leaky);
    let rate = growing["growth_per_minute"].as_f64().unwrap();
    assert!((100.0..200.0).contains(&rate), "150 per minute were made: {growing}");
    let left = growing["fd_limit"].as_f64().unwrap() - growing["fds"].as_f64().unwrap();
    let minutes = growing["reaches_limit_in_ns"].as_f64().unwrap() / 60e9;
    assert!((minutes / (left / rate) - 1.0).abs() < 0.05, "{growing}");
    let steady = culprit(pool);
    assert_eq!(steady["growth_per_minute"], Value::Null, "{steady}");
    assert!((3..=6).contains(&steady["count"].as_u64().unwrap()), "{steady}");
    program.kill();
}

/// A connection with some history and keepalive on.
const HISTORY: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
c.sendall(bytes(3000)); a.recv(100); a.sendall(bytes(500))
c.recv(1000)
c.close()
print('ready')
input()
";

/// What `ss` calls it, and where we have it; a number may differ by what a jiffy rounds.
const SAME: [(&str, &str); 24] = [
    ("rto", "/evidence/tcp/rto_ms"),
    ("mss", "/evidence/tcp/mss"),
    ("pmtu", "/evidence/tcp/pmtu"),
    ("rcvmss", "/evidence/tcp/rcv_mss"),
    ("advmss", "/evidence/tcp/advmss"),
    ("cwnd", "/evidence/tcp/cwnd"),
    ("bytes_sent", "/evidence/tcp/bytes_sent"),
    ("bytes_acked", "/evidence/bytes_acked"),
    ("bytes_received", "/evidence/bytes_received"),
    ("segs_out", "/evidence/tcp/segs_out"),
    ("segs_in", "/evidence/tcp/segs_in"),
    ("data_segs_out", "/evidence/tcp/data_segs_out"),
    ("data_segs_in", "/evidence/tcp/data_segs_in"),
    ("delivered", "/evidence/tcp/delivered"),
    ("rcv_space", "/evidence/tcp/rcv_space"),
    ("rcv_ssthresh", "/evidence/tcp/rcv_ssthresh"),
    ("snd_wnd", "/evidence/send_window"),
    ("ino", "/inode"),
    ("ssthresh", "/evidence/tcp/ssthresh"),
    ("reordering", "/evidence/tcp/reordering"),
    ("lost", "/evidence/tcp/lost"),
    ("sacked", "/evidence/tcp/sacked"),
    ("bytes_retrans", "/evidence/tcp/bytes_retrans"),
    ("rcv_wnd", "/evidence/tcp/rcv_wnd"),
];

fn what_ss_shows() {
    let mut program = Program::start(HISTORY);
    assert_eq!(program.answer(), "ready");
    let finding = &findings(&[])[0];
    let output = Command::new("ss").args(["-HtanpoieO", "state", "close-wait"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs = |name: &str| {
        text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
    };
    let mut compared = 0;
    for (name, place) in SAME {
        let ours = finding.pointer(place).unwrap_or_else(|| panic!("no {place}: {finding:#}"));
        if let Some(theirs) = theirs(name) {
            assert_eq!(ours.to_string(), theirs, "{name}: {text} {finding:#}");
            compared += 1;
        }
    }
    assert!(compared >= 18, "ss shows only {compared} of them: {text}");
    let columns: Vec<_> = text.split_whitespace().collect();
    assert_eq!(columns[0], finding["unread"].to_string());
    assert_eq!(columns[1], finding["unsent"].to_string());
    let cookie = format!("{:x}", finding["cookie"].as_u64().unwrap());
    assert_eq!(theirs("sk").unwrap(), cookie);
    let holder = &finding["holders"][0];
    assert!(text.contains(&format!("pid={},fd={}", holder["pid"], holder["fd"])), "{text}");
    let timer = &finding["evidence"]["tcp"]["timer"];
    assert_eq!((&timer["kind"], &timer["retries"]), (&json!("keepalive"), &json!(0)));
    assert!(theirs("timer").unwrap().starts_with("(keepalive,"), "{text}");
    let congestion = finding["evidence"]["tcp"]["congestion"].as_str().unwrap();
    assert!(columns.contains(&congestion), "{text}");
    program.kill();
}

/// Twenty connections whose peers have closed; told to, reads them all, then closes all but five.
const CHANGING: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
kept = []
for _ in range(20):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
    kept.append(a)
print('ready')
input()
for a in kept: a.recv(1)
print('read')
input()
for a in kept[5:]: a.close()
print('closed')
input()
";

fn at_the_end() {
    let mut program = Program::start(CHANGING);
    assert_eq!(program.answer(), "ready");
    let culprits = std::thread::scope(|scope| {
        let own = namespace();
        let watch = scope.spawn(move || {
            let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
                .args(["leaks", "-j", "--watch", "10s", "-N", &own])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        // In the time that is watched: the looks are a second apart.
        std::thread::sleep(std::time::Duration::from_secs(4));
        assert_eq!(program.tell(""), "read");
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert_eq!(program.tell(""), "closed");
        watch.join().unwrap()
    });
    let culprits: Vec<Value> = culprits
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["type"] == "culprit")
        .collect();
    assert_eq!(culprits.len(), 1, "{culprits:#?}");
    assert_eq!((&culprits[0]["count"], &culprits[0]["verdict"]), (&json!(5), &json!("not-closed")));
    program.kill();
}

/// A server that leaks one connection and, all the while, starts programs one after the other.
const SPAWNER: &str = "
import os, socket, threading, time
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
def spawn():
    while True:
        child = os.fork()
        if child == 0:
            time.sleep(0.05)
            os.execv('/bin/true', ['true'])
        os.waitpid(child, 0)
threading.Thread(target=spawn, daemon=True).start()
time.sleep(0.6)
print('spawning')
input()
";

fn spawner() {
    let mut program = Program::start(SPAWNER);
    assert_eq!(program.answer(), "spawning");
    for _ in 0..5 {
        let finding = &findings(&["--linger", "0s"])[0];
        assert_eq!(finding["verdict"], "not-reading", "{finding:#}");
        assert_eq!(finding["owner"]["pid"], program.pid());
        assert_eq!(finding["holders"].as_array().unwrap().len(), 1, "{finding:#}");
    }
    program.kill();
}
