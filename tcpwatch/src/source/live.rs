//! The live source: drains the ring on a tick, runs passes when something is due.
//!
//! The kernel does not wake us for every record; we come ten times a second, or when it says that
//! the ring is filling. Whatever is at hand then goes through the pipeline in one go.

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Outcome,
    cli::LiveArgs,
    config,
    core::{
        input::{Input, Scope, Transition},
        pipeline::{Pipeline, Rules},
        record::{Sink, Summary},
        state::State,
        time::{Nanos, Timestamp},
    },
    decode,
    exit::{Exit, say},
    kernel::{
        clock,
        load::{Kernel, Plan},
        pass::Passes,
        privilege,
        processes::Watch,
        ring::Ring,
    },
    output,
    sink::text,
};

/// How often the ring is drained.
const TICK: Duration = Duration::from_millis(100);
/// Records taken from the ring before the pipeline gets them.
const BATCH: usize = 16_384;
/// How often the wall clock is looked at again.
const CLOCK_EVERY: Nanos = Nanos::SECOND;
/// After a pass that took t, none is run for this many t: passes stay under 5 % of one core.
const REST_AFTER_PASS: u64 = 20;

/// What a live run is to do.
pub struct Live {
    /// For the kernel.
    pub plan: Plan,
    /// For the pipeline.
    pub rules: Rules,
    /// Stop after this time.
    pub duration: Option<Duration>,
}

/// `tcpwatch [flags]`.
pub fn command(args: &LiveArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    let live = Live {
        plan: config::plan(args, &filter)?,
        rules: config::rules(args, &filter),
        duration: args.duration,
    };
    let mut sink = output::sink(&args.output);
    let summary = run(&live, sink.as_mut(), || match &args.ready_file {
        Some(path) => announce(path),
        None => Ok(()),
    })?;
    if args.output.csv {
        let _ = text::write_summary(&mut io::stderr().lock(), &summary);
    }
    let leaks = args.fail_on_leak && summary.findings() > 0;
    Ok(if leaks { Exit::Findings } else { Exit::Ok })
}

fn announce(path: &Path) -> Result<()> {
    std::fs::write(path, "ready\n").with_context(|| format!("create {}", path.display()))
}

/// Watches until a signal, the duration, or the end of every watched process. `ready` is called
/// when everything is attached and every open socket has been seen.
pub fn run(
    live: &Live,
    sink: &mut dyn Sink,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Summary> {
    if let Some(missing) = privilege::missing() {
        anyhow::bail!(missing);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the kernel program, so that an early ^C still ends in a summary.
        let mut signals = Signals::new()?;
        let mut watcher = Watcher::start(live, sink)?;
        ready()?;
        watcher.watch(live.duration, &mut signals).await?;
        watcher.finish()
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Everything a live run has in hand.
struct Watcher<'a> {
    pipeline: Pipeline<'a>,
    kernel: Kernel,
    ring: Ring,
    passes: Passes,
    /// The processes named by `--pid` that still live.
    targets: Vec<u32>,
    had_targets: bool,
    processes: Watch,
    lost: u64,
    undecodable: u64,
    marked: Timestamp,
    rest_until: Timestamp,
    batch: Vec<Transition>,
}

impl<'a> Watcher<'a> {
    fn start(live: &Live, sink: &'a mut dyn Sink) -> Result<Self> {
        let (kernel, ring, passes) = Kernel::attach(&live.plan)?;
        let targets: Vec<u32> = live.plan.filter.pids.iter().copied().collect();
        let mut watcher = Self {
            pipeline: Pipeline::new(live.rules.clone(), sink),
            kernel,
            ring: Ring::new(ring).context("watch the ring buffer")?,
            passes,
            had_targets: !targets.is_empty(),
            targets,
            processes: Watch::default(),
            lost: 0,
            undecodable: 0,
            marked: Timestamp::default(),
            rest_until: Timestamp::default(),
            batch: Vec::new(),
        };
        watcher.mark_clock()?;
        for pid in watcher.targets.clone() {
            watcher.processes.add(pid);
        }
        watcher.pass(Scope::Everything)?;
        watcher.watch_listening_processes()?;
        watcher.pipeline.flush()?;
        Ok(watcher)
    }

    async fn watch(&mut self, duration: Option<Duration>, signals: &mut Signals) -> Result<()> {
        let end = duration.map(|duration| Instant::now() + duration);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = signals.any() => return Ok(()),
                () = at(end) => return Ok(()),
                _ = tick.tick() => {}
                filling = self.ring.filling() => filling.context("wait for the ring buffer")?,
            }
            self.step()?;
            if self.had_targets && self.targets.is_empty() || output::reader_is_gone() {
                return Ok(());
            }
        }
    }

    /// One round: ended processes, the ring, losses, deadlines, a pass if one is due.
    fn step(&mut self) -> Result<()> {
        let mark = clock::mark();
        // Before the transitions: a process that is gone owns none of them any more.
        for pid in self.processes.ended() {
            if self.targets.contains(&pid) {
                self.targets.retain(|&target| target != pid);
                say(&format!("tcpwatch: process {pid} has ended"));
            }
            self.pipeline.push(Input::Exited { at: mark.mono, pid })?;
        }
        self.drain()?;
        self.count_lost()?;
        let due = self.pipeline.next_deadline().is_some_and(|deadline| deadline <= mark.mono);
        if due || mark.mono.since(self.marked) >= CLOCK_EVERY {
            self.marked = mark.mono;
            self.pipeline.push(Input::Clock(mark))?;
        }
        if let Some(scope) = self.pipeline.wants_pass()
            && mark.mono >= self.rest_until
        {
            self.pass(scope)?;
        }
        self.kernel.flush_log();
        self.pipeline.flush()?;
        Ok(())
    }

    /// Takes everything from the ring, in batches.
    fn drain(&mut self) -> Result<()> {
        loop {
            let empty = self.fill_batch();
            for transition in std::mem::take(&mut self.batch) {
                let settled = self.settle(&transition)?;
                self.pipeline.push(Input::Transition(transition))?;
                if transition.new == State::Listen || !settled {
                    self.watch_listening_processes()?;
                }
            }
            if empty {
                return Ok(());
            }
        }
    }

    fn fill_batch(&mut self) -> bool {
        let (batch, undecodable) = (&mut self.batch, &mut self.undecodable);
        self.ring.drain(BATCH, |bytes| match decode::transition(bytes) {
            Ok(transition) => batch.push(transition),
            Err(error) => {
                if *undecodable == 0 {
                    log::warn!("a record from the kernel makes no sense and is left out: {error}");
                }
                *undecodable += 1;
            }
        })
    }

    /// Looks who holds the listener before a connection is printed under its owner's name.
    /// False if nobody is known to.
    fn settle(&mut self, transition: &Transition) -> Result<bool> {
        if self.pipeline.can_settle(&transition.socket) {
            return Ok(true);
        }
        if clock::now() >= self.rest_until {
            self.pass(Scope::Lingering)?;
            self.watch_listening_processes()?;
        }
        Ok(self.pipeline.can_settle(&transition.socket))
    }

    /// Asks to be told when a process ends whose listener others inherit from.
    fn watch_listening_processes(&mut self) -> Result<()> {
        let pids: Vec<u32> = self.pipeline.processes().collect();
        for pid in pids {
            if !self.processes.add(pid) {
                self.pipeline.push(Input::Exited { at: clock::now(), pid })?;
            }
        }
        Ok(())
    }

    fn count_lost(&mut self) -> Result<()> {
        let lost = self.kernel.lost()? + self.undecodable;
        if lost > self.lost {
            let count = lost - self.lost;
            self.lost = lost;
            log::warn!("{count} transitions lost ({lost} in all); a larger --ring-size helps");
            self.pipeline.push(Input::Lost { at: clock::now(), count })?;
        }
        Ok(())
    }

    /// Runs a pass and pushes what it saw, in order with the transitions of that time.
    fn pass(&mut self, scope: Scope) -> Result<()> {
        let started = clock::now();
        let observations = self.passes.run(scope).context("look at all open sockets")?;
        let mut inputs: Vec<Input> = observations.into_iter().map(Input::Observed).collect();
        while !self.fill_batch() {}
        inputs.extend(self.batch.drain(..).map(Input::Transition));
        inputs.sort_by_key(Input::at);
        self.pipeline.push(Input::PassBegin { at: started, scope })?;
        for input in inputs {
            self.pipeline.push(input)?;
        }
        let at = clock::now();
        self.pipeline.push(Input::PassEnd { at })?;
        self.rest_until = at + Nanos(at.since(started).0.saturating_mul(REST_AFTER_PASS));
        Ok(())
    }

    fn mark_clock(&mut self) -> Result<()> {
        let mark = clock::mark();
        self.marked = mark.mono;
        self.pipeline.push(Input::Clock(mark))?;
        Ok(())
    }

    /// Takes what is left, confirms what is due, writes the summary.
    fn finish(mut self) -> Result<Summary> {
        self.rest_until = Timestamp::default();
        self.step()?;
        self.pipeline.push(Input::End { at: clock::now() })?;
        Ok(self.pipeline.finish()?)
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
