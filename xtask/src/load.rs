//! What is watched: connections on loopback, in network namespaces of their own.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::linux::{fs::MetadataExt as _, net::TcpStreamExt as _},
    process::Command,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    exec,
    tool::{Background, PATIENCE, now},
};

/// Of both ends together.
pub(crate) const TRANSITIONS_PER_CONNECTION: u64 = 10;
/// Of both ends of one whose server never closes.
pub(crate) const TRANSITIONS_PER_LEAK: u64 = 8;
/// Of a listener: it opens, and it closes.
pub(crate) const TRANSITIONS_PER_LISTENER: u64 = 2;

/// How fast a load went.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) connections_per_second: f64,
    /// CPU time of the thread, what softirqs did on its behalf included.
    pub(crate) cpu_us_per_connection: f64,
}

/// Runs something in a fresh network namespace with `lo` up. Fresh, because what earlier loads left
/// in `TIME_WAIT` makes the search for a port several times slower or faster.
pub(crate) fn in_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            exec(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            work()
        });
        thread.join().unwrap_or_else(|_| bail!("the load panicked"))
    })
}

/// One thread that connects, accepts and closes as fast as it can, or at a pace, in connections
/// per second. The address it connects to changes, so that it never has to search for a free port.
pub(crate) fn churn(connections: u32, pace: Option<u32>) -> Result<Speed> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let start = now();
    let cpu = cpu_us();
    let mut read = Vec::new();
    for number in 0..connections {
        keep_pace(number, pace, start);
        let client = TcpStream::connect((address(number), port))?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        server.read_to_end(&mut read)?;
    }
    let connections = f64::from(connections);
    Ok(Speed {
        connections_per_second: connections / start.elapsed().as_secs_f64(),
        cpu_us_per_connection: (cpu_us() - cpu) / connections,
    })
}

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    let us = time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3;
    us
}

fn keep_pace(number: u32, pace: Option<u32>, start: Instant) {
    if let Some(pace) = pace {
        let due = Duration::from_secs(1) * number / pace;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

/// Another one for each, so that no connection has to search for a free port.
fn address(number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(127, a, b, c)
}

/// Both ends of a connection, each step of which is made by whoever makes it. Otherwise a timer may
/// acknowledge the client's FIN, in softirq on top of whichever task runs then; and where the kernel
/// runs no BPF program on top of certain tasks, as in some sandboxes, that is seen by no tracer.
pub(crate) fn pair(listener: &TcpListener, addr: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(addr)?;
    let (server, _) = listener.accept()?;
    server.set_quickack(true)?;
    Ok((client, server))
}

/// Addresses below this are those of processes that hold sockets.
const CHURN: u32 = 2 << 16;
/// Few enough that there is always a free port, and not so few that there are too many addresses to count.
const CONNECTIONS_PER_ADDRESS: u32 = 1_000;

/// One thread that opens and closes connections until it is told to end.
pub(crate) struct Churn(Background<u64>);

impl Churn {
    /// As fast as it can, or so many a second.
    pub(crate) fn start(pace: Option<u32>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Self(Background::start(move |over| {
            let (mut connections, mut read, start) = (0, Vec::new(), now());
            while !over.load(Relaxed) {
                keep_pace(connections, pace, start);
                let addr = (address(CHURN + connections / CONNECTIONS_PER_ADDRESS), port);
                let (client, mut server) = pair(&listener, addr.into())?;
                drop(client);
                server.read_to_end(&mut read)?;
                connections += 1;
            }
            Ok(connections.into())
        })))
    }

    /// Ends it; says how many connections there were.
    pub(crate) fn stop(self) -> Result<u64> {
        self.0.stop().context("make connections")
    }
}

/// Waits until the namespace has this many TCP sockets: the last steps of a close happen in softirq,
/// after `close` has returned.
pub(crate) fn quiet(sockets: u64) -> Result<()> {
    const PATH: &str = "/proc/thread-self/net/sockstat";
    let wanted = format!("TCP: inuse {sockets} ");
    let start = now();
    loop {
        let text = fs::read_to_string(PATH).with_context(|| format!("read {PATH}"))?;
        if text.contains(&wanted) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("there should be {sockets} sockets, but: {text}");
        }
        thread::yield_now();
    }
}

/// The network namespace of this thread, as `--netns` takes it.
pub(crate) fn namespace() -> Result<String> {
    const PATH: &str = "/proc/thread-self/ns/net";
    Ok(fs::metadata(PATH).with_context(|| format!("look at {PATH}"))?.st_ino().to_string())
}
