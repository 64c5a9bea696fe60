//! A host that is nearly lost: a hundred thousand sockets in `CLOSE_WAIT`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _},
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};

use super::{
    Fault, Setting,
    figures::{Figures, mib, thousands},
    ledger::Ledger,
    run::Dir,
};
use crate::{
    hold::Holder,
    load::{namespace, quiet},
    tool::{PATIENCE, Tool, median, now, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "abandoned",
    what: "100,000 connections are opened and abandoned in `CLOSE_WAIT`, by as many processes as their limits of descriptors ask for",
    seen: "all are counted; as text one `CULPRIT` per process as it doubles, and not a line for each socket; `leaks` stays a page",
    seconds: 20,
    quick: None,
    run,
};

const SOCKETS: u32 = 100_000;
const LINGER: Duration = Duration::from_secs(5);
/// Descriptors that a process needs for itself.
const OWN: u64 = 200;
/// To one address there are no more ports.
const MOST: u64 = 25_000;
const OPEN: &[u8] = br#""status":"open""#;
/// How often a file is looked at that grows.
const SOON: Duration = Duration::from_millis(100);
/// Lines of `leaks`,
const LINES: usize = 60;
/// and of a live run for each process that leaks, in a minute or two.
const LIVE_LINES: usize = 120;

fn run(setting: &Setting) -> Result<Figures> {
    let dir = Dir::new()?;
    let (json, text) = (Watch::start(&dir, "-j")?, Watch::start(&dir, "-T")?);
    let mut holders = holders(setting.seconds)?;
    for holder in &mut holders {
        holder.held()?;
    }
    json.has_found(SOCKETS)?;
    let look = look(holders.len())?;
    let (memory, most) = (json.tool.memory()?, json.tool.most_memory()?);
    for holder in std::mem::take(&mut holders) {
        holder.close()?;
    }
    quiet(0)?;
    json.tool.settle()?;
    let (after, processes) = (json.tool.memory()?, look.processes);
    let (passes, ledger) = json.ledger()?;
    let opened = ledger.count_of("open");
    ensure!(opened == u64::from(SOCKETS), "{opened} findings of {SOCKETS}");
    let ended = ledger.count_of("ended");
    ensure!(ended == opened, "{ended} of {opened} findings ended");
    let told = ledger.culprits.len();
    ensure!(told >= processes, "{told} culprits, and {processes} processes");
    let lines = text.lines()?;
    ensure!(lines < LIVE_LINES * processes, "{lines} lines as text");
    Ok(Figures::default()
        .with("sockets", thousands(SOCKETS.into()))
        .with("of processes", processes)
        .with("memory", format!("{} (at most {}, after {})", mib(memory), mib(most), mib(after)))
        .with("a pass over them", format!("{passes:.0} ms"))
        .with("`leaks`", format!("{:.0} ms, {} lines", look.ms, look.lines))
        .with("live text", format!("{lines} lines")))
}

fn is_open(line: &[u8]) -> bool {
    line.windows(OPEN.len()).any(|part| part == OPEN)
}

/// As many processes as it takes; all sockets come within this time.
fn holders(seconds: u64) -> Result<Vec<Holder>> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let each = u32::try_from(limit.saturating_sub(OWN).min(MOST))?;
    let processes = SOCKETS.div_ceil(each);
    let each = SOCKETS / processes;
    (0..processes)
        .map(|number| {
            let left = if number == 0 { SOCKETS % processes } else { 0 };
            let sockets = each + left;
            let per_second = sockets.div_ceil(u32::try_from(seconds)?);
            Holder::start(u16::try_from(number)?, sockets, sockets, per_second)
        })
        .collect()
}

/// A live run that shows findings.
struct Watch {
    tool: Tool,
    out: File,
    path: PathBuf,
}

impl Watch {
    fn start(dir: &Dir, format: &str) -> Result<Self> {
        let path = dir.join(format);
        let out = File::options().read(true).write(true).create_new(true).open(&path)?;
        let mut command = tcpwatch();
        let linger = format!("{}s", LINGER.as_secs());
        command
            .args(["-q", format, "--linger", &linger, "-N", &namespace()?])
            .args(["--ready-file", "/dev/stderr"])
            .env("RUST_LOG", "tcpwatch=debug")
            .stdout(Stdio::from(out.try_clone()?));
        Ok(Self { tool: Tool::start(&mut command, "ready")?, out, path })
    }

    /// Waits until it has shown so many findings: looks at many sockets take long, and are rationed.
    fn has_found(&self, sockets: u32) -> Result<()> {
        let mut lines = BufReader::new(File::open(&self.path)?);
        let (mut line, mut found, start) = (Vec::new(), 0, now());
        while found < sockets {
            lines.read_until(b'\n', &mut line)?;
            if line.ends_with(b"\n") {
                found += u32::from(line.starts_with(br#"{"type":"finding""#) && is_open(&line));
                line.clear();
                continue;
            }
            ensure!(start.elapsed() < 2 * PATIENCE, "{found} findings of {sockets}");
            thread::sleep(SOON);
        }
        Ok(())
    }

    /// Ends it; how long a pass over most sockets took, ms, and what it showed.
    fn ledger(mut self) -> Result<(f64, Ledger)> {
        let ended = self.tool.stop()?;
        ensure!(ended.status.success(), "it ended with {}: {}", ended.status, ended.stderr);
        let passes = ended.stderr.lines().filter_map(|line| {
            let (_, words) = line.split_once("pass over Lingering: ")?;
            let words: Vec<_> = words.split(' ').collect();
            let [looks, ms] = [0, 3].map(|at| words.get(at)?.parse::<f64>().ok());
            (looks? > f64::from(SOCKETS) / 2.0).then_some(ms?)
        });
        let passes = median(passes).context("no pass was logged")?;
        let mut ledger = Ledger::counting();
        self.out.rewind()?;
        ledger.read(BufReader::with_capacity(1 << 20, &self.out))?;
        Ok((passes, ledger))
    }

    fn lines(mut self) -> Result<usize> {
        self.tool.stop()?;
        self.out.rewind()?;
        Ok(BufReader::new(&self.out).lines().count())
    }
}

/// What one look took and showed.
struct Look {
    processes: usize,
    ms: f64,
    lines: usize,
}

fn look(processes: usize) -> Result<Look> {
    let start = now();
    let output = tcpwatch().args(["leaks", "-N", &namespace()?]).output()?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let text = String::from_utf8(output.stdout)?;
    let first = text.lines().next().unwrap_or_default();
    ensure!(first.starts_with(&format!("{SOCKETS} sockets linger")), "leaks says: {first}");
    let lines = text.lines().count();
    ensure!(lines < LINES, "leaks has {lines} lines");
    Ok(Look { processes, ms, lines })
}
