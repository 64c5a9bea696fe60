//! A process that holds sockets: this program, started again.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::load::pair;

/// Flags of a process that holds sockets.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which of them it is: each listens on an address of its own
    number: u16,
    /// Sockets
    sockets: u32,
    /// How many in `CLOSE_WAIT`
    lingering: u32,
    /// How many of these come in a second, evenly; 0: as fast as they can
    #[arg(default_value_t = 0)]
    per_second: u32,
}

/// What a process holds, as it says itself.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Held {
    /// Where it listens: nobody else does.
    pub(crate) listener: SocketAddr,
    /// Sockets in `CLOSE_WAIT`.
    pub(crate) leaks: Vec<Leak>,
}

/// A socket in `CLOSE_WAIT`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Leak {
    /// The port of its peer.
    pub(crate) port: u16,
    /// `CLOCK_MONOTONIC` before the peer closed, and after.
    pub(crate) closed_ns: (u64, u64),
}

/// A process that holds sockets for as long as its input is open.
pub(crate) struct Holder {
    child: Child,
    /// The process holds on while this is open.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts it; the sockets come in their time.
    pub(crate) fn start(
        number: u16,
        sockets: u32,
        lingering: u32,
        per_second: u32,
    ) -> Result<Self> {
        let numbers = [number.into(), sockets, lingering, per_second].map(|n: u32| n.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a holder")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("talk to a holder")?);
        Ok(Self { child, input, output })
    }

    /// Starts it and waits until it has all its sockets.
    pub(crate) fn filled(number: u16, sockets: u32, lingering: u32) -> Result<Self> {
        let mut holder = Self::start(number, sockets, lingering, 0)?;
        holder.held()?;
        Ok(holder)
    }

    /// Waits until it has all its sockets.
    pub(crate) fn held(&mut self) -> Result<Held> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("a holder did not get its sockets")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it close its sockets and end.
    pub(crate) fn close(mut self) -> Result<()> {
        drop(self.input.take());
        self.child.wait()?;
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Holds sockets until its input ends: some in `CLOSE_WAIT`, the others as both ends of
/// connections.
pub(crate) fn hold(args: &Args) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let [high, low] = args.number.to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 1, high, low), 0))?;
    let addr = listener.local_addr()?;
    let pause = Duration::from_secs(1).checked_div(args.per_second);
    let (mut sockets, mut leaks) = (Vec::new(), Vec::new());
    for _ in 0..args.lingering {
        let (client, server) = pair(&listener, addr)?;
        sockets.push(server);
        let (port, before) = (client.local_addr()?.port(), monotonic());
        drop(client);
        leaks.push(Leak { port, closed_ns: (before, monotonic()) });
        if let Some(pause) = pause {
            thread::sleep(pause);
        }
    }
    while sockets.len() < args.sockets as usize {
        let (client, server) = pair(&listener, addr)?;
        sockets.extend([client, server]);
    }
    let line = serde_json::to_string(&Held { listener: addr, leaks })?;
    writeln!(io::stdout(), "{line}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// `CLOCK_MONOTONIC`, ns.
pub(crate) fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
