//! The live source: drains the ring on a tick, runs passes when something is due.
//!
//! The kernel does not wake us for every record; we come ten times a second, or when it says that
//! the ring is filling. Whatever is at hand then goes through the pipeline in one go.

mod count;

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rustc_hash::FxHashSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    attached::Attached,
    intake::{Intake, MOST_BATCHES, Pass},
    meter::Meter,
    monitor::Monitor,
};
use crate::{
    core::{
        filter::Filter,
        input::{Input, Observation, Scope, Transition},
        pipeline::{LAST_WORDS, Pipeline, Rules},
        record::{Sink, Summary},
        state::State,
        tape::{Due, Tape},
        time::{ClockMark, Nanos, Timestamp},
    },
    exit::say,
    kernel::{
        clock, facts,
        load::{Kernel, Plan},
        memory,
        processes::Watch,
    },
    output,
    stop::Stop,
};

/// How often the ring is drained.
const TICK: Duration = Duration::from_millis(100);
/// How often if nobody waits for lines: numbers are read when they are asked for.
const TICK_OF_NUMBERS: Duration = Duration::from_millis(250);
/// Observations of a pass that are worth giving back: some megabytes.
const MANY_LOOKS: usize = 20_000;
/// Inputs pushed before the ring is drained again.
const PUSHED_AT_ONCE: usize = 8_192;
/// How long no pass is tried after one that failed.
const REST_AFTER_FAILURE: Nanos = Nanos(10_000_000_000);
/// How often the wall clock is looked at again.
const CLOCK_EVERY: Nanos = Nanos::SECOND;
/// After a pass that took this thread t of CPU time, none is run for this many t: passes stay
/// under 5 % of one core, and are not put off because the machine was busy with something else.
const REST_AFTER_PASS: u64 = 20;
/// What lingers is looked at again after this time, if evidence is gathered, or after this many
/// times what the last pass took.
const LOOK_AGAIN: Nanos = Nanos(10_000_000_000);
const REST_BEFORE_LOOKING_AGAIN: u64 = 1000;

/// What a live run is to do.
pub struct Live {
    /// For the kernel.
    pub plan: Plan,
    /// For the pipeline.
    pub rules: Rules,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop when nobody reads standard output any more.
    pub ends_with_reader: bool,
    /// Look at what lingers again and again, for a replay with other thresholds.
    pub gathers_evidence: bool,
}

/// Watches until it is told to stop, or until the end of every process named by `--pid`. `ready` is called
/// when every open socket has been seen.
pub fn run<'a>(
    live: &Live,
    attached: Attached,
    stop: &mut Stop,
    sink: &'a mut dyn Sink,
    tape: Option<&'a mut dyn Tape>,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Summary> {
    run_beside(live, attached, stop, sink, tape, Beside::default(), ready)
}

/// Who is told how the run itself goes.
#[derive(Default)]
pub struct Beside<'a> {
    /// What the kernel program takes.
    pub meter: Option<Arc<Meter>>,
    /// Looks, and how many sockets there are.
    pub monitor: Option<&'a mut dyn Monitor>,
}

/// The same, and tells others how the run itself goes.
pub fn run_beside<'a>(
    live: &Live,
    attached: Attached,
    stop: &mut Stop,
    sink: &'a mut dyn Sink,
    tape: Option<&'a mut dyn Tape>,
    beside: Beside<'a>,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut watcher = Watcher::start(live, attached, sink, tape, beside)?;
        ready()?;
        if let Some(duration) = live.duration {
            stop.after(duration);
        }
        watcher.watch(stop).await?;
        watcher.finish()
    })
}

/// Everything a live run has in hand.
struct Watcher<'a> {
    pipeline: Pipeline<'a>,
    filter: Filter,
    kernel: Kernel,
    intake: Intake,
    /// The processes named by `--pid` that still live.
    targets: Vec<u32>,
    had_targets: bool,
    /// Those that have ended of late.
    ended: Vec<(Timestamp, u32)>,
    ends_with_reader: bool,
    tick: Duration,
    /// Descendants of the command that is run; `None` if none are followed.
    followed: Option<FxHashSet<u32>>,
    processes: Watch,
    lost: u64,
    marked: Timestamp,
    rest_until: Timestamp,
    /// When to look at what lingers again; `None` if it need not be.
    look_again: Option<Timestamp>,
    /// Looks and transitions pushed so far.
    pushed: usize,
    meter: Option<Arc<Meter>>,
    metered: Timestamp,
    monitor: Option<&'a mut dyn Monitor>,
}

impl<'a> Watcher<'a> {
    fn start(
        live: &Live,
        attached: Attached,
        sink: &'a mut dyn Sink,
        tape: Option<&'a mut dyn Tape>,
        beside: Beside<'a>,
    ) -> Result<Self> {
        let Attached { mut kernel, intake, began, first } = attached;
        let Beside { meter, monitor } = beside;
        let meters = monitor.is_some().then(|| kernel.meters()).transpose()?;
        let targets: Vec<u32> = live.plan.filter.pids.iter().copied().collect();
        let mut watcher = Self {
            pipeline: Pipeline::new(live.rules.clone(), sink),
            filter: live.rules.filter.clone(),
            kernel,
            intake,
            had_targets: !targets.is_empty(),
            ended: Vec::new(),
            ends_with_reader: live.ends_with_reader,
            tick: if live.plan.tally && live.plan.findings_only { TICK_OF_NUMBERS } else { TICK },
            followed: live.plan.filter.follow.then(FxHashSet::default),
            targets,
            processes: Watch::default(),
            lost: 0,
            marked: Timestamp::default(),
            rest_until: Timestamp::default(),
            look_again: live.gathers_evidence.then(Timestamp::default),
            pushed: 0,
            meter,
            metered: Timestamp::default(),
            monitor,
        };
        if let (Some(monitor), Some(meters)) = (&mut watcher.monitor, meters) {
            monitor.attached(meters);
        }
        if let Some(tape) = tape {
            watcher.pipeline.record_to(tape);
        }
        watcher.mark_clock(began)?;
        watcher.name_namespaces()?;
        watcher.targets.retain(|&pid| {
            let alive = watcher.processes.add(pid);
            if !alive {
                say(&format!("tcpwatch: process {pid} has ended"));
            }
            alive
        });
        watcher.take_in(Scope::Everything, began.mono, clock::used(), first)?;
        watcher.watch_listening_processes()?;
        watcher.pipeline.flush()?;
        memory::give_back();
        Ok(watcher)
    }

    fn name_namespaces(&mut self) -> Result<()> {
        let at = self.pipeline.now();
        for (inode, name) in facts::namespaces() {
            self.pipeline.push(Input::Namespace { at, inode, name })?;
        }
        Ok(())
    }

    async fn watch(&mut self, stop: &mut Stop) -> Result<()> {
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.wanted() => return Ok(()),
                _ = tick.tick() => {}
                filling = self.intake.filling() => filling.context("wait for the ring buffer")?,
            }
            self.step()?;
            let unread = self.ends_with_reader && output::reader_is_gone();
            if self.had_targets && self.targets.is_empty() || unread {
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
                self.ended.push((mark.mono, pid));
                say(&format!("tcpwatch: process {pid} has ended"));
            }
            if let Some(followed) = &mut self.followed {
                followed.remove(&pid);
                self.kernel.forget(pid);
            }
            // Without moving time on: what is still in the ring happened before.
            self.pipeline.push(Input::Exited { at: self.pipeline.now(), pid })?;
        }
        self.forget_ended(mark.mono);
        self.drain()?;
        let due = self.pipeline.next_deadline().is_some_and(|deadline| deadline <= mark.mono);
        if due || mark.mono.since(self.marked) >= CLOCK_EVERY {
            self.marked = mark.mono;
            self.pipeline.push(Input::Clock(mark))?;
        }
        self.read_meter(mark.mono);
        if let Some(scope) = self.wanted_pass(mark.mono) {
            self.pass(scope)?;
        }
        self.count_sockets(mark.mono);
        self.serve_tape()?;
        self.kernel.flush_log();
        self.pipeline.flush()?;
        Ok(())
    }

    /// Somebody else may get the id of a process that has ended; the last steps of its sockets come a round
    /// trip after its end.
    fn forget_ended(&mut self, now: Timestamp) {
        let kernel = &mut self.kernel;
        self.ended.retain(|&(at, pid)| {
            let recent = now.since(at) < LAST_WORDS;
            if !recent {
                kernel.forget(pid);
            }
            recent
        });
    }

    fn read_meter(&mut self, now: Timestamp) {
        if let Some(meter) = &self.meter
            && now.since(self.metered) >= CLOCK_EVERY
        {
            self.metered = now;
            meter.note(self.kernel.run_time());
        }
    }

    /// The pass that is needed and may be run now.
    fn wanted_pass(&self, now: Timestamp) -> Option<Scope> {
        if now < self.rest_until {
            return None;
        }
        let again = self.look_again.is_some_and(|at| now >= at);
        let lingers = || self.pipeline.lingering().next().is_some();
        self.pipeline.wants_pass().or_else(|| (again && lingers()).then_some(Scope::Lingering))
    }

    /// Gives the tape what it needs: a place where one can begin to read, or another file, which
    /// begins with all that is known.
    fn serve_tape(&mut self) -> Result<()> {
        let now = self.pipeline.now();
        let Some(tape) = self.pipeline.tape() else { return Ok(()) };
        match tape.due(now) {
            Due::Nothing => return Ok(()),
            Due::Snapshot => {}
            Due::File => {
                let mark = clock::mark();
                tape.begin_file(&mark);
                self.pipeline.push(Input::Clock(mark))?;
                self.name_namespaces()?;
                let at = self.pipeline.now();
                for &pid in self.followed.iter().flatten() {
                    self.pipeline.push(Input::Followed { at, pid })?;
                }
            }
        }
        self.pass(Scope::Everything)
    }

    /// Takes what is in the ring, in batches; after [`MOST_BATCHES`] the rest waits for the next
    /// round, so that signals and deadlines get their turn.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..MOST_BATCHES {
            let empty = self.intake.fill();
            self.follow()?;
            self.count_lost()?;
            self.push_batch()?;
            if empty && self.intake.batch.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Learns of new descendants. After a batch was taken and before it is pushed: whoever made
    /// what is in it was forked before.
    fn follow(&mut self) -> Result<()> {
        let Some(followed) = &mut self.followed else { return Ok(()) };
        let at = self.pipeline.now();
        for pid in self.kernel.followed()? {
            if !followed.insert(pid) {
                continue;
            }
            self.pipeline.push(Input::Followed { at, pid })?;
            if !self.processes.add(pid) {
                followed.remove(&pid);
                self.kernel.forget(pid);
                self.pipeline.push(Input::Exited { at, pid })?;
            }
        }
        Ok(())
    }

    fn push_batch(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.intake.batch).into_iter();
        while let Some(transition) = batch.next() {
            let settled = self.pipeline.can_settle(&transition.socket);
            if !settled && clock::now() >= self.rest_until {
                // A look says who holds the listener. What is left of the batch goes through the
                // pipeline with it, in order of time.
                let newer = std::mem::take(&mut self.intake.batch);
                self.intake.batch = std::iter::once(transition).chain(batch).chain(newer).collect();
                self.pass(Scope::Lingering)?;
                return self.watch_listening_processes();
            }
            self.push_transition(&transition)?;
        }
        Ok(())
    }

    /// What it says of a listener's holder is looked after at once: the next may need it.
    fn push_transition(&mut self, transition: &Transition) -> Result<()> {
        self.pushed += 1;
        if self.pushed.is_multiple_of(PUSHED_AT_ONCE) {
            self.intake.fill();
        }
        let settled = self.pipeline.can_settle(&transition.socket);
        self.pipeline.push(Input::Transition(*transition))?;
        if transition.new == State::Listen || !settled {
            self.watch_listening_processes()?;
        }
        Ok(())
    }

    /// Asks to be told when a process ends whose listener others inherit from.
    fn watch_listening_processes(&mut self) -> Result<()> {
        let at = self.pipeline.now();
        let pids: Vec<u32> = self.pipeline.processes().collect();
        for pid in pids {
            if !self.processes.add(pid) {
                self.pipeline.push(Input::Exited { at, pid })?;
            }
        }
        let claimed: Vec<u32> = self.pipeline.claimed().collect();
        for pid in claimed {
            self.pipeline.push(Input::Running { at, pid })?;
        }
        Ok(())
    }

    /// After a batch was taken and before it is pushed: what comes after a gap, and the ring had room
    /// for again, must not come before the word of it.
    fn count_lost(&mut self) -> Result<()> {
        let lost = self.kernel.lost()? + self.intake.undecodable;
        if lost > self.lost {
            let count = lost - self.lost;
            self.lost = lost;
            log::warn!("{count} transitions lost ({lost} in all); a larger --ring-size may help");
            self.pipeline.push(Input::Lost { at: clock::now(), count })?;
        }
        Ok(())
    }

    /// Runs a pass and pushes what it saw, in order with the transitions of that time. A pass that
    /// fails is no reason to end: findings then say that nothing confirms them.
    fn pass(&mut self, scope: Scope) -> Result<()> {
        let (began, used) = (clock::now(), clock::used());
        let expected = self.pipeline.lingering().collect();
        let pass = self.intake.pass(scope, expected);
        self.take_in(scope, began, used, pass)
    }

    /// Pushes what a pass saw. `began` is when it did, `used` the CPU time of this thread before it.
    fn take_in(
        &mut self,
        scope: Scope,
        began: Timestamp,
        used: Nanos,
        pass: io::Result<Pass>,
    ) -> Result<()> {
        let pass = match pass {
            Ok(pass) => pass,
            Err(error) => {
                log::warn!("cannot look at open sockets: {error}");
                self.push_batch_in_order(&[])?;
                let at = clock::now();
                if let Some(monitor) = &mut self.monitor {
                    monitor.looked(at, at.since(began), false);
                }
                self.rest_until = at + REST_AFTER_FAILURE;
                return Ok(self.pipeline.push(Input::PassFailed { at })?);
            }
        };
        let read = clock::now();
        self.pipeline.push(Input::PassBegin { at: pass.started, scope })?;
        self.push_batch_in_order(&pass.observations)?;
        let asking = self.ask_processes()?;
        let at = clock::now();
        self.pipeline.push(Input::PassEnd { at })?;
        log::debug!(
            "pass over {scope:?}: {} looks in {:.1} ms, read after {:.1} ms",
            pass.observations.len(),
            at.since(pass.started).milliseconds(),
            read.since(pass.started).milliseconds()
        );
        if let Some(monitor) = &mut self.monitor {
            monitor.looked(at, at.since(began), true);
        }
        let here = clock::used().0.saturating_sub(used.0);
        let cost = here + pass.cost.0 + asking.0;
        self.rest_until = at + Nanos(cost.saturating_mul(REST_AFTER_PASS));
        if let Some(again) = &mut self.look_again {
            let span = Nanos(cost.saturating_mul(REST_BEFORE_LOOKING_AGAIN)).max(LOOK_AGAIN);
            *again = at + span;
        }
        if pass.observations.len() > MANY_LOOKS {
            drop(pass);
            memory::give_back();
        }
        Ok(())
    }

    /// Asks the processes that findings of this pass are about; returns the CPU time it took.
    fn ask_processes(&mut self) -> Result<Nanos> {
        let pids = self.pipeline.wants_processes();
        if pids.is_empty() {
            return Ok(Nanos::default());
        }
        self.name_namespaces()?;
        let (answers, cost) = self.intake.ask(pids);
        for facts in answers {
            self.pipeline.push(Input::Process(facts.into()))?;
        }
        Ok(cost)
    }

    /// What a pass saw, what is left of the batch, and what came into the ring meanwhile.
    fn push_batch_in_order(&mut self, observations: &[Observation]) -> Result<()> {
        self.intake.fill_all();
        self.follow()?;
        self.count_lost()?;
        // Who holds a listener is needed by what came in through it before this look.
        let listens = |seen: &&Observation| seen.state == State::Listen;
        for listener in
            observations.iter().filter(listens).filter(|seen| self.filter.concerns(seen))
        {
            self.pipeline.push(Input::Observed(listener.clone()))?;
        }
        let mut transitions = std::mem::take(&mut self.intake.batch);
        transitions.sort_by_key(|transition| transition.at);
        let mut transitions = transitions.into_iter().peekable();
        // Both are in order of time; at the same moment the look was first.
        for seen in observations.iter().filter(|seen| !listens(seen)) {
            if !self.filter.concerns(seen) {
                continue;
            }
            self.pushed += 1;
            if self.pushed.is_multiple_of(PUSHED_AT_ONCE) {
                self.intake.fill();
            }
            while let Some(transition) = transitions.next_if(|next| next.at < seen.at) {
                self.push_transition(&transition)?;
            }
            self.pipeline.push(Input::Observed(seen.clone()))?;
        }
        for transition in transitions {
            self.push_transition(&transition)?;
        }
        Ok(())
    }

    fn mark_clock(&mut self, mark: ClockMark) -> Result<()> {
        self.marked = mark.mono;
        self.pipeline.push(Input::Clock(mark))?;
        Ok(())
    }

    /// Takes what is left, confirms what is due, writes the summary.
    fn finish(mut self) -> Result<Summary> {
        self.rest_until = Timestamp::default();
        self.look_again = self.look_again.map(|_| Timestamp::default());
        self.step()?;
        // Once more: what no program was run for is believed only then.
        self.count_lost()?;
        self.mark_clock(clock::mark())?;
        let unfollowed = self.kernel.unfollowed()?;
        if unfollowed > 0 {
            log::warn!(
                "{unfollowed} processes could not be followed, as there were too many at once"
            );
        }
        self.pipeline.push(Input::End { at: self.pipeline.now() })?;
        Ok(self.pipeline.finish()?)
    }
}
