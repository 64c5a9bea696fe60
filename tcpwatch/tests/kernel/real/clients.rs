//! Clients that keep what their server has closed.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use super::{
    FLAGS, Lighttpd, PYTHON, all_ended, all_owned_by, all_say, ended, leaks, opened, ss, stop,
};
use crate::{
    peers::{Kind, Program, listen, reset},
    watch::Watch,
};

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

pub(super) fn httpx_pool() {
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

pub(super) fn child() {
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

pub(super) fn keep_alive() {
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

/// Gets an error from a connection and keeps it all the same.
const CARELESS: &str = "
import socket
connection = socket.create_connection(('127.0.0.1', int(input())))
print('connected')
try:
    connection.recv(1)
except ConnectionResetError:
    print('reset')
input()
";

pub(super) fn read_the_reset() {
    let listener = listen(Kind::V4);
    let mut client = Program::start_with(PYTHON, CARELESS);
    let port = listener.local_addr().unwrap().port();
    assert_eq!(client.tell(&port.to_string()), "connected");
    reset(listener.accept().unwrap().0);
    assert_eq!(client.answer(), "reset");
    let findings = leaks();
    assert_eq!(findings.len(), 1);
    all_say(&findings, &json!({"verdict": "dead-fd"}));
    let summary = findings[0]["summary"].as_str().unwrap();
    assert!(!summary.contains("both sides closed it"), "{summary}");
    client.kill();
}
