//! One look: what lingers now, without tracing anything.
//!
//! The same pipeline as live gets one pass over every socket, and what is due at once is shown.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::CapabilitySet;

use crate::{
    Outcome,
    cli::LeaksArgs,
    config,
    core::{
        advice::count,
        culprits::Culprit,
        filter::Filter,
        finding::{Finding, Status},
        input::{Input, Observation, Scope},
        record::{Record, Summary},
        state::State,
        time::{ClockMark, Nanos},
        tracker::Rules,
        unseen::Unseen,
        verdict::is_dead,
    },
    driver::Driver,
    exit::{self, say},
    kernel::{
        clock,
        facts::{self, Answer},
        load::{self, Plan},
        pass::Passes,
        privilege, processes, shed,
    },
    output,
    sink::Sink,
    sink::{culprit, json::JsonSink},
};

/// Between two looks, where one cannot tell a half-close in use.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Data sent more recently than this may be followed by more.
const RECENTLY: Nanos = Nanos(5_000_000_000);
/// Less than this tells nothing of growth.
const SHORTEST_WATCH: Duration = Duration::from_secs(10);
/// Looks in the time of `--watch`.
const LOOKS: u32 = 12;
/// A look needs no ring; this is the smallest that loads.
const RING: u32 = 4096;

/// Shows culprits as text, at the end.
struct Text {
    culprits: Vec<Culprit>,
    top: usize,
    linger: Nanos,
}

impl Sink for Text {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Culprit(culprit) => self.culprits.push((*culprit).clone()),
            Record::Summary(summary) => self.show(summary)?,
            _ => {}
        }
        Ok(())
    }
}

impl Text {
    fn show(&self, summary: &Summary) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let groups = self.culprits.len();
        let sockets: usize = self.culprits.iter().map(|culprit| culprit.count).sum();
        if groups == 0 {
            let known = summary.unseen.is_empty() && summary.undecided == 0;
            let linger = self.linger;
            match (known, linger > Nanos::SECOND) {
                (true, false) => writeln!(out, "nothing lingers")?,
                (true, true) => writeln!(out, "nothing has lingered for {linger}")?,
                (false, false) => writeln!(out, "nothing was seen to linger")?,
                (false, true) => writeln!(out, "nothing was seen to linger for {linger}")?,
            }
            write_unknown(&mut out, summary)?;
            return out.flush();
        }
        let linger = if sockets == 1 { "socket lingers" } else { "sockets linger" };
        writeln!(out, "{sockets} {linger}, in {}", count(groups as u64, "group"))?;
        for culprit in self.culprits.iter().take(self.top) {
            writeln!(out)?;
            culprit::write_text(&mut out, culprit, output::stdout_width())?;
        }
        if groups > self.top {
            let hidden = count((groups - self.top) as u64, "more group");
            writeln!(out, "\n{hidden}; --top {groups} shows all")?;
        }
        write_unknown(&mut out, summary)?;
        out.flush()
    }
}

/// Says what was not seen, and what it is not known of for how long it has lingered.
fn write_unknown(out: &mut impl io::Write, summary: &Summary) -> io::Result<()> {
    if summary.undecided > 0 {
        writeln!(
            out,
            "{} may have lingered that long: TCP's times do not tell (answered keepalives hide it); --linger 0s shows them",
            count(summary.undecided, "socket")
        )?;
    }
    summary.unseen.iter().try_for_each(|unseen| writeln!(out, "not seen: {unseen}"))
}

/// Writes findings as they come, those that end while it watches too.
struct Json(JsonSink<io::BufWriter<io::Stdout>>);

impl Sink for Json {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Finding(Finding { status: Status::Still, .. }) => Ok(()),
            // It became due at the first scan, and what is said of it is of the last.
            Record::Finding(finding) if finding.status == Status::Open => {
                let seen = finding.as_of(finding.evidence.seen.max(finding.at));
                self.0.record(clock, &Record::Finding(&seen))
            }
            _ => self.0.record(clock, record),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `tcpwatch leaks`.
pub fn command(args: &LeaksArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    if !filter.states.is_empty() {
        bail!(
            "leaks looks for what lingers, in CLOSE_WAIT and CLOSE; to count other states: tcpwatch states --state"
        );
    }
    if args.watch.is_some_and(|time| time < SHORTEST_WATCH) {
        bail!("--watch needs at least 10s to tell growth from chance");
    }
    privilege::require()?;
    let rules = Rules {
        linger: args.linger.into(),
        filter: filter.clone(),
        findings_only: true,
        include_half_open: args.include_half_open,
        tell_culprits: false,
    };
    let plan = Plan {
        filter,
        findings_only: true,
        ring_bytes: RING,
        exact_accept: false,
        details: args.json,
        follow_from: None,
        tally: false,
    };
    let mut sink: Box<dyn Sink> = if args.json {
        let out = JsonSink::new(io::BufWriter::new(io::stdout()));
        Box::new(Json(out))
    } else {
        Box::new(Text { culprits: Vec::new(), top: args.top, linger: args.linger.into() })
    };
    let summary = look(&plan, rules, args.watch, sink.as_mut())?;
    exit::judge(args.fail_on_leak, summary.findings().saturating_sub(summary.ended), &summary)
}

fn look(
    plan: &Plan,
    rules: Rules,
    watch: Option<Duration>,
    sink: &mut dyn Sink,
) -> Result<Summary> {
    let (filter, linger) = (rules.filter.clone(), rules.linger);
    let began = clock::now();
    let mut look =
        Look { passes: load::look(plan)?, pipeline: Driver::new(rules, sink), filter, linger };
    shed::all_but(shed::LOOKING)?;
    let loaded = clock::now();
    look.pipeline.push(Input::Clock(clock::mark()))?;
    for (inode, name) in facts::namespaces() {
        let at = look.pipeline.tracker.now();
        look.pipeline.push(Input::Namespace { at, inode, name: Some(name) })?;
    }
    let again = look.pass(Scope::Lingering)?;
    let everything = look.pipeline.tracker.wants_pass() == Some(Scope::Everything);
    look.shed(again || everything || watch.is_some())?;
    if again {
        std::thread::sleep(SECOND_LOOK);
    }
    if again || everything {
        look.pass(if everything { Scope::Everything } else { Scope::Lingering })?;
    }
    let read = clock::now();
    look.conclude()?;
    log::debug!(
        "ready after {:.1} ms, read after {:.1} ms, concluded after {:.1} ms",
        loaded.since(began).milliseconds(),
        read.since(began).milliseconds(),
        clock::now().since(began).milliseconds()
    );
    if let Some(time) = watch {
        say(&format!("tcpwatch: watching for {}", Nanos::from(time)));
        for _ in 0..LOOKS {
            std::thread::sleep(time / LOOKS);
            look.pipeline.push(Input::Clock(clock::mark()))?;
            look.pass(Scope::Lingering)?;
            look.conclude()?;
        }
    }
    if !processes::sees_all_pids() {
        look.push_unseen(Unseen::Processes)?;
    }
    if look.passes.missed().iter().any(|netns| look.filter.wants_namespace(*netns)) {
        look.push_unseen(Unseen::Queues)?;
    }
    let summary = look.pipeline.finish()?;
    // The process ends here, and its memory with it; to free that piece by piece takes time.
    std::mem::forget(look);
    Ok(summary)
}

/// A pipeline and what it looks with.
struct Look<'a> {
    passes: Passes,
    pipeline: Driver<'a>,
    filter: Filter,
    linger: Nanos,
}

impl Look<'_> {
    /// One pass; says whether another is needed before anything can be concluded.
    fn pass(&mut self, scope: Scope) -> Result<bool> {
        let at = clock::now();
        self.pipeline.push(Input::PassBegin { at, scope })?;
        let mut again = false;
        let mut pushed = Ok(());
        let (pipeline, filter) = (&mut self.pipeline, &self.filter);
        let young = self.linger.min(SECOND_LOOK.into());
        self.passes
            .run(scope, |seen| {
                again |=
                    needs_second_look(&seen, young) && filter.accepts(&seen.socket, seen.state);
                if pushed.is_ok() {
                    pushed = pipeline.push(Input::Observed(seen));
                }
            })
            .context("look at all open sockets")?;
        pushed?;
        Ok(again)
    }

    fn push_unseen(&mut self, what: Unseen) -> Result<()> {
        let at = self.pipeline.tracker.now();
        Ok(self.pipeline.push(Input::Unseen { at, what })?)
    }

    /// Gives up what looks after the first do not need. Only a long accept queue in another network
    /// namespace takes more than evidence does.
    fn shed(&mut self, more_looks: bool) -> Result<()> {
        let mut kept = shed::evidence();
        if more_looks {
            self.passes.load_rest().context("prepare for another look")?;
            if self.passes.has_entered() {
                kept |= CapabilitySet::SYS_ADMIN;
            } else {
                self.passes.stay();
            }
        }
        let passes = &mut self.passes;
        shed::all_but_working(kept, || passes.try_settings())
    }

    /// Asks the processes that matter, and shows what the last pass has confirmed.
    fn conclude(&mut self) -> Result<()> {
        let pids = self.pipeline.tracker.wants_processes();
        for answer in facts::processes(&pids) {
            let at = self.pipeline.tracker.now();
            self.pipeline.push(match answer {
                Answer::Said(facts) => Input::Process(facts),
                Answer::Gone(pid) => Input::Exited { at, pid },
            })?;
        }
        self.pipeline.push(Input::PassEnd { at: clock::now() })?;
        Ok(())
    }
}

/// A second look tells more of it: it may only just have begun to linger, which it does in the best
/// of programs; it sent something of late, or has something to send, which the peer may take; or a
/// file descriptor that leads to it was on its way from one process to another.
fn needs_second_look(seen: &Observation, linger: Nanos) -> bool {
    // A client's SYN counts as one byte acknowledged.
    const SYN: u64 = 1;
    let recently = seen.activity.is_none_or(|activity| activity.data_sent < RECENTLY);
    // One whose age is not known at all (MPTCP) may be.
    let young = seen.activity.is_none_or(|activity| activity.ack_received < linger);
    let sends =
        seen.socket.tcp.is_some_and(|tcp| tcp.unsent > 0 || tcp.bytes_acked > SYN && recently);
    match seen.state {
        State::CloseWait => young || sends || seen.holder.is_none() && seen.socket.has_file,
        // Since when it is dead nobody knows.
        State::Close => is_dead(seen) && linger > Nanos(0),
        _ => false,
    }
}
