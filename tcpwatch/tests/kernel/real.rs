//! Programs that people run, in the situations that people have with them: what tcpwatch says
//! from its command line to its JSON, held against `ss` and `/proc`.
//!
//! Servers and clients are those of Debian packages; each test names what it needs and shows as
//! ignored without it. Where a program only has to be badly written, it is a few lines of Python.

mod clients;
mod daemon;
mod load;
mod servers;
mod ss;

use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

pub(crate) use self::{
    daemon::{Daemon, free_port},
    ss::eventually,
};
use crate::{
    Test,
    leaks::lines,
    watch::{Done, Watch},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("real_httpx_pool_that_its_server_closed", clients::httpx_pool)
            .needs_module("httpx")
            .needs("lighttpd"),
        Test::new("real_waitress_with_blocked_threads", servers::waitress).needs_module("waitress"),
        Test::new("real_server_that_stopped_accepting", servers::backlog).needs(PYTHON),
        Test::new("real_memcached_that_stands_still", servers::memcached).needs("memcached"),
        Test::new("real_socat_that_goes_on_sending", servers::socat).needs("socat"),
        Test::new("real_child_that_inherited_a_connection", clients::child).needs(PYTHON),
        Test::new("real_keep_alive_client_that_was_reset", clients::keep_alive).needs(PYTHON),
        Test::new("real_lighttpd_under_load", load::load).needs("lighttpd"),
        Test::new("real_memcached_on_both_families", servers::both_families).needs("memcached"),
        Test::new("real_worker_that_stopped_accepting", servers::worker).needs(PYTHON),
        Test::new("real_client_that_read_the_reset", clients::read_the_reset).needs(PYTHON),
    ]
}

/// The python that Debian's modules are for.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A request, whole.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

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
    assert_eq!(done.stderr, "");
    let open = done.of("finding").iter().filter(|finding| finding["status"] == "open").count();
    assert_eq!(open, findings, "{:#?}", done.lines);
    assert_eq!(done.summary()["findings"], findings);
    assert_eq!(done.summary()["lost"], 0);
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
