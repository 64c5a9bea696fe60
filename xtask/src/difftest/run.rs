//! One seed from its beginning to its end.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    endings,
    operations::Operation,
    quiet,
    random::Random,
    report::{LeftOut, Report},
    said::{Binary, Line, Live, What},
    subflows::Strangers,
    trace::{Event, Trace},
    transitions,
    truth::Memory,
    watched::{self, Part, Watched},
    world::{PORTS, World},
};
use crate::{
    hold::monotonic,
    tool::{PATIENCE, now},
};

/// Bursts of a seed, and how long one is.
const BURSTS: u64 = 4;
const BURST_MILLIS: u64 = 800;
/// What happens last need not have been said when the run ends.
const TAIL: u64 = 300_000_000;

/// What is the same for all seeds.
pub(super) struct Setting {
    pub(super) binary: Binary,
    pub(super) mptcp: bool,
    pub(super) without: Vec<String>,
    /// Where what was said is kept, if that is wanted.
    pub(super) keep: Option<PathBuf>,
}

/// A run of one seed.
pub(super) struct Run<'a> {
    pub(super) binary: &'a Binary,
    pub(super) report: &'a mut Report,
    pub(super) world: World,
    pub(super) trace: Trace,
    pub(super) live: Live,
    pub(super) watched: Option<Watched>,
    pub(super) memory: Memory,
    random: Random,
    recording: PathBuf,
    begin: u64,
}

/// Runs a seed; what deviates is in the report.
pub(super) fn run(setting: &Setting, seed: u64, report: &mut Report) -> Result<()> {
    let dir = Dir::new(seed)?;
    report.begin(seed, dir.0.join("log"));
    let world = World::new(&dir.0, setting.mptcp, &setting.without)?;
    let trace = Trace::start("", |event| {
        // Whatever has one of the test's ports, or none at all yet.
        let [one, other] = [event.sport, event.dport].map(|port| PORTS.contains(&port));
        one || other || (event.sport, event.dport) == (0, 0)
    })?;
    let recording = dir.0.join("recording.tcpw");
    let mut flags = world.filter("1s");
    flags.extend(["--record".to_owned(), recording.display().to_string()]);
    let live = Live::start(&setting.binary, &flags)?;
    let mut run = Run {
        binary: &setting.binary,
        report,
        world,
        trace,
        live,
        watched: None,
        memory: Memory::default(),
        random: Random::new(seed),
        recording,
        begin: monotonic(),
    };
    run.cast(Part::of(seed))?;
    for _ in 0..BURSTS {
        run.world.burst(&mut run.random, BURST_MILLIS)?;
        let busy_until = monotonic();
        quiet::check(&mut run, busy_until)?;
    }
    run.finish(setting)
}

impl Run<'_> {
    /// Starts the processes, and a run that watches one of them.
    fn cast(&mut self, part: Part) -> Result<()> {
        let pids = self.world.populate()?;
        let [parent, client] = [pids.first(), pids.last()].map(Option::<&i32>::copied);
        let (parent, client) = (parent.context("nobody")?, client.context("nobody")?);
        let seed = self.random.next();
        let setup = [Operation::Listen, Operation::Listen, Operation::Fork, Operation::Spawn];
        self.world.perform(parent, seed, &setup)?;
        let pid = match part {
            Part::Parent => parent,
            Part::Client => client,
            Part::Worker => match self.world.pids().iter().find(|pid| !pids.contains(pid)) {
                Some(pid) => *pid,
                None => self.world.expect_one()?,
            },
            Part::Helper => *self.world.helpers.iter().next().context("no helper was started")?,
        };
        let flags = ["--linger", "1s", "--pid", &pid.to_string()].map(ToOwned::to_owned);
        let live = Live::start(self.binary, &flags)?;
        self.watched = Some(Watched { part, pid, since: monotonic(), live });
        Ok(())
    }

    /// Ends everything, waits until tcpwatch has said that, and compares all of it.
    fn finish(mut self, setting: &Setting) -> Result<()> {
        let ended_at = monotonic();
        self.world.end(&mut self.random)?;
        // Sockets without a process go on for a while: `tcp_fin_timeout` is 2 s.
        thread::sleep(Duration::from_millis(800));
        self.world.close()?;
        thread::sleep(Duration::from_millis(1_600));
        let start = now();
        while start.elapsed() < PATIENCE / 4 && is_open(&self.live.lines()) {
            thread::sleep(Duration::from_millis(200));
        }
        let end = monotonic() - TAIL;
        let (lines, said) = self.live.stop()?;
        let watched = self.watched.map(|watched| {
            let Watched { part, pid, since, live } = watched;
            anyhow::Ok((part, pid, since, live.stop()?.0))
        });
        let (mut events, dropped) = self.trace.stop()?;
        events.retain(|event| event.ns >= self.begin);
        let report = self.report;
        let watched = watched.transpose()?;
        if let Some(dir) = &setting.keep {
            let some = watched.as_ref().map_or(&[][..], |(.., lines)| lines);
            keep(dir, report, [&lines, some], &events)?;
        }
        if dropped > 0 {
            report.deviation("kernel-trace-dropped", end, &format!("{dropped} events"));
        }
        let mut again =
            vec!["replay".to_owned(), self.recording.display().to_string(), "-j".to_owned()];
        again.extend(self.world.filter("1s"));
        replayed(&self.binary.lines(&again)?, &lines, report);
        let (lines, others) = ours(lines, self.world.uid);
        for line in others {
            report.deviation("another-user", line.at(), &line.text);
        }
        let strangers = Strangers::find(&events, &PORTS, &self.world.known);
        let span = self.begin..=end;
        let before = report.left_out.get(&LeftOut::OnInit).copied();
        let paths = transitions::compare(&events, &lines, span, &strangers, report);
        let hidden = report.left_out.get(&LeftOut::OnInit) > before.as_ref();
        for warning in said.lines() {
            // That its namespaces have gone in the end is so.
            let known = warning.contains("was deleted")
                || hidden && warning.contains("the kernel did not run the program for them");
            if !known {
                report.deviation("warning", end, warning);
            }
        }
        endings::check(&lines, &paths, &self.world, ended_at, report);
        summary(&lines, end, hidden, report);
        if let Some((part, pid, since, some)) = watched {
            let until = self.world.killed.get(&pid).copied().unwrap_or(ended_at);
            if !hidden {
                watched::nothing_lost(&some, since, report);
            }
            watched::check(&lines, &some, (part, pid), (since, until.min(ended_at)), report);
        }
        Ok(())
    }
}

/// Lines about sockets of this user, whom `-u` asks for, and about sockets of others.
fn ours(lines: Vec<Line>, uid: u32) -> (Vec<Line>, Vec<Line>) {
    lines.into_iter().partition(|line| match &line.what {
        What::Transition(said) => said.uid == uid,
        What::Finding(finding) => finding.uid == uid,
        _ => true,
    })
}

fn is_open(lines: &[Line]) -> bool {
    let findings = lines.iter().filter_map(Line::finding);
    let last: HashMap<_, bool> = findings.map(|f| (f.id(), f.is_open())).collect();
    last.values().any(|open| *open)
}

/// Nothing is lost, unshown or uncertain, unless the machine itself hides it.
fn summary(lines: &[Line], at: u64, hidden: bool, report: &mut Report) {
    let Some(What::Summary(summary)) = lines.last().map(|line| &line.what) else {
        return report.deviation("no-summary", at, "the last line is no summary");
    };
    for (kind, excused) in [("lost", hidden), ("uncertain", hidden), ("unshown", false)] {
        if summary[kind] != 0 && !excused {
            report.deviation("not-whole", at, &format!("{kind}: {summary}"));
        }
    }
}

/// A replay says what the live run said, line by line.
fn replayed(again: &[Line], lines: &[Line], report: &mut Report) {
    report.compared("lines replayed", again.len());
    let differs = lines.iter().zip(again).find(|(one, other)| one.text != other.text);
    if let Some((one, other)) = differs {
        report.deviation("replay", one.at(), &format!("live {} replayed {}", one.text, other.text));
    } else if lines.len() != again.len() {
        let detail = format!("{} lines, replayed {}", lines.len(), again.len());
        report.deviation("replay", 0, &detail);
    }
}

fn keep(dir: &Path, report: &Report, lines: [&[Line]; 2], events: &[Event]) -> Result<()> {
    fs::create_dir_all(dir)?;
    let file = |kind: &str| dir.join(format!("{}.{kind}", report.seed));
    for (lines, kind) in lines.into_iter().zip(["json", "pid.json"]) {
        let text: Vec<&str> = lines.iter().map(|line| &*line.text).collect();
        fs::write(file(kind), text.join("\n"))?;
    }
    let text: Vec<String> = events.iter().map(ToString::to_string).collect();
    fs::write(file("kernel"), text.join("\n"))?;
    fs::copy(&report.log, file("log"))?;
    Ok(())
}

/// A directory that is gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new(seed: u64) -> Result<Self> {
        let name = format!("tcpwatch-difftest-{}-{seed}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
