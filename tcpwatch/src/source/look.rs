//! One look: what lingers now, without tracing anything.
//!
//! The same pipeline as live gets one pass over every socket, and what is due at once is shown.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use procfs::process::{LimitValue, Process as Proc};
use serde::Serialize;

use crate::{
    Outcome,
    cli::LeaksArgs,
    config,
    core::{
        culprits::{self, Culprit},
        finding::{Finding, Verdict},
        input::{Input, Observation, Scope},
        pipeline::{Pipeline, Rules},
        record::{Record, Sink, Summary},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
    },
    exit::Exit,
    kernel::{
        clock,
        load::{self, Plan},
        pass::Passes,
        privilege,
    },
    sink::json::JsonSink,
};

/// Between two looks, where one cannot tell a half-close in use.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Data sent more recently than this may be followed by more.
const RECENTLY: Nanos = Nanos(5_000_000_000);
/// A look needs no ring; this is the smallest that loads.
const RING: u32 = 4096;

/// Keeps findings instead of showing them.
#[derive(Default)]
struct Kept {
    clock: ClockMark,
    findings: Vec<Finding>,
}

impl Sink for Kept {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        self.clock = *clock;
        if let Record::Finding(finding) = record {
            self.findings.push((*finding).clone());
        }
        Ok(())
    }
}

/// `tcpwatch leaks`.
pub fn command(args: &LeaksArgs) -> Outcome {
    if let Some(missing) = privilege::missing() {
        anyhow::bail!(missing);
    }
    let filter = config::filter(&args.filter)?;
    let rules = Rules {
        linger: args.linger.into(),
        filter: filter.clone(),
        findings_only: true,
        include_half_open: args.include_half_open,
    };
    let plan = Plan { filter, findings_only: true, ring_bytes: RING, exact_accept: false };
    let mut kept = Kept::default();
    let summary = look(&plan, rules, &mut kept)?;
    kept.findings.sort_by_key(|finding| std::cmp::Reverse(finding.linger));
    let culprits = culprits::group(&kept.findings);
    if args.json {
        json(&kept, &culprits, &summary)?;
    } else {
        text(&kept.findings, &culprits, args)?;
    }
    let leaks = args.fail_on_leak && !kept.findings.is_empty();
    Ok(if leaks { Exit::Findings } else { Exit::Ok })
}

fn look(plan: &Plan, rules: Rules, sink: &mut dyn Sink) -> Result<Summary> {
    let mut passes = load::look(plan)?;
    let mut pipeline = Pipeline::new(rules, sink);
    pipeline.push(Input::Clock(clock::mark()))?;
    let (started, mut seen) = pass(&mut passes)?;
    if seen.iter().any(may_be_in_use) {
        // A pass that settles nothing: it only says where each connection was a moment ago.
        push(&mut pipeline, started, Scope::Watched, seen)?;
        std::thread::sleep(SECOND_LOOK);
        let (started, again) = pass(&mut passes)?;
        seen = again;
        push(&mut pipeline, started, Scope::Everything, seen)?;
    } else {
        push(&mut pipeline, started, Scope::Everything, seen)?;
    }
    Ok(pipeline.finish()?)
}

fn pass(passes: &mut Passes) -> Result<(Timestamp, Vec<Observation>)> {
    let started = clock::now();
    let seen = passes.run(Scope::Everything).context("look at all open sockets")?;
    Ok((started, seen))
}

fn push(
    pipeline: &mut Pipeline<'_>,
    started: Timestamp,
    scope: Scope,
    mut seen: Vec<Observation>,
) -> io::Result<()> {
    seen.sort_by_key(|seen| seen.at);
    pipeline.push(Input::PassBegin { at: started, scope })?;
    for observation in seen {
        pipeline.push(Input::Observed(observation))?;
    }
    pipeline.push(Input::PassEnd { at: clock::now() })
}

/// Sent something of late, or has something to send: whether the peer takes it, a second look
/// tells.
fn may_be_in_use(seen: &Observation) -> bool {
    seen.state == State::CloseWait
        && (seen.activity.is_none_or(|activity| activity.data_sent < RECENTLY)
            || seen.socket.tcp.is_some_and(|tcp| tcp.unsent > 0))
}

fn text(findings: &[Finding], culprits: &[Culprit], args: &LeaksArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if findings.is_empty() {
        writeln!(out, "nothing lingers")?;
        return Ok(());
    }
    writeln!(out, "{} sockets linger, in {} groups", findings.len(), culprits.len())?;
    for culprit in culprits.iter().take(args.top) {
        let key = &culprit.key;
        let owner = key.owner.map_or_else(|| "nobody known".to_owned(), |owner| owner.to_string());
        let verdict = key.verdict.map_or("unconfirmed", Verdict::word);
        let (at_least, arrow) = (
            if culprit.at_least { ">= " } else { "" },
            match key.client {
                Some(true) => "to",
                Some(false) => "at",
                None => "with",
            },
        );
        let limit = key
            .owner
            .and_then(|owner| fds(owner.pid))
            .map_or_else(String::new, |fds| format!("; {} of {} fds in use", fds.open, fds.limit));
        writeln!(
            out,
            "\n{:>6} {verdict} {owner} {arrow} {} ({}.{} %)",
            culprit.count,
            key.end,
            culprit.share / 10,
            culprit.share % 10
        )?;
        writeln!(
            out,
            "       oldest {at_least}{}, median {}, p99 {}{limit}",
            culprit.oldest, culprit.p50, culprit.p99
        )?;
        writeln!(out, "       {}", crate::core::advice::summary(&culprit.example))?;
    }
    if culprits.len() > args.top {
        writeln!(
            out,
            "\n{} more groups; --top {} shows all",
            culprits.len() - args.top,
            culprits.len()
        )?;
    }
    Ok(())
}

/// Every finding, then every culprit, then the summary.
fn json(kept: &Kept, culprits: &[Culprit], summary: &Summary) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut sink = JsonSink::new(&mut out);
    for finding in &kept.findings {
        sink.record(&kept.clock, &Record::Finding(finding))?;
    }
    for culprit in culprits {
        sink.line(&CulpritLine::new(culprit))?;
    }
    sink.record(&kept.clock, &Record::Summary(summary))?;
    sink.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct CulpritLine {
    r#type: &'static str,
    pid: Option<u32>,
    comm: Option<String>,
    verdict: Option<&'static str>,
    role: Option<&'static str>,
    end: String,
    count: usize,
    share: f64,
    oldest_ns: u64,
    p50_ns: u64,
    p99_ns: u64,
    at_least: bool,
    fds: Option<u64>,
    fd_limit: Option<u64>,
}

impl CulpritLine {
    fn new(culprit: &Culprit) -> Self {
        let key = &culprit.key;
        let fds = key.owner.and_then(|owner| fds(owner.pid));
        Self {
            r#type: "culprit",
            pid: key.owner.map(|owner| owner.pid),
            comm: key.owner.map(|owner| owner.comm.to_string()),
            verdict: key.verdict.map(Verdict::word),
            role: key.client.map(|client| if client { "client" } else { "server" }),
            end: key.end.to_string(),
            count: culprit.count,
            share: f64::from(culprit.share) / 1000.0,
            oldest_ns: culprit.oldest.0,
            p50_ns: culprit.p50.0,
            p99_ns: culprit.p99.0,
            at_least: culprit.at_least,
            fds: fds.as_ref().map(|fds| fds.open),
            fd_limit: fds.and_then(|fds| fds.limit.parse().ok()),
        }
    }
}

/// Open descriptors of a process and how many it may have; needs the right to look.
struct Fds {
    open: u64,
    limit: String,
}

fn fds(pid: u32) -> Option<Fds> {
    let process = Proc::new(i32::try_from(pid).ok()?).ok()?;
    let limit = match process.limits().ok()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit.to_string(),
        LimitValue::Unlimited => "unlimited".to_owned(),
    };
    Some(Fds { open: process.fd_count().ok()?.try_into().ok()?, limit })
}
