//! `tcpwatch demo`: a small server that leaks, watched for real.
//!
//! The server is a process of its own, so that what is shown is what `tcpwatch --pid` shows of
//! any program. It leaks in three ways and behaves in a fourth.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _, stdin, stdout},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    Outcome,
    cli::{DemoArgs, OutputArgs},
    core::{filter::Filter, tracker::Rules},
    exit::{Exit, say},
    kernel::{load::Plan, shed},
    output::{self, Destination},
    source::{
        attached::Attached,
        live::{self, Live},
    },
    stop::Held,
};

const LINGER: Duration = Duration::from_secs(2);
/// Long enough for every finding to be shown and to be seen to persist.
const LEAK_FOR: Duration = Duration::from_millis(4600);
/// The watch ends with the server; this is for a server that does not.
const AT_MOST: Duration = Duration::from_secs(9);
const NAME: &str = "leaky-server";

/// `tcpwatch demo`.
pub fn command(args: &DemoArgs) -> Outcome {
    if args.serve {
        shed::all()?;
        serve()?;
        return Ok(Exit::Ok);
    }
    let mut server = Server::start()?;
    let (pid, addr) = (server.child.id(), server.addr);
    say(&format!(
        "tcpwatch: {NAME} (pid {pid}) listens on {addr}; four clients connect and close. Watching it as: tcpwatch --pid {pid} --linger 2s"
    ));
    let filter = Filter { pids: [pid].into(), ..Filter::default() };
    let live = Live {
        plan: Plan {
            filter: filter.clone(),
            findings_only: false,
            ring_bytes: 1 << 20,
            exact_accept: true,
            details: args.json,
            follow_from: None,
            tally: false,
        },
        rules: Rules {
            linger: LINGER.into(),
            filter,
            findings_only: false,
            include_half_open: false,
            tell_culprits: true,
        },
        duration: Some(AT_MOST),
        ends_with_reader: true,
    };
    let signals = Held::new()?;
    let attached = Attached::new(&live.plan)?;
    let mut stop = signals.stop();
    let output = OutputArgs { json: args.json, ..OutputArgs::default() };
    let mut sink = output::sink(&output, Destination::Stdout)?;
    let input = server.input.take();
    live::run(&live, attached, &mut stop, sink.as_mut(), None, || {
        thread::spawn(move || {
            if let Err(error) = clients(addr) {
                say(&format!("tcpwatch: the demo's clients failed: {error}"));
            }
            thread::sleep(LEAK_FOR);
            // The server lives until its input ends.
            drop(input);
        });
        Ok(())
    })?;
    Ok(Exit::Ok)
}

struct Server {
    child: Child,
    input: Option<ChildStdin>,
    addr: SocketAddr,
}

impl Server {
    fn start() -> Result<Self> {
        let program = std::env::current_exe().context("find the tcpwatch program")?;
        let mut child = Command::new(program)
            .args(["demo", "--serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the demo's server")?;
        let mut line = String::new();
        let out = child.stdout.take().context("talk to the demo's server")?;
        BufReader::new(out).read_line(&mut line).context("talk to the demo's server")?;
        let addr = line.trim().parse().context("the demo's server did not start")?;
        let input = child.stdin.take();
        Ok(Self { child, input, addr })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four clients that connect, say something and close.
fn clients(addr: SocketAddr) -> std::io::Result<()> {
    for _ in 0..4 {
        let mut client = TcpStream::connect(addr)?;
        client.write_all(b"hello from a client that will not wait\n")?;
    }
    Ok(())
}

/// The server: reads the first to its end and forgets it, never reads the second, closes the
/// third as it should, and never accepts the fourth.
fn serve() -> Result<()> {
    fs::write("/proc/self/comm", NAME).context("take a name")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
    writeln!(stdout(), "{}", listener.local_addr()?)?;
    let (mut read_not_closed, _) = listener.accept()?;
    read_not_closed.read_to_end(&mut Vec::new())?;
    let (_never_read, _) = listener.accept()?;
    let (mut closed, _) = listener.accept()?;
    closed.read_to_end(&mut Vec::new())?;
    drop(closed);
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
