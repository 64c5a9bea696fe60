//! What a transition costs, and what that does to a connection, with each tool in turn.
//!
//! Subjects take turns, so that a machine whose speed drifts does not favour one, and each round is
//! compared with the same round without a tool.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    Scale,
    empty::Empty,
    requests::requests,
    table::{Table, cell},
    tool::{Stats, Tool},
};
use crate::{
    load::{TRANSITIONS_PER_CONNECTION, churn, in_namespace},
    tool::{median, tcpwatch},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Nothing,
    Empty,
    Everything,
    FindingsOnly,
    Serve,
    Record,
    Libbpf(&'static str),
}

impl Subject {
    fn name(self) -> String {
        match self {
            Self::Nothing => "no tool".to_owned(),
            Self::Empty => "an empty program".to_owned(),
            Self::Everything => "`tcpwatch -j`".to_owned(),
            Self::FindingsOnly => "`tcpwatch -j -q`".to_owned(),
            Self::Serve => "`tcpwatch serve`".to_owned(),
            Self::Record => "`tcpwatch record`".to_owned(),
            Self::Libbpf(name) => format!("`{name}`"),
        }
    }

    fn start(self) -> Result<Running> {
        let ours = |args: &[&str]| {
            let mut command = tcpwatch();
            command.args(args);
            Tool::start(command, true).map(Running::Tool)
        };
        match self {
            Self::Nothing => Ok(Running::Nothing),
            Self::Empty => Empty::attach().map(Running::Empty),
            Self::Everything => ours(&["-j"]),
            Self::FindingsOnly => ours(&["-j", "-q"]),
            Self::Serve => ours(&["serve", "--listen", "127.0.0.1:0"]),
            Self::Record => {
                let file = std::env::temp_dir().join("tcpwatch-bench.tcpw");
                let _ = std::fs::remove_file(&file);
                ours(&["record", "-o", &file.display().to_string()])
            }
            Self::Libbpf(name) => Tool::start(Command::new(path(name)), false).map(Running::Tool),
        }
    }
}

enum Running {
    Nothing,
    Empty(Empty),
    Tool(Tool),
}

impl Running {
    fn programs_ns(&self) -> Result<Option<u64>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Empty(program) => program.ran_ns().map(Some),
            Self::Tool(tool) => tool.programs_ns().map(Some),
        }
    }
}

/// One round of one subject.
#[derive(Default)]
struct Round {
    connections_per_second: f64,
    cpu_us: f64,
    requests_per_second: Option<f64>,
    kernel_ns: Option<f64>,
    agent_us: Option<f64>,
    resident_mb: Option<f64>,
    lost: Option<u64>,
}

fn path(tool: &str) -> String {
    format!("/usr/sbin/{tool}")
}

fn subjects() -> Vec<Subject> {
    use Subject::{Empty, Everything, FindingsOnly, Libbpf, Nothing, Record, Serve};
    let mut subjects = vec![Nothing, Empty, FindingsOnly, Serve, Everything, Record];
    for tool in ["tcpstates", "tcplife"] {
        if Path::new(&path(tool)).exists() && Path::new("/sys/kernel/tracing/events").exists() {
            subjects.push(Libbpf(tool));
        } else {
            eprintln!(
                "xtask: without {tool}: it needs Debian's libbpf-tools, and tracefs mounted at /sys/kernel/tracing"
            );
        }
    }
    subjects
}

/// Measures both tables.
pub(crate) fn run(scale: &Scale) -> Result<Vec<Table>> {
    let subjects = subjects();
    in_namespace(|| churn(scale.connections, None))?;
    let mut rounds: Vec<Vec<Round>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..scale.rounds {
        for (subject, rounds) in subjects.iter().zip(&mut rounds) {
            rounds.push(round(*subject, scale)?);
        }
    }
    Ok(vec![costs(&subjects, &rounds, scale), rates(&subjects, &rounds, scale)])
}

fn round(subject: Subject, scale: &Scale) -> Result<Round> {
    let running = subject.start()?;
    let agent = |running: &Running| match running {
        Running::Tool(tool) => tool.settled_cpu_ns().map(Some),
        _ => Ok(None),
    };
    let before = agent(&running)?;
    let speed = in_namespace(|| churn(scale.connections, None))?;
    // What is in the ring or in a buffer is the agent's work too.
    let after = agent(&running)?;
    let requests_per_second = in_namespace(|| requests(scale.seconds))?;
    let kernel_ns = {
        let _stats = Stats::enable()?;
        let before = running.programs_ns()?;
        in_namespace(|| churn(scale.connections, None))?;
        // By transition, not by run: tcpwatch has two programs on the tracepoint.
        running
            .programs_ns()?
            .zip(before)
            .map(|(after, before)| per_transition(after - before, scale))
    };
    let mut round = Round {
        connections_per_second: speed.connections_per_second,
        cpu_us: speed.cpu_us_per_connection,
        requests_per_second,
        kernel_ns,
        agent_us: after
            .zip(before)
            .map(|(after, before)| per_transition(after - before, scale) / 1e3),
        ..Round::default()
    };
    if let Running::Tool(tool) = running {
        round.resident_mb = Some(tool.resident_mb()?);
        round.lost = tool.stop()?;
    }
    Ok(round)
}

fn per_transition(total: u64, scale: &Scale) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let quotient =
        total as f64 / (u64::from(scale.connections) * TRANSITIONS_PER_CONNECTION) as f64;
    quotient
}

fn costs(subjects: &[Subject], rounds: &[Vec<Round>], scale: &Scale) -> Table {
    let ns = |rounds: &[Round]| median(rounds.iter().filter_map(|round| round.kernel_ns));
    let of = |wanted: Subject| {
        subjects.iter().position(|&subject| subject == wanted).and_then(|at| ns(&rounds[at]))
    };
    let (floor, theirs) = (of(Subject::Empty), of(Subject::Libbpf("tcpstates")));
    let mut table = Table {
        title: "A transition".to_owned(),
        command: "cargo xtask bench transitions",
        about: format!(
            "One thread connects, accepts and closes on loopback: {TRANSITIONS_PER_CONNECTION} transitions a \
             connection, {} connections a round, {} rounds, medians. Kernel time is what the kernel itself \
             measures (`kernel.bpf_stats_enabled`), and that is part of it: an empty program takes as much. \
             tcpwatch runs two programs on each transition, so that none is missed. Agent time is that of \
             the whole process, formatting included; lost is what the tool says it lost.",
            scale.connections, scale.rounds
        ),
        columns: vec!["kernel, ns", "empty = 1", "tcpstates = 1", "agent, us", "RSS, MB", "lost"],
        rows: Vec::new(),
    };
    for (subject, rounds) in subjects.iter().zip(rounds).skip(1) {
        let own = ns(rounds);
        let of = |field: fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(field));
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        let lost = rounds.iter().filter_map(|round| round.lost).max().map(|lost| lost as f64);
        table.row(
            subject.name(),
            vec![
                cell(own, 0),
                cell(own.zip(floor).map(|(own, floor)| own / floor), 1),
                cell(own.zip(theirs).map(|(own, theirs)| own / theirs), 3),
                cell(of(|round| round.agent_us), 2),
                cell(of(|round| round.resident_mb), 0),
                cell(lost, 0),
            ],
        );
    }
    table
}

fn rates(subjects: &[Subject], rounds: &[Vec<Round>], scale: &Scale) -> Table {
    let without = &rounds[0];
    let mut table = Table {
        title: "A connection".to_owned(),
        command: "cargo xtask bench transitions",
        about: format!(
            "Without kernel statistics, against the same round without a tool. *Bare* is the load above, \
             with nothing in a connection: no host does that, and a program that does nothing costs it, too. \
             *HTTP* is `wrk` with eight connections at a time to `lighttpd`, one small request each, for \
             {} s a round. CPU is what the thread that connects takes, softirqs included.",
            scale.seconds
        ),
        columns: vec![
            "bare, conn/s",
            "no tool = 1",
            "CPU, us/conn",
            "more, us",
            "HTTP, req/s",
            "no tool = 1",
        ],
        rows: Vec::new(),
    };
    for (subject, rounds) in subjects.iter().zip(rounds) {
        // Round by round, because the machine's speed drifts.
        let pairs = || rounds.iter().zip(without);
        let of = |field: fn(&Round) -> f64| median(rounds.iter().map(field));
        let ratio =
            median(pairs().map(|(with, without)| {
                with.connections_per_second / without.connections_per_second
            }));
        let more = median(pairs().map(|(with, without)| with.cpu_us - without.cpu_us));
        let http = median(rounds.iter().filter_map(|round| round.requests_per_second));
        let http_ratio = median(pairs().filter_map(|(with, without)| {
            Some(with.requests_per_second? / without.requests_per_second?)
        }));
        table.row(
            subject.name(),
            vec![
                cell(of(|round| round.connections_per_second), 0),
                cell(ratio, 3),
                cell(of(|round| round.cpu_us), 2),
                cell(more, 2),
                cell(http, 0),
                cell(http_ratio, 3),
            ],
        );
    }
    table
}
