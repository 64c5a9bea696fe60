//! `cargo xtask bench`: what a transition costs, side by side in one run.
//!
//! One thread connects, accepts and closes on loopback in a network namespace of its own; each
//! connection makes ten transitions. The kernel itself times the BPF programs
//! (`kernel.bpf_stats_enabled`, restored afterwards), and each process's
//! `/proc/PID/fdinfo` says for how long they ran. Subjects take turns, so that a
//! machine whose speed drifts does not favour one; medians are shown.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use crate::{prepare_bench, root};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const TCPSTATES: &str = "/usr/sbin/tcpstates";
pub(crate) const TRANSITIONS_PER_CONNECTION: u64 = 10;

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Connections per round
    #[arg(long, default_value_t = 20_000)]
    connections: u32,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Nothing,
    Everything,
    FindingsOnly,
    Tcpstates,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no tool",
            Self::Everything => "tcpwatch -j",
            Self::FindingsOnly => "tcpwatch -q",
            Self::Tcpstates => "tcpstates",
        }
    }
}

/// One round of one subject.
struct Round {
    connections_per_second: f64,
    /// Kernel time per transition.
    ns: Option<f64>,
    /// CPU time of the process, seconds.
    agent_cpu: Option<f64>,
    lost: Option<u64>,
}

/// The medians of a subject.
#[derive(Serialize)]
struct Row {
    subject: &'static str,
    connections_per_second: f64,
    rate_against_no_tool: f64,
    kernel_ns_per_transition: Option<f64>,
    kernel_ns_against_tcpstates: Option<f64>,
    agent_cpu_us_per_transition: Option<f64>,
    lost: Option<u64>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    prepare_bench()?;
    let mut subjects = vec![Subject::Nothing, Subject::Everything, Subject::FindingsOnly];
    if Path::new(TCPSTATES).exists() && Path::new("/sys/kernel/tracing/events").exists() {
        subjects.push(Subject::Tcpstates);
    } else {
        eprintln!(
            "xtask: without tcpstates: it needs Debian's libbpf-tools, and tracefs mounted at /sys/kernel/tracing"
        );
    }
    let _stats = Stats::enable()?;

    load(args.connections)?;
    let mut rounds: Vec<Vec<Round>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (subject, rounds) in subjects.iter().zip(&mut rounds) {
            rounds.push(round(*subject, args.connections)?);
        }
    }
    let rows = rows(&subjects, &rounds, args.connections);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        table(args, &rows);
    }
    Ok(())
}

/// `kernel.bpf_stats_enabled` on, and back to what it was.
struct Stats(String);

impl Stats {
    fn enable() -> Result<Self> {
        let before = fs::read_to_string(STATS).context("read kernel.bpf_stats_enabled")?;
        fs::write(STATS, "1").context("set kernel.bpf_stats_enabled")?;
        Ok(Self(before.trim().to_owned()))
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}

/// Connections per second of one thread.
pub(crate) fn load(connections: u32) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = Instant::now();
    for _ in 0..connections {
        let client = TcpStream::connect(addr)?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        server.read_to_end(&mut Vec::new())?;
    }
    Ok(f64::from(connections) / start.elapsed().as_secs_f64())
}

fn round(subject: Subject, connections: u32) -> Result<Round> {
    let Some(tool) = Tool::start(subject)? else {
        let connections_per_second = load(connections)?;
        return Ok(Round { connections_per_second, ns: None, agent_cpu: None, lost: None });
    };
    let (before, cpu_before) = (tool.stats()?, tool.cpu()?);
    let connections_per_second = load(connections)?;
    let after = tool.stats()?;
    // What is in the ring or in a buffer is the agent's work too.
    tool.settle();
    let agent_cpu = tool.cpu()? - cpu_before;
    // By transition, not by run: tcpwatch has two programs on the tracepoint.
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let ns = (after - before) as f64 / (u64::from(connections) * TRANSITIONS_PER_CONNECTION) as f64;
    Ok(Round {
        connections_per_second,
        ns: Some(ns),
        agent_cpu: Some(agent_cpu),
        lost: tool.stop()?,
    })
}

/// A running tool.
struct Tool {
    child: Child,
}

impl Tool {
    fn start(subject: Subject) -> Result<Option<Self>> {
        let mut command = match subject {
            Subject::Nothing => return Ok(None),
            Subject::Everything | Subject::FindingsOnly => {
                let mut command = Command::new(root().join("target/release/tcpwatch"));
                command.args(["--ready-file", "/dev/stderr", "-j"]).stderr(Stdio::piped());
                if subject == Subject::FindingsOnly {
                    command.arg("-q");
                }
                command
            }
            Subject::Tcpstates => Command::new(TCPSTATES),
        };
        let file = tempfile()?;
        let mut child =
            command.stdout(file).spawn().with_context(|| format!("start {command:?}"))?;
        if let Some(stderr) = child.stderr.take() {
            let ready =
                BufReader::new(stderr).lines().map_while(Result::ok).any(|line| line == "ready");
            if !ready {
                bail!("{command:?} did not start");
            }
        } else {
            while stats_of(&child)?.1 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            // It has loaded; attaching takes a moment more.
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(Some(Self { child }))
    }

    /// Run time of its programs, ns.
    fn stats(&self) -> Result<u64> {
        stats_of(&self.child).map(|(ns, _)| ns)
    }

    /// CPU seconds of the process.
    fn cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let ns: f64 = text.split(' ').next().unwrap_or("0").parse()?;
        Ok(ns / 1e9)
    }

    /// Waits until the process has nothing left to do.
    fn settle(&self) {
        let mut before = -1.0;
        while let Ok(now) = self.cpu() {
            if now - before < 0.001 {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Ends it; the number of lost transitions, if it says.
    fn stop(mut self) -> Result<Option<u64>> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        let text = fs::read_to_string(OUTPUT)?;
        let summary = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        Ok(summary.and_then(|summary| summary["lost"].as_u64()))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const OUTPUT: &str = "/tmp/tcpwatch-bench.out";

fn tempfile() -> Result<fs::File> {
    fs::File::create(OUTPUT).with_context(|| format!("create {OUTPUT}"))
}

/// Run time in ns, and number, of the BPF programs a process holds.
fn stats_of(child: &Child) -> Result<(u64, u32)> {
    let dir = format!("/proc/{}/fdinfo", child.id());
    let (mut ns, mut programs) = (0, 0);
    let mut ids = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {dir}"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |key: &str| -> Option<u64> {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|value| value.trim().parse().ok())
        };
        let (Some(id), Some(time)) = (field("prog_id:"), field("run_time_ns:")) else {
            continue;
        };
        if !ids.contains(&id) {
            ids.push(id);
            ns += time;
            programs += 1;
        }
    }
    Ok((ns, programs))
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn rows(subjects: &[Subject], rounds: &[Vec<Round>], connections: u32) -> Vec<Row> {
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.connections_per_second));
    let ns = |rounds: &[Round]| median(rounds.iter().filter_map(|round| round.ns));
    let without = &rounds[0];
    let theirs = subjects
        .iter()
        .position(|&subject| subject == Subject::Tcpstates)
        .and_then(|at| ns(&rounds[at]));
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let transitions = (u64::from(connections) * TRANSITIONS_PER_CONNECTION) as f64;
    subjects
        .iter()
        .zip(rounds)
        .map(|(subject, rounds)| {
            let own = ns(rounds);
            // Round by round, because the machine's speed drifts.
            let ratios = rounds.iter().zip(without).map(|(with, without)| {
                with.connections_per_second / without.connections_per_second
            });
            Row {
                subject: subject.name(),
                connections_per_second: rate(rounds).unwrap_or(f64::NAN),
                rate_against_no_tool: median(ratios).unwrap_or(f64::NAN),
                kernel_ns_per_transition: own,
                kernel_ns_against_tcpstates: own.zip(theirs).map(|(own, theirs)| own / theirs),
                agent_cpu_us_per_transition: median(
                    rounds.iter().filter_map(|round| round.agent_cpu),
                )
                .map(|seconds| seconds * 1e6 / transitions),
                lost: rounds.iter().filter_map(|round| round.lost).max(),
            }
        })
        .collect()
}

fn table(args: &Args, rows: &[Row]) {
    println!(
        "{} rounds of {} connections, {TRANSITIONS_PER_CONNECTION} transitions each; medians",
        args.rounds, args.connections
    );
    println!(
        "{:<12} {:>10} {:>9} {:>10} {:>12} {:>12} {:>6}",
        "", "conn/s", "rate", "kernel ns", "of tcpstates", "agent us", "lost"
    );
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for row in rows {
        println!(
            "{:<12} {:>10.0} {:>9.3} {:>10} {:>12} {:>12} {:>6}",
            row.subject,
            row.connections_per_second,
            row.rate_against_no_tool,
            number(row.kernel_ns_per_transition, 0),
            number(row.kernel_ns_against_tcpstates, 4),
            number(row.agent_cpu_us_per_transition, 2),
            row.lost.map_or_else(|| "-".to_owned(), |lost| lost.to_string()),
        );
    }
}
