//! What the tools watch: connections on loopback, in network namespaces of their own.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::time::{ClockId, clock_gettime};

use crate::exec;

/// Transitions of a connection of [`churn`].
pub(crate) const TRANSITIONS_PER_CONNECTION: u64 = 10;

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
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = Instant::now();
    let cpu = cpu_us();
    let mut read = Vec::new();
    for number in 0..connections {
        if let Some(pace) = pace {
            let due = Duration::from_secs(1) * number / pace;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let [_, a, b, c] = number.to_be_bytes();
        let client = TcpStream::connect((Ipv4Addr::new(127, a, b, c), port))?;
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

/// Requests per second of `wrk` to `lighttpd`, a connection for each; `None` without the two.
pub(crate) fn requests(seconds: u32) -> Result<Option<f64>> {
    let dir = std::env::temp_dir().join("tcpwatch-bench-www");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("index.html"), "it works\n")?;
    let config = dir.join("lighttpd.conf");
    std::fs::write(
        &config,
        format!(
            "server.document-root = \"{}\"\nserver.port = 8080\nserver.bind = \"127.0.0.1\"\n\
             index-file.names = (\"index.html\")\nmimetype.assign = (\".html\" => \"text/html\")\n",
            dir.display()
        ),
    )?;
    let server =
        Command::new("lighttpd").arg("-D").arg("-f").arg(&config).stderr(Stdio::null()).spawn();
    let Ok(mut server) = server else { return Ok(None) };
    while TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).is_err() {
        if let Some(status) = server.try_wait()? {
            bail!("lighttpd ended with {status}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let wrk = Command::new("wrk")
        .args(["-t1", "-c8", &format!("-d{seconds}s"), "-H", "Connection: close"])
        .arg("http://127.0.0.1:8080/")
        .output();
    let _ = server.kill();
    let _ = server.wait();
    let Ok(wrk) = wrk else { return Ok(None) };
    let text = String::from_utf8_lossy(&wrk.stdout);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate = rate.with_context(|| format!("wrk printed no rate: {text}"))?;
    Ok(Some(rate.trim().parse()?))
}
