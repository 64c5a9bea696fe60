//! A running agent, and a client that asks it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use super::TERM;
use crate::{
    real::eventually,
    watch::{Done, Watch, namespace},
};

/// Longer than any answer should take.
const PATIENCE: Duration = Duration::from_mins(2);

/// `tcpwatch serve`, ready.
pub(crate) struct Agent {
    watch: Watch,
    pub(super) address: SocketAddr,
    /// Where requests are made from, if not from here.
    elsewhere: Option<std::fs::File>,
}

/// What it answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Agent {
    /// Starts it for this namespace.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    /// The same, but it is in a namespace of its own, so that questions are not among what is counted.
    pub(super) fn start_elsewhere(flags: &[&str]) -> Self {
        let filter = namespace();
        let elsewhere = std::thread::spawn(|| {
            crate::peers::enter_new_namespace();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let elsewhere = elsewhere.join().unwrap();
        Self::start_in(Some(elsewhere), &filter, flags, &[])
    }

    /// The same in a namespace of its own, on the other end of a link from here, and for that namespace.
    pub(super) fn start_next_door(flags: &[&str]) -> Self {
        let (door, filter) = std::thread::spawn(|| {
            crate::peers::enter_new_namespace();
            (std::fs::File::open("/proc/thread-self/ns/net").unwrap(), namespace())
        })
        .join()
        .unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), door.as_raw_fd());
        ip(&["link", "add", "here", "type", "veth", "peer", "name", "there"]);
        ip(&["link", "set", "there", "netns", &path]);
        ip(&["address", "add", "192.0.2.1/30", "dev", "here"]);
        ip(&["link", "set", "here", "up"]);
        within(Some(&door), || {
            ip(&["address", "add", "192.0.2.2/30", "dev", "there"]);
            ip(&["link", "set", "there", "up"]);
        });
        let flags = [&["--insecure"], flags].concat();
        Self::start_at("192.0.2.2:0", Some(door), &filter, &flags, &[])
    }

    /// The same as [`Self::start`], with variables in its environment.
    pub(super) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(None, &namespace(), flags, variables)
    }

    fn start_in(
        elsewhere: Option<std::fs::File>,
        filter: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::start_at("127.0.0.1:0", elsewhere, filter, flags, variables)
    }

    fn start_at(
        listen: &str,
        elsewhere: Option<std::fs::File>,
        filter: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let flags = [&["serve", "--listen", listen, "-N", filter], flags].concat();
        let watch = within(elsewhere.as_ref(), || Watch::start_unattached_with(&flags, variables));
        let said = watch.said("metrics at http://");
        let address = said.split("http://").nth(1).unwrap().trim_end_matches("/metrics");
        let agent = Self { address: address.parse().unwrap(), watch, elsewhere };
        eventually("it is not ready", || (agent.get("/readyz").status == 200).then_some(()));
        agent
    }

    /// Asks for a page.
    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Sends a request as it is.
    pub(super) fn ask(&self, request: &str) -> Answer {
        let address = self.address;
        let text = within(self.elsewhere.as_ref(), || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Answer { status, head: head.to_ascii_lowercase(), body }
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").body
    }

    /// The value of a series.
    pub(super) fn value(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// Waits until a series has this value.
    pub(super) fn until(&self, series: &str, value: f64) {
        let is = |found: f64| (found - value).abs() < 1e-9;
        eventually(&format!("{series} does not become {value}"), || {
            self.value(series).is_some_and(is).then_some(())
        });
    }

    /// Waits for a finding, and returns the first.
    pub(super) fn until_finding(&self) -> Value {
        eventually("no finding", || {
            let findings: Value = serde_json::from_str(&self.get("/findings").body).unwrap();
            findings.as_array().unwrap().first().cloned()
        })
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(self) -> Done {
        self.watch.signal(TERM);
        self.watch.wait()
    }
}

/// Runs `ip` in this namespace.
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}

/// Does something in a network namespace, on a thread of its own.
fn within<T: Send>(namespace: Option<&std::fs::File>, work: impl FnOnce() -> T + Send) -> T {
    let Some(namespace) = namespace else { return work() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}
