//! Programs that people run, in the situations that people have with them: what tcpwatch says
//! from its command line to its JSON, held against `ss` and `/proc`.
//!
//! Servers and clients are those of Debian packages; each test names what it needs and shows as
//! ignored without it. Where a program only has to be badly written, it is a few lines of Python.

mod daemon;
mod ss;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tcpwatch::kernel::clock;

use self::daemon::{Daemon, free_port};
use crate::{
    Test,
    leaks::lines,
    peers::{Kind, Program, listen, read_to_end, reset},
    watch::{Done, Watch},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("real_httpx_pool_that_its_server_closed", httpx_pool)
            .needs_module("httpx")
            .needs("lighttpd"),
        Test::new("real_waitress_with_blocked_threads", waitress).needs_module("waitress"),
        Test::new("real_server_that_stopped_accepting", backlog).needs(PYTHON),
        Test::new("real_memcached_that_stands_still", memcached).needs("memcached"),
        Test::new("real_socat_that_goes_on_sending", socat).needs("socat"),
        Test::new("real_child_that_inherited_a_connection", child).needs(PYTHON),
        Test::new("real_keep_alive_client_that_was_reset", keep_alive).needs(PYTHON),
        Test::new("real_lighttpd_under_load", load).needs("lighttpd"),
        Test::new("real_memcached_on_both_families", both_families).needs("memcached"),
        Test::new("real_worker_that_stopped_accepting", worker).needs(PYTHON),
        Test::new("real_client_that_read_the_reset", read_the_reset).needs(PYTHON),
    ]
}

/// The python that Debian's modules are for.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Findings alone, soon.
const FLAGS: [&str; 3] = ["-q", "--linger", "1s"];

/// One look at this namespace.
fn leaks() -> Vec<Value> {
    lines(&[], "finding")
}

/// Waits for this many findings.
fn opened(watch: &mut Watch, count: usize) -> Vec<Value> {
    (0..count).map(|_| watch.finding("open")).collect()
}

/// Waits for the end of this many findings.
fn ended(watch: &mut Watch, count: usize) -> Vec<Value> {
    (0..count).map(|_| watch.finding("ended")).collect()
}

/// Ends a run that must have made exactly so many findings, lost nothing and warned of nothing.
fn stop(watch: Watch, findings: usize) -> Done {
    let done = watch.stop();
    let open = done.of("finding").iter().filter(|finding| finding["status"] == "open").count();
    assert_eq!(open, findings, "{:#?}", done.lines);
    assert_eq!(done.summary()["findings"], findings);
    assert_eq!(done.summary()["lost"], 0);
    assert_eq!(done.stderr, "");
    done
}

/// Every finding says the same of these.
fn all_say(findings: &[Value], expected: &Value) {
    for finding in findings {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&finding[name], value, "{name} of {finding:#}");
        }
    }
}

/// Every finding names this process as the owner.
fn all_owned_by(findings: &[Value], pid: u32, comm: &str) {
    for finding in findings {
        let owner = &finding["owner"];
        assert_eq!((&owner["pid"], &owner["comm"]), (&json!(pid), &json!(comm)), "{finding:#}");
    }
}

/// Every finding ended so, by this process.
fn all_ended(findings: &[Value], how: &str, by: &Value) {
    for finding in findings {
        assert_eq!(finding["ended"], json!({ "how": how, "by": by }), "{finding:#}");
    }
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// lighttpd with one small file.
struct Lighttpd {
    daemon: Daemon,
    _files: tempfile::TempDir,
}

impl Lighttpd {
    /// One that closes connections that are idle for so many seconds.
    fn start(idle: u32) -> Self {
        let files = tempfile::tempdir().unwrap();
        let port = free_port();
        let root = files.path().display();
        let text = format!(
            "server.document-root = \"{root}\"\n\
             server.bind = \"127.0.0.1\"\n\
             server.port = {port}\n\
             server.max-keep-alive-idle = {idle}\n\
             server.max-keep-alive-requests = 100\n\
             index-file.names = ( \"index.html\" )\n"
        );
        let config = files.path().join("lighttpd.conf");
        std::fs::write(&config, text).unwrap();
        std::fs::write(files.path().join("index.html"), "hello\n").unwrap();
        let daemon = Daemon::start(port, &["lighttpd", "-D", "-f", config.to_str().unwrap()]);
        Self { daemon, _files: files }
    }
}

/// Opens connections through a pool, gives them back, and uses the pool again when told.
const POOL: &str = "
import httpx
client = httpx.Client(trust_env=False, verify=False)
url, connections = input().split()
responses = [client.send(client.build_request('GET', url), stream=True)
             for _ in range(int(connections))]
for response in responses:
    response.read()
print('pooled')
input()
client.get(url)
print('used again')
input()
client.close()
print('closed')
";

fn httpx_pool() {
    const CONNECTIONS: usize = 5;
    let server = Lighttpd::start(1);
    let mut watch = Watch::start(&FLAGS);
    let mut pool = Program::start_with(PYTHON, POOL);
    let order = format!("http://127.0.0.1:{}/ {CONNECTIONS}", server.daemon.port);
    assert_eq!(pool.tell(&order), "pooled");
    let truth = ss::until("close-wait", CONNECTIONS);
    let findings = opened(&mut watch, CONNECTIONS);
    assert_eq!(ss::of_findings(&findings), truth);
    all_owned_by(&findings, pool.pid(), "python3");
    let expected = json!({"verdict": "not-reading", "state": "CLOSE_WAIT", "unread": 1});
    all_say(&findings, &expected);
    all_say(&findings, &json!({"role": "client"}));
    assert!(findings.iter().all(|finding| finding["remote"]["port"] == server.daemon.port));
    assert!(findings.iter().all(|finding| finding["owner"]["how"] == "connect"));
    let look = leaks();
    assert_eq!(ss::of_findings(&look), truth);
    all_owned_by(&look, pool.pid(), "python3");
    all_say(&look, &expected);
    assert_eq!(pool.tell(""), "used again");
    ss::until("close-wait", 0);
    assert_eq!(pool.tell(""), "closed");
    let by = json!({"pid": pool.pid(), "comm": "python3"});
    all_ended(&ended(&mut watch, CONNECTIONS), "closed", &by);
    stop(watch, CONNECTIONS);
}

/// Two threads, and an application that does not answer before it is told to.
const WAITRESS: &str = "
import logging, sys, threading, waitress
logging.disable()
go = threading.Event()
def app(environ, start_response):
    go.wait()
    start_response('200 OK', [('Content-Length', '3')])
    return [b'ok\\n']
server = waitress.create_server(app, host='127.0.0.1', port=0, threads=2)
threading.Thread(target=server.run, daemon=True).start()
print(server.effective_port)
sys.stdin.readline()
go.set()
print('going')
sys.stdin.readline()
";

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The main loop reads a connection until a request is complete, and no further before that is
/// answered. So it notices the end of an idle client, and of no other: not of those that a thread
/// works for, nor of those in the queue.
fn waitress() {
    const CLIENTS: usize = 5;
    let mut server = Program::start_with(PYTHON, WAITRESS);
    let port: u16 = server.answer().parse().unwrap();
    let mut watch = Watch::start(&FLAGS);
    let idle = connect(port);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(port)).collect();
    for client in &mut clients {
        client.write_all(REQUEST.as_bytes()).unwrap();
    }
    ss::eventually("requests are unread", || has_read(port, CLIENTS + 1).then_some(()));
    clients[0].write_all(b"0123456789").unwrap();
    drop((idle, clients));
    let truth = ss::until("close-wait", CLIENTS);
    let findings = opened(&mut watch, CLIENTS);
    for findings in [findings, leaks()] {
        assert_eq!(ss::of_findings(&findings), truth);
        all_owned_by(&findings, server.pid(), "python3");
        let expected = json!({"verdict": "not-reading", "role": "server", "state": "CLOSE_WAIT"});
        all_say(&findings, &expected);
        let mut unread: Vec<_> =
            findings.iter().map(|finding| finding["unread"].as_u64().unwrap()).collect();
        unread.sort_unstable();
        assert_eq!(unread, [1, 1, 1, 1, 11], "a FIN counts as one");
    }
    assert_eq!(server.tell(""), "going");
    // The answers are met with resets, so all that is left to close is the fds.
    all_ended(&ended(&mut watch, CLIENTS), "reset", &Value::Null);
    stop(watch, CLIENTS);
}

/// Whether a server has accepted this many connections and read what came.
fn has_read(port: u16, connections: usize) -> bool {
    let of_server: Vec<_> =
        ss::sockets("established").into_iter().filter(|seen| seen["local"] == port).collect();
    of_server.len() == connections
        && of_server.iter().all(|seen| seen["unread"] == 0 && seen["holders"] != json!([]))
}

/// Accepts one connection, and no more.
const STOPPED: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', 0), backlog=4)
print(listener.getsockname()[1])
served = listener.accept()
print('accepted')
sys.stdin.readline()
";

/// A backlog of 4 takes 5 connections; the next handshake gets no answer.
fn backlog() {
    const WAITING: usize = 5;
    let mut server = Program::start_with(PYTHON, STOPPED);
    let port: u16 = server.answer().parse().unwrap();
    let mut watch = Watch::start(&FLAGS);
    let first = connect(port);
    assert_eq!(server.answer(), "accepted");
    let mut clients: Vec<_> = (0..WAITING).map(|_| connect(port)).collect();
    let in_vain = connect_in_vain(port);
    ss::until("syn-sent", 1);
    clients[0].write_all(b"hello").unwrap();
    drop(clients);
    let truth = ss::until("close-wait", WAITING);
    let listener = ss::listener(port).unwrap();
    assert_eq!((&listener["queue_len"], &listener["queue_limit"]), (&json!(5), &json!(4)));
    let findings = opened(&mut watch, WAITING);
    for findings in [findings, leaks()] {
        assert_eq!(ss::of_findings(&findings), truth);
        all_say(&findings, &json!({"verdict": "never-accepted", "role": "server", "holders": []}));
        assert!(findings.iter().all(|finding| ss::of_listener(finding) == listener));
        assert_eq!(listener["holders"][0]["pid"], server.pid());
        let of_server =
            |finding: &Value| finding["owner"].is_null() || finding["owner"]["pid"] == server.pid();
        assert!(findings.iter().all(of_server), "{findings:#?}");
    }
    server.kill();
    all_ended(&ended(&mut watch, WAITING), "listener-closed", &Value::Null);
    drop((first, in_vain));
    stop(watch, WAITING);
}

/// A client whose handshake is not answered.
fn connect_in_vain(port: u16) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let error = socket.connect(&addr.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    socket
}

/// Clients that memcached has served, and then some that come while it stands still. None sends a
/// request that it would answer later: the answer would be met with a reset.
fn memcached() {
    const SERVED: usize = 3;
    const WAITING: usize = 2;
    let port = free_port();
    let (at, none) = (port.to_string(), "0");
    let command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", &at, "-U", none, "-t", "2"];
    let server = Daemon::start(port, &command);
    let mut watch = Watch::start(&FLAGS);
    let mut clients: Vec<_> = (0..SERVED).map(|_| served_by_memcached(port)).collect();
    server.stop();
    clients[0].write_all(b"get ").unwrap();
    clients.extend((0..WAITING).map(|_| connect(port)));
    drop(clients);
    let truth = ss::until("close-wait", SERVED + WAITING);
    let listener = ss::listener(port).unwrap();
    let findings = opened(&mut watch, SERVED + WAITING);
    let of_server = lines(&["-p", &server.pid().to_string()], "finding");
    for findings in [findings, leaks(), of_server] {
        assert_eq!(ss::of_findings(&findings), truth);
        all_say(&findings, &json!({"role": "server", "state": "CLOSE_WAIT"}));
        let (waiting, accepted): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding["holders"] == json!([]));
        assert_eq!((accepted.len(), waiting.len()), (SERVED, WAITING));
        all_say(&accepted, &json!({"verdict": "not-reading"}));
        all_owned_by(&accepted, server.pid(), "memcached");
        all_say(&waiting, &json!({"verdict": "never-accepted"}));
        assert!(waiting.iter().all(|finding| ss::of_listener(finding) == listener));
        assert_eq!(listener["holders"][0]["comm"], "memcached");
    }
    server.go_on();
    let by = json!({"pid": server.pid(), "comm": "memcached"});
    all_ended(&ended(&mut watch, SERVED + WAITING), "closed", &by);
    stop(watch, SERVED + WAITING);
}

/// A client that has had an answer, so that its connection is a worker's.
fn served_by_memcached(port: u16) -> TcpStream {
    let mut client = connect(port);
    client.write_all(b"version\r\n").unwrap();
    let mut answer = [0; 64];
    let read = client.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"VERSION"));
    client
}

/// The client has nothing more to say and listens on. socat closes its listener once it has a
/// connection, so one look cannot tell who connected.
fn socat() {
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1");
    let talk = "SYSTEM:while echo tick; do sleep 0.1; done";
    let server = Daemon::start(port, &["socat", "-t", "60", &listen, talk]);
    let silent = Watch::start(&FLAGS);
    let mut watch = Watch::start(&[&FLAGS[..], &["--include-half-open"]].concat());
    let client = connect(port);
    let mut reader = client.try_clone().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let reading = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    let live = opened(&mut watch, 1);
    // The process that runs the shell has a copy, which is not in the way of the verdict.
    let truth = ss::until("close-wait", 1);
    assert_eq!(truth[0]["holders"].as_array().unwrap().len(), 2);
    assert_eq!(leaks(), Vec::<Value>::new());
    let look = lines(&["--include-half-open"], "finding");
    stop(silent, 0);
    for findings in [&live, &look] {
        assert_eq!(ss::of_findings(findings), truth);
        all_say(findings, &json!({"verdict": "half-open-in-use", "state": "CLOSE_WAIT"}));
        all_owned_by(findings, server.pid(), "socat");
    }
    all_say(&live, &json!({"role": "server"}));
    client.shutdown(Shutdown::Both).unwrap();
    drop(client);
    let _ = reading.join().unwrap();
    ended(&mut watch, 1);
    stop(watch, 1);
}

/// A connection that a child gets by mistake; the parent closes its own.
const PARENT: &str = "
import socket, subprocess
connection = socket.create_connection(('127.0.0.1', int(input())))
child = subprocess.Popen(['cat'], stdin=subprocess.PIPE, pass_fds=[connection.fileno()])
print(child.pid)
input()
connection.close()
print('closed')
input()
child.stdin.close()
child.wait()
print('gone')
";

fn child() {
    let mut watch = Watch::start(&FLAGS);
    let listener = listen(Kind::V4);
    let mut parent = Program::start_with(PYTHON, PARENT);
    let port = listener.local_addr().unwrap().port();
    let cat: u32 = parent.tell(&port.to_string()).parse().unwrap();
    drop(listener.accept().unwrap());
    let both = ss::until("close-wait", 1);
    assert_eq!(both[0]["holders"].as_array().unwrap().len(), 2);
    let findings = opened(&mut watch, 1);
    for findings in [&findings, &leaks()] {
        assert_eq!(ss::of_findings(findings), both);
        all_say(findings, &json!({"verdict": "inherited", "role": "client"}));
    }
    all_owned_by(&findings, parent.pid(), "python3");
    assert_eq!(parent.tell(""), "closed");
    let alone = ss::until("close-wait", 1);
    assert_eq!(alone[0]["holders"].as_array().unwrap().len(), 1);
    let still =
        watch.until("one holder", |f| f["holders"].as_array().is_some_and(|h| h.len() == 1));
    let still = [still];
    assert_eq!(ss::of_findings(&still), alone);
    all_say(&still, &json!({"verdict": "inherited", "status": "still", "role": "client"}));
    all_owned_by(&still, cat, "cat");
    let look = leaks();
    assert_eq!(ss::of_findings(&look), alone);
    all_owned_by(&look, cat, "cat");
    assert_eq!(parent.tell(""), "gone");
    all_ended(&ended(&mut watch, 1), "exited", &json!({"pid": cat, "comm": "cat"}));
    stop(watch, 1);
}

/// Keeps connections for later requests and never looks at them again.
const KEEP_ALIVE: &str = "
import http.client
port, count = map(int, input().split())
kept = []
for _ in range(count):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    connection.request('GET', '/')
    connection.getresponse().read()
    kept.append(connection)
print(*(c.sock.getsockname()[1] for c in kept))
print(*(c.sock.fileno() for c in kept))
input()
for connection in kept:
    connection.close()
print('closed')
";

fn keep_alive() {
    const CONNECTIONS: usize = 3;
    let listener = listen(Kind::V4);
    let port = listener.local_addr().unwrap().port();
    let mut watch = Watch::start(&FLAGS);
    let mut client = Program::start_with(PYTHON, KEEP_ALIVE);
    client.order(&format!("{port} {CONNECTIONS}"));
    let served: Vec<_> = (0..CONNECTIONS).map(|_| serve_once(&listener)).collect();
    let ports = numbers(&client.answer());
    let fds = numbers(&client.answer());
    served.into_iter().for_each(reset);
    ss::until("connected", 0);
    let mut late = Watch::start(&FLAGS);
    let (live, seeded) = (opened(&mut watch, CONNECTIONS), opened(&mut late, CONNECTIONS));
    all_say(&live, &json!({"role": "client", "linger_at_least": false}));
    for findings in [live, seeded, leaks()] {
        let expected = json!({"verdict": "dead-fd", "state": "CLOSE", "unread": 0});
        all_say(&findings, &expected);
        all_owned_by(&findings, client.pid(), "python3");
        let holder = |fd| json!([{"pid": client.pid(), "comm": "python3", "fd": fd}]);
        let mut expected: Vec<_> = std::iter::zip(&ports, &fds)
            .map(|(local, fd)| (json!(local), json!(port), holder(fd)))
            .collect();
        let mut found: Vec<_> = findings
            .iter()
            .map(|f| {
                (f["local"]["port"].clone(), f["remote"]["port"].clone(), f["holders"].clone())
            })
            .collect();
        expected.sort_by_key(|(local, ..)| local.to_string());
        found.sort_by_key(|(local, ..)| local.to_string());
        assert_eq!(found, expected);
        let told = |f: &Value| f["summary"].as_str().unwrap().contains("reset by the peer");
        assert!(findings.iter().all(told), "{findings:#?}");
    }
    assert_eq!(client.tell(""), "closed");
    for mut watch in [watch, late] {
        all_ended(&ended(&mut watch, CONNECTIONS), "fd-closed", &Value::Null);
        stop(watch, CONNECTIONS);
    }
}

fn numbers(line: &str) -> Vec<u32> {
    line.split(' ').map(|word| word.parse().unwrap()).collect()
}

/// Answers one request and keeps the connection.
fn serve_once(listener: &std::net::TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    stream
}

/// Nothing lingers here, however busy it is.
fn load() {
    const LASTS: u64 = 10_000_000_000;
    let server = Lighttpd::start(5);
    let port = server.daemon.port;
    let watch = Watch::start(&FLAGS);
    let until = clock::now().0 + LASTS;
    let answers = AtomicU64::new(0);
    let clients: [fn(u16) -> u64; 4] = [short, kept, half_closed, aborted];
    std::thread::scope(|scope| {
        for client in clients {
            let answers = &answers;
            scope.spawn(move || {
                while clock::now().0 < until {
                    answers.fetch_add(client(port), Ordering::Relaxed);
                }
            });
        }
    });
    let answers = answers.into_inner();
    assert!(answers > 5_000, "that was no load: {answers} answers");
    let done = stop(watch, 0);
    assert_eq!(done.lines.len(), 1, "the summary alone: {:#?}", done.lines);
}

/// The server closes after its answer.
fn short(port: u16) -> u64 {
    let mut client = connect(port);
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    read_to_end(&mut client);
    1
}

/// The client closes after many answers.
fn kept(port: u16) -> u64 {
    const REQUESTS: u64 = 50;
    let mut client = connect(port);
    for _ in 0..REQUESTS {
        ask(&mut client);
        std::thread::sleep(Duration::from_millis(1));
    }
    REQUESTS
}

/// The client has nothing more to say after its request.
fn half_closed(port: u16) -> u64 {
    let mut client = connect(port);
    client.write_all(REQUEST.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut client);
    1
}

/// The client resets the connection after an answer.
fn aborted(port: u16) -> u64 {
    let mut client = connect(port);
    ask(&mut client);
    reset(client);
    1
}

fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello\n") {
        let mut block = [0; 1024];
        let read = client.read(&mut block).unwrap();
        assert_ne!(read, 0, "the server closed early");
        answer.extend(&block[..read]);
    }
}

/// Without `-l` memcached has two listeners on its port, one per family.
fn both_families() {
    let port = free_port();
    let at = port.to_string();
    let server = Daemon::start(port, &["memcached", "-u", "root", "-p", &at, "-U", "0"]);
    server.stop();
    for _ in 0..3 {
        drop(connect(port));
    }
    drop(TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).unwrap());
    ss::until("close-wait", 4);
    let findings = leaks();
    assert_eq!(findings.len(), 4);
    for finding in findings {
        let (addr, queue) = if finding["family"] == 4 { ("0.0.0.0", 3) } else { ("::", 1) };
        let listener = &finding["listener"];
        assert_eq!(
            (&listener["local"]["addr"], &listener["queue_len"]),
            (&json!(addr), &json!(queue)),
            "{finding:#}"
        );
    }
}

/// Three workers with a listener each on the same port; one of them accepts nothing.
const WORKERS: &str = "
import ctypes, os, signal, socket, sys
port, stopped = map(int, input().split())
for worker in range(3):
    ready, tell = os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: end with the parent
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(('127.0.0.1', port))
        listener.listen(100)
        os.write(tell, b'x')
        while worker == stopped:
            signal.pause()
        while True:
            listener.accept()[0].close()
    os.read(ready, 1)
print('listening')
sys.stdin.readline()
";

fn worker() {
    const CLIENTS: usize = 40;
    for stopped in 0..3 {
        let port = free_port();
        let mut server = Program::start_with(PYTHON, WORKERS);
        assert_eq!(server.tell(&format!("{port} {stopped}")), "listening");
        (0..CLIENTS).for_each(|_| drop(connect(port)));
        let listener = ss::eventually("more than one does not accept", || {
            let mut busy = ss::listeners(port);
            busy.retain(|listener| listener["queue_len"] != 0);
            let waiting = ss::sockets("close-wait").len();
            busy.pop().filter(|one| busy.is_empty() && one["queue_len"] == waiting)
        });
        let findings = leaks();
        assert_eq!(listener["queue_len"], findings.len());
        for finding in findings {
            assert_eq!(ss::of_listener(&finding), listener, "{finding:#}");
        }
        server.kill();
        ss::until("close-wait", 0);
    }
}

/// Gets an error from a connection and keeps it all the same.
const CARELESS: &str = "
import socket
connection = socket.create_connection(('127.0.0.1', int(input())))
try:
    connection.recv(1)
except ConnectionResetError:
    print('reset')
input()
";

fn read_the_reset() {
    let listener = listen(Kind::V4);
    let mut client = Program::start_with(PYTHON, CARELESS);
    client.order(&listener.local_addr().unwrap().port().to_string());
    reset(listener.accept().unwrap().0);
    assert_eq!(client.answer(), "reset");
    let findings = leaks();
    assert_eq!(findings.len(), 1);
    all_say(&findings, &json!({"verdict": "dead-fd"}));
    let summary = findings[0]["summary"].as_str().unwrap();
    assert!(!summary.contains("both sides closed it"), "{summary}");
    client.kill();
}
