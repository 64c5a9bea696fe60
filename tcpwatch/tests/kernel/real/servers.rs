//! Servers that do not accept, read or close.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
};

use serde_json::{Value, json};

use super::{
    FLAGS, PYTHON, REQUEST, all_ended, all_owned_by, all_say, connect,
    daemon::{Daemon, free_port},
    ended, leaks, opened, ss, stop,
};
use crate::{leaks::lines, peers::Program, watch::Watch};

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

/// The main loop reads a connection until a request is complete, and no further before that is
/// answered. So it notices the end of an idle client, and of no other: not of those that a thread
/// works for, nor of those in the queue.
pub(super) fn waitress() {
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
    // The answers are met with resets, so all that is left to close is the fds; unless a reset comes
    // so late, as it may on a busy host, that the end of the connection is read before it.
    let by = json!({"pid": server.pid(), "comm": "python3"});
    let ways = [json!({"how": "reset", "by": null}), json!({"how": "closed", "by": by})];
    for finding in ended(&mut watch, CLIENTS) {
        assert!(ways.contains(&finding["ended"]), "{finding:#}");
    }
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
pub(super) fn backlog() {
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
pub(super) fn memcached() {
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
pub(super) fn socat() {
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

/// Without `-l` memcached has two listeners on its port, one per family.
pub(super) fn both_families() {
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

pub(super) fn worker() {
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
