//! What a recording takes, beside the other ways to keep what happened.
//!
//! The load is that of `transitions`, the least that a packet capture can have to write. CPU time is that
//! of all threads of the process, so what the kernel does for a capture in softirq is not in it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Scale,
    table::{Table, cell},
    tool::Tool,
};
use crate::{
    exec,
    load::{TRANSITIONS_PER_CONNECTION, churn, in_namespace},
    target_dir,
    tool::{median, tcpwatch},
};

/// A way to keep what happens.
struct Subject {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    /// What it writes.
    output: Option<PathBuf>,
    /// Words on standard error that say that it has begun.
    ready: &'static str,
}

struct Round {
    cpu_ns: f64,
    bytes: Option<f64>,
}

/// Measures.
pub(crate) fn run(scale: &Scale) -> Result<Vec<Table>> {
    let dir = std::env::temp_dir().join("tcpwatch-bench-traces");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let subjects = subjects(&dir);
    let mut rounds: Vec<Vec<Round>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..scale.rounds {
        for (subject, rounds) in subjects.iter().zip(&mut rounds) {
            let round = in_namespace(|| round(subject, scale.connections))?;
            rounds.push(round);
        }
    }
    // Round by round, because the machine's speed drifts.
    let more = rounds[1].iter().zip(&rounds[0]).map(|(with, without)| with.cpu_ns - without.cpu_ns);
    let mut kept = Table {
        title: "A recording".to_owned(),
        command: "cargo xtask bench traces",
        about: format!(
            "The same load ({} connections a round, {} rounds, medians), in the format of each. Recording \
             beside live JSON takes {:.2} us more per transition. tcpdump keeps packets and knows no process; \
             what the kernel does for it is not in its CPU time.",
            scale.connections,
            scale.rounds,
            median(more).unwrap_or_default() / 1000.0
        ),
        columns: vec!["bytes/transition", "CPU, us/transition"],
        rows: Vec::new(),
    };
    for (subject, rounds) in subjects.iter().zip(&rounds) {
        let bytes = median(rounds.iter().filter_map(|round| round.bytes));
        let cpu = median(rounds.iter().map(|round| round.cpu_ns / 1000.0));
        kept.row(format!("`{}`", subject.name), vec![cell(bytes, 1), cell(cpu, 2)]);
    }
    let replayed = in_namespace(|| replays(&dir.join("record.tcpw")))?;
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    Ok(vec![kept, replayed])
}

fn subjects(dir: &Path) -> Vec<Subject> {
    let tcpwatch = || target_dir().join("release/tcpwatch");
    let subject = |name, args: &[&str], output: Option<&str>| Subject {
        name,
        program: tcpwatch(),
        args: args
            .iter()
            .map(|arg| (*arg).replace("DIR", &dir.display().to_string()))
            .chain(["--ready-file".to_owned(), "/dev/stderr".to_owned()])
            .collect(),
        output: output.map(|name| dir.join(name)),
        ready: "ready",
    };
    let mut subjects = vec![
        subject("tcpwatch -j > /dev/null", &["-j"], None),
        subject(
            "tcpwatch -j --record F > /dev/null",
            &["-j", "--record", "DIR/beside.tcpw"],
            Some("beside.tcpw"),
        ),
        subject("tcpwatch record -o F", &["record", "-o", "DIR/record.tcpw"], Some("record.tcpw")),
        subject("tcpwatch -j > F", &["-j"], Some("json")),
        subject("tcpwatch -s > F", &["-s"], Some("csv")),
    ];
    let tcpdump = Path::new("/usr/bin/tcpdump");
    if tcpdump.exists() {
        let file = dir.join("pcap");
        subjects.push(Subject {
            name: "tcpdump -w F",
            program: tcpdump.to_owned(),
            args: ["-i", "lo", "-B", "65536", "-w", &file.display().to_string(), "tcp"]
                .map(str::to_owned)
                .to_vec(),
            output: Some(file),
            ready: "listening on",
        });
    } else {
        eprintln!("xtask: tcpdump is not installed and is left out (Debian package tcpdump)");
    }
    subjects
}

fn round(subject: &Subject, connections: u32) -> Result<Round> {
    if let Some(file) = &subject.output {
        let _ = fs::remove_file(file);
    }
    // Only the formats that are written to standard output.
    let writes_itself =
        subject.args.iter().any(|arg| arg.ends_with("tcpw") || arg.ends_with("pcap"));
    let stdout = match &subject.output {
        Some(file) if !writes_itself => fs::File::create(file)?.into(),
        _ => Stdio::null(),
    };
    let mut child = Command::new(&subject.program)
        .args(&subject.args)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", subject.program.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains(subject.ready));
    if !ready {
        bail!("{} did not start", subject.name);
    }
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let before = settled(&child)?;
    churn(connections, None)?;
    let cpu = settled(&child)? - before;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    child.wait()?;
    #[expect(clippy::cast_precision_loss, reason = "a quotient for people")]
    let per_transition =
        |value: u64| value as f64 / (u64::from(connections) * TRANSITIONS_PER_CONNECTION) as f64;
    let bytes = match &subject.output {
        Some(file) => Some(per_transition(fs::metadata(file)?.len())),
        None => None,
    };
    Ok(Round { cpu_ns: per_transition(cpu), bytes })
}

/// CPU time of all its threads, ns, once they have nothing left to do.
fn settled(child: &Child) -> Result<u64> {
    const LITTLE: u64 = 20_000_000;
    let mut before = cpu(child)?;
    loop {
        std::thread::sleep(Duration::from_millis(1200));
        let now = cpu(child)?;
        if now - before < LITTLE {
            return Ok(now);
        }
        before = now;
    }
}

/// In steps of a tick; threads that have ended count (`proc_pid_stat(5)`).
fn cpu(child: &Child) -> Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let [user, system] =
        [11, 12].map(|at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()));
    let ticks = user.zip(system).map(|(user, system)| user + system);
    Ok(ticks.context("read the CPU time of a process")? * TICK_NS)
}

/// How fast a recording is gone through: one that is long enough, made of the same load.
fn replays(trace: &Path) -> Result<Table> {
    const CONNECTIONS: u32 = 500_000;
    let _ = fs::remove_file(trace);
    let mut command = tcpwatch();
    command.args(["record", "-o"]).arg(trace);
    let tool = Tool::start(command, true)?;
    churn(CONNECTIONS, None)?;
    tool.stop()?;
    let transitions = f64::from(CONNECTIONS) * 10.0;
    let mut table = Table {
        title: "A replay".to_owned(),
        command: "cargo xtask bench traces",
        about: "Millions of transitions per second of CPU time, of a recording of 5 million."
            .to_owned(),
        columns: vec!["M/s"],
        rows: Vec::new(),
    };
    for verb in [&["replay", "-q"][..], &["report"], &["replay", "-j"]] {
        let before = used()?;
        let mut command = tcpwatch();
        command.args(verb).arg(trace);
        exec(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let seconds = used()? - before;
        let name = format!("`tcpwatch {}`", verb.join(" "));
        table.row(name, vec![cell(transitions / seconds / 1e6, 1)]);
    }
    Ok(table)
}

/// CPU seconds of all children that have ended.
fn used() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = time.num_microseconds() as f64 / 1e6;
    Ok(seconds)
}
