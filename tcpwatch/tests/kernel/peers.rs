//! Real sockets and real programs on loopback, in this test's own network namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tcpwatch::kernel::clock;

/// Longer than anything should take.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

/// A fresh network namespace for this thread, loopback up.
pub(crate) fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(status.is_ok_and(|status| status.success()), "ip (iproute2) is needed");
}

/// Which kind of address a pair of sockets uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    V4,
    V6,
    Mapped,
    Mptcp,
}

pub(crate) fn listen(kind: Kind) -> TcpListener {
    let (domain, ip): (Domain, std::net::IpAddr) = match kind {
        Kind::V4 | Kind::Mptcp => (Domain::IPV4, Ipv4Addr::LOCALHOST.into()),
        Kind::V6 => (Domain::IPV6, Ipv6Addr::LOCALHOST.into()),
        Kind::Mapped => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let protocol = if kind == Kind::Mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(domain, Type::STREAM, Some(protocol)).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

pub(crate) fn connect(kind: Kind, listener: &TcpListener) -> TcpStream {
    let port = listener.local_addr().unwrap().port();
    let ip: std::net::IpAddr =
        if kind == Kind::V6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let (domain, protocol) = match kind {
        Kind::V6 => (Domain::IPV6, Protocol::TCP),
        Kind::Mptcp => (Domain::IPV4, Protocol::MPTCP),
        Kind::V4 | Kind::Mapped => (Domain::IPV4, Protocol::TCP),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(protocol)).unwrap();
    socket.connect(&SocketAddr::new(ip, port).into()).unwrap();
    socket.into()
}

/// A connected pair: (client, server).
pub(crate) fn pair(kind: Kind, listener: &TcpListener) -> (TcpStream, TcpStream) {
    accept(connect(kind, listener), listener)
}

/// Pairs a client with what the listener accepts.
pub(crate) fn accept(client: TcpStream, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Does something while connections come and go as fast as they can; says how many did.
pub(crate) fn under_load<T>(body: impl FnOnce() -> T) -> (T, usize) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| churn_until(&over));
        // Also when it panics, as the scope waits for the load.
        let end = AtEnd(|| over.store(true, Ordering::Relaxed));
        let done = body();
        drop(end);
        (done, load.join().unwrap())
    })
}

struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn churn_until(over: &AtomicBool) -> usize {
    let listener = listen(Kind::V4);
    let mut connections = 0;
    while !over.load(Ordering::Relaxed) {
        churn(&listener, 1);
        connections += 1;
    }
    connections
}

/// Connections that come and go.
pub(crate) fn churn(listener: &TcpListener, connections: usize) {
    for _ in 0..connections {
        let (client, mut server) = pair(Kind::V4, listener);
        drop(client);
        read_to_end(&mut server);
    }
}

pub(crate) fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

/// Waits until the namespace has this many sockets in use: the last steps of a close
/// happen in softirq, after `close` has returned.
pub(crate) fn quiet(in_use: u32) {
    let wanted = format!("TCP: inuse {in_use} ");
    let text = || std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    eventually("sockets do not go away", text, |text| text.contains(&wanted));
}

/// Waits for a text that tells nobody when it changes.
pub(crate) fn eventually(
    not_yet: &str,
    mut text: impl FnMut() -> String,
    is_it: impl Fn(&str) -> bool,
) {
    let until = clock::now() + PATIENCE.into();
    loop {
        let text = text();
        if is_it(&text) {
            return;
        }
        assert!(clock::now() < until, "{not_yet}: {text}");
        std::thread::yield_now();
    }
}

/// Reads to the end, so that the FIN has been seen.
pub(crate) fn read_to_end(stream: &mut TcpStream) {
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

/// A Python program that is told what to do line by line and answers line by line.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(source: &str) -> Self {
        Self::start_with("python3", source)
    }

    /// The same with a certain Python.
    pub(crate) fn start_with(python: &str, source: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-u", "-c", source])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Tells it to go on.
    pub(crate) fn order(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Tells it to go on, and returns its answer.
    pub(crate) fn tell(&mut self, line: &str) -> String {
        self.order(line);
        self.answer()
    }

    /// Stops it with SIGSTOP.
    pub(crate) fn stop(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program with a connection whose peer has closed.
pub(crate) const LEAK: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
c.close()
print('ready')
input()
";
