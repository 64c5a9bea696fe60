//! What a look costs, next to `ss` and `lsof`, on the same sockets in one run.
//!
//! Processes of this program hold the sockets, in a network namespace of their own. Each round
//! times `ss -tanp state close-wait`, `lsof` and the whole `tcpwatch leaks`; a tcpwatch that runs all the
//! while says how long its own passes take.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    Scale,
    table::{Table, cell},
};
use crate::{
    hold::Holder,
    load::in_namespace,
    tool::{median, tcpwatch},
};

/// Passes that the running agent makes meanwhile.
const WATCH: Duration = Duration::from_secs(12);
const OLD_ENOUGH: Duration = Duration::from_millis(1500);
/// The namespace of whoever asks.
const HERE: &str = "/proc/self/ns/net";
/// (sockets, of them in `CLOSE_WAIT`, processes).
const CASES: [(u32, u32, u16); 5] = [
    (1_000, 1_000, 5),
    (10_000, 10_000, 5),
    (50_000, 50_000, 5),
    (50_000, 500, 5),
    (10_000, 10_000, 1_000),
];

/// Measures.
pub(crate) fn run(scale: &Scale) -> Result<Vec<Table>> {
    let mut table = Table {
        title: "A look".to_owned(),
        command: "cargo xtask bench leaks",
        about: format!(
            "Milliseconds, medians of {} rounds. `ss` is `ss -tanp state close-wait`, `lsof` is `lsof -nP -iTCP \
             -sTCP:CLOSE_WAIT`, `leaks` is the whole command, start-up included; a pass is what a running agent \
             makes when something is due.",
            scale.rounds
        ),
        columns: vec![
            "`ss`, ms",
            "`lsof`, ms",
            "`leaks`, ms",
            "a pass, ms",
            "`ss` / `leaks`",
            "`ss` / pass",
        ],
        rows: Vec::new(),
    };
    for case in CASES {
        let (sockets, lingering, processes) = case;
        let times = in_namespace(|| measure(case, scale.rounds))?;
        let (ss, leaks, pass) = (times.ss, times.leaks, times.pass);
        table.row(
            format!("{sockets} sockets, {lingering} lingering, {processes} processes"),
            vec![
                cell(ss, 1),
                cell(times.lsof, 1),
                cell(leaks, 1),
                cell(pass, 1),
                cell(ss / leaks, 1),
                cell(ss / pass, 1),
            ],
        );
    }
    Ok(vec![table])
}

/// Medians, ms.
struct Times {
    ss: f64,
    lsof: Option<f64>,
    leaks: f64,
    pass: f64,
}

fn measure((sockets, lingering, processes): (u32, u32, u16), rounds: u32) -> Result<Times> {
    let _holders = (0..processes)
        .map(|number| {
            let each = |sockets| sockets / u32::from(processes);
            Holder::filled(number, each(sockets), each(lingering))
        })
        .collect::<Result<Vec<_>>>()?;
    // Of sockets that have just begun to linger `leaks` takes a second look, a second later.
    std::thread::sleep(OLD_ENOUGH);
    let agent = watch()?;
    let (mut ss, mut lsof, mut leaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ss.push(time(Command::new("ss").args(["-tanp", "state", "close-wait"]))?);
        lsof.extend(time(Command::new("lsof").args(["-nP", "-iTCP", "-sTCP:CLOSE_WAIT"])).ok());
        leaks.push(time(tcpwatch().args(["leaks", "-N", HERE]))?);
    }
    Ok(Times {
        ss: median(ss).context("no rounds")?,
        lsof: median(lsof),
        leaks: median(leaks).context("no rounds")?,
        pass: pass(agent)?,
    })
}

/// How long a command takes as a whole, ms.
fn time(command: &mut Command) -> Result<f64> {
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = Instant::now();
    crate::exec(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
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

/// The median of the later passes that the agent logged, ms.
fn pass(mut agent: Child) -> Result<f64> {
    let mut log = String::new();
    agent.stderr.take().context("read the log")?.read_to_string(&mut log)?;
    agent.wait()?;
    let words =
        log.lines().filter_map(|line| line.split_once("pass over Lingering")?.1.split_once(" in "));
    let times = words.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok());
    median(times).with_context(|| format!("the agent logged no passes: {log}"))
}
