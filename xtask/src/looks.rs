//! `cargo xtask bench-leaks`: what a look costs, next to `ss`, on the same sockets in one run.
//!
//! Processes of this program hold the sockets, in a network namespace of their own. Each round
//! times `ss -tanp state close-wait` and the whole `tcpwatch leaks`; a tcpwatch that runs all the
//! while says how long its own passes take.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{exec, prepare_bench, root};

/// Passes that the running agent makes meanwhile.
const WATCH: Duration = Duration::from_secs(16);
/// The namespace of whoever asks.
const HERE: &str = "/proc/self/ns/net";

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Sockets
    #[arg(long, default_value_t = 50_000)]
    sockets: u32,
    /// How many of them are in `CLOSE_WAIT` [default: all]
    #[arg(long)]
    lingering: Option<u32>,
    /// Processes that hold them
    #[arg(long, default_value_t = 5)]
    processes: u32,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// Flags of a process that holds sockets.
#[derive(clap::Args)]
pub(crate) struct HoldArgs {
    /// Which of them it is: each listens on an address of its own
    number: u8,
    /// Sockets
    sockets: u32,
    /// How many in `CLOSE_WAIT`
    lingering: u32,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    prepare_bench()?;
    let lingering = args.lingering.unwrap_or(args.sockets);
    let holders = (0..args.processes)
        .map(|number| {
            Holder::start(number, args.sockets / args.processes, lingering / args.processes)
        })
        .collect::<Result<Vec<_>>>()?;
    let agent = watch()?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        theirs.push(time(Command::new("ss").args(["-tanp", "state", "close-wait"]))?);
        ours.push(time(tcpwatch().args(["leaks", "-N", HERE]))?);
    }
    let passes = passes(agent)?;
    drop(holders);
    println!("{}", table(args, lingering, &mut theirs, &mut ours, passes));
    Ok(())
}

fn tcpwatch() -> Command {
    Command::new(root().join("target/release/tcpwatch"))
}

/// How long a command takes as a whole, ms.
fn time(command: &mut Command) -> Result<f64> {
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = Instant::now();
    exec(command.stdout(Stdio::null()))?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn watch() -> Result<Child> {
    let seconds = WATCH.as_secs().to_string();
    tcpwatch()
        .args(["-q", "--linger", "1s", "-d", &seconds, "-N", HERE])
        .env("RUST_LOG", "tcpwatch=debug")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start tcpwatch")
}

/// Medians of the passes that the agent logged, ms: the first, which takes everything in, and the
/// later ones.
fn passes(mut agent: Child) -> Result<(f64, f64)> {
    let mut log = String::new();
    agent.stderr.take().context("read the log")?.read_to_string(&mut log)?;
    agent.wait()?;
    let of = |scope: &str| -> Vec<f64> {
        let words = log.lines().filter_map(|line| line.split_once(scope)?.1.split_once(" in "));
        words.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok()).collect()
    };
    let (mut first, mut later) = (of("pass over Everything"), of("pass over Lingering"));
    if first.is_empty() || later.is_empty() {
        bail!("the agent logged no passes: {log}");
    }
    Ok((median(&mut first), median(&mut later)))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(
    args: &Args,
    lingering: u32,
    theirs: &mut [f64],
    ours: &mut [f64],
    (first, later): (f64, f64),
) -> String {
    let ss = median(theirs);
    let mut text = format!(
        "{} sockets of {} processes, {lingering} in CLOSE_WAIT; medians of {} rounds\n{:<40} {:>8} {:>10}\n",
        args.sockets, args.processes, args.rounds, "", "ms", "times ss"
    );
    for (what, ms) in [
        ("ss -tanp state close-wait", ss),
        ("tcpwatch leaks, start-up included", median(ours)),
        ("first pass of a running agent", first),
        ("a later pass of a running agent", later),
    ] {
        let _ = writeln!(text, "{what:<40} {ms:>8.1} {:>9.1}x", ss / ms);
    }
    text.pop();
    text
}

/// A process that holds sockets for as long as its input is open.
struct Holder(Child);

impl Holder {
    fn start(number: u32, sockets: u32, lingering: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["hold", &number.to_string(), &sockets.to_string(), &lingering.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a holder")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("talk to a holder")?).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("a holder did not get its {sockets} sockets");
        }
        Ok(Self(child))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Holds sockets until its input ends: some in `CLOSE_WAIT`, the others as both ends of
/// connections.
pub(crate) fn hold(args: &HoldArgs) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, args.number), 0))?;
    let addr = listener.local_addr()?;
    let mut held = Vec::new();
    for _ in 0..args.lingering {
        drop(TcpStream::connect(addr)?);
        held.push(listener.accept()?.0);
    }
    while held.len() < args.sockets as usize {
        held.push(TcpStream::connect(addr)?);
        held.push(listener.accept()?.0);
    }
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
