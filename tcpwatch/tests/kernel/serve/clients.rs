//! Clients, good and bad.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::Value;

use super::agent::Agent;
use crate::peers::{Kind, listen, pair};

pub(super) fn paths() {
    let agent = Agent::start(&[]);
    let kind = |path: &str| {
        let answer = agent.get(path);
        let kind = answer.head.lines().find_map(|line| line.strip_prefix("content-type: "));
        (answer.status, kind.unwrap_or_default().to_owned())
    };
    assert_eq!(kind("/metrics"), (200, "text/plain; version=0.0.4; charset=utf-8".to_owned()));
    assert_eq!(kind("/findings"), (200, "application/json".to_owned()));
    assert_eq!(kind("/"), (200, "text/html; charset=utf-8".to_owned()));
    assert_eq!(agent.get("/healthz").body, "alive\n");
    assert_eq!(agent.get("/metrics?x=1").status, 200);
    for path in ["/metric", "/metrics/", "//", "/..%2fetc/passwd", "/healthz/x"] {
        assert_eq!(agent.get(path).status, 404, "{path}");
    }
    let request = |line: &str, more: &str| {
        agent.ask(&format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n"))
    };
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = request(&format!("{method} /metrics"), "Content-Length: 0\r\n");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    let head = request("HEAD /metrics", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let open = request("GET /metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"));
    assert!(!agent.metrics().contains("# EOF"));
    agent.stop();
}

/// More silent clients than there may be connections, and one that asks for much and reads nothing.
pub(super) fn silent() {
    const SILENT: usize = 300;
    let listener = listen(Kind::V4);
    let agent = Agent::start(&["--linger", "100ms"]);
    let pairs: Vec<_> = (0..200).map(|_| pair(Kind::V4, &listener)).collect();
    let servers: Vec<_> = pairs.into_iter().map(|(_, server)| server).collect();
    agent.until("tcpwatch_open_findings{verdict=\"not-reading\"}", 200.0);
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..SILENT {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap(),
            _ => {
                let _ = stream.write_all(&b"GET /findings HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
            }
        }
        slow.push(stream);
        if number % 50 == 0 {
            assert_eq!(agent.get("/readyz").status, 200, "after {number}");
        }
    }
    assert_eq!(agent.get("/metrics").status, 200);
    let answer = agent.ask(
        "GET /findings HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\nConnection: close\r\n\r\n",
    );
    let lines: Vec<Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["type"] == "finding"));
    // What the agent closed and these clients did not is found, too.
    let port = listener.local_addr().unwrap().port();
    assert_eq!(lines.iter().filter(|line| line["local"]["port"] == port).count(), 200);
    assert!(agent.value("process_open_fds").unwrap() < 150.0, "connections are limited");
    drop((slow, servers));
    assert_eq!(agent.stop().status.code(), Some(0));
}

pub(super) fn nonsense() {
    let agent = Agent::start(&[]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        // It may have been refused before all of it was sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(agent.get("/readyz").status, 200);
    assert_eq!(agent.stop().status.code(), Some(0));
}
