//! The live source: drains the ring on a tick, runs passes when something is due.
//!
//! The kernel does not wake us for every record; we come ten times a second, or when it says that
//! the ring is filling. Whatever is at hand then goes through the pipeline in one go.

mod changes;
mod count;
mod namespaces;
mod pace;
mod pass;
mod watched;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::{MissedTickBehavior, interval};

use self::{changes::Changes, namespaces::Namespaces, pace::Pace, watched::Watched};
use super::{
    attached::Attached,
    intake::{Intake, MOST_BATCHES},
    meter::Meter,
    monitor::Monitor,
};
use crate::{
    core::{
        filter::Filter,
        input::{Input, Scope, Transition},
        record::Summary,
        state::State,
        time::{ClockMark, Nanos, Timestamp},
        tracker::Rules,
        unseen::Unseen,
    },
    driver::Driver,
    kernel::{
        clock,
        load::{Kernel, Plan},
        lost::Lost,
        memory, processes,
    },
    output,
    sink::Sink,
    stop::{self, Stop},
    trace::tape::{Due, Tape},
};

/// How often the ring is drained.
const TICK: Duration = Duration::from_millis(100);
/// How often if nobody waits for lines: numbers are read when they are asked for.
const TICK_OF_NUMBERS: Duration = Duration::from_millis(250);
/// Inputs pushed before the ring is drained again.
const PUSHED_AT_ONCE: usize = 8_192;
/// How often the wall clock is looked at again.
const CLOCK_EVERY: Nanos = Nanos::SECOND;

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
    pipeline: Driver<'a>,
    filter: Filter,
    kernel: Kernel,
    intake: Intake,
    watched: Watched,
    namespaces: Namespaces,
    /// Watched processes that have ended, of which what is at hand may still tell.
    ended: Vec<u32>,
    ends_with_reader: bool,
    tick: Duration,
    /// What was told of already.
    lost: Lost,
    marked: Timestamp,
    pace: Pace,
    changes: Changes,
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
        let mut watcher = Self {
            pipeline: Driver::new(live.rules.clone(), sink),
            filter: live.rules.filter.clone(),
            kernel,
            intake,
            watched: Watched::new(&live.plan.filter),
            namespaces: Namespaces::default(),
            ended: Vec::new(),
            ends_with_reader: live.ends_with_reader,
            tick: if live.plan.tally && live.plan.findings_only { TICK_OF_NUMBERS } else { TICK },
            lost: Lost::default(),
            marked: Timestamp::default(),
            pace: Pace::new(),
            changes: Changes::default(),
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
        if !processes::sees_all_pids() {
            watcher.push_unseen(Unseen::Processes)?;
        }
        watcher.watched.begin();
        watcher.take_in(Scope::Everything, began.mono, clock::used(), first)?;
        watcher.watch_listening_processes()?;
        watcher.pipeline.flush()?;
        memory::give_back();
        Ok(watcher)
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
            if self.watched.have_ended() || unread {
                return Ok(());
            }
        }
    }

    /// One round: ended processes, the ring, losses, deadlines, a pass if one is due.
    fn step(&mut self) -> Result<()> {
        let mark = clock::mark();
        for pid in self.watched.ended(mark.mono, &mut self.kernel) {
            self.has_ended(pid)?;
        }
        self.drain()?;
        let due =
            self.pipeline.tracker.next_deadline().is_some_and(|deadline| deadline <= mark.mono);
        if due || mark.mono.since(self.marked) >= CLOCK_EVERY {
            self.marked = mark.mono;
            self.pipeline.push(Input::Clock(mark))?;
        }
        self.check_namespaces(mark.mono)?;
        self.read_meter(mark.mono);
        if let Some(scope) = self.wanted_pass(mark.mono) {
            self.pass(scope)?;
        }
        self.count_sockets(mark.mono);
        self.serve_tape()?;
        self.pipeline.flush()?;
        Ok(())
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
        if self.pace.rests(now) {
            return None;
        }
        let lingers = || self.pipeline.tracker.lingering().next().is_some();
        let again = || self.pace.is_due(now) && lingers();
        self.pipeline.tracker.wants_pass().or_else(|| again().then_some(Scope::Lingering))
    }

    /// Gives the tape what it needs: a place where one can begin to read, in this file or in another.
    /// Either begins with all that is known. Its passes are rationed as all others are.
    fn serve_tape(&mut self) -> Result<()> {
        let now = self.pipeline.tracker.now();
        if self.pace.rests(now) {
            return Ok(());
        }
        let Some(tape) = self.pipeline.tape() else { return Ok(()) };
        let mark = clock::mark();
        match tape.due(now) {
            Due::Nothing => return Ok(()),
            Due::Snapshot => {}
            Due::File => tape.begin_file(&mark),
        }
        self.pipeline.push(Input::Clock(mark))?;
        let at = self.pipeline.tracker.now();
        for pid in self.watched.followed() {
            self.pipeline.push(Input::Followed { at, pid })?;
        }
        for what in self.pipeline.tracker.unseen().to_vec() {
            self.push_unseen(what)?;
        }
        self.pass(Scope::Everything)
    }

    fn push_unseen(&mut self, what: Unseen) -> Result<()> {
        let at = self.pipeline.tracker.now();
        Ok(self.pipeline.push(Input::Unseen { at, what })?)
    }

    /// Takes what is in the ring, in batches; after [`MOST_BATCHES`] the rest waits for the next
    /// round, so that signals and deadlines get their turn.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..MOST_BATCHES {
            let empty = self.intake.fill();
            stop::got_on();
            self.follow()?;
            self.count_lost()?;
            self.push_batch()?;
            if empty && self.intake.batch.is_empty() {
                self.tell_ended()?;
                break;
            }
        }
        // Whoever the last scan has named, too.
        self.watch_listening_processes()
    }

    /// Before the transitions at hand: a process that is gone owns none of them any more. But what watched
    /// processes did is told, however long it has waited in the ring.
    fn has_ended(&mut self, pid: u32) -> Result<()> {
        if !self.pipeline.tracker.is_watched(pid) {
            // Without moving time on: what is still in the ring happened before.
            self.pipeline.push(Input::Exited { at: self.pipeline.tracker.now(), pid })?;
        } else if !self.ended.contains(&pid) {
            self.ended.push(pid);
        }
        Ok(())
    }

    /// Tells of watched processes that have ended, behind what they did.
    fn tell_ended(&mut self) -> Result<()> {
        for pid in std::mem::take(&mut self.ended) {
            self.pipeline.push(Input::Exited { at: self.pipeline.tracker.now(), pid })?;
        }
        Ok(())
    }

    /// Learns of new descendants. After a batch was taken and before it is pushed: whoever made
    /// what is in it was forked before.
    fn follow(&mut self) -> Result<()> {
        let at = self.pipeline.tracker.now();
        for (pid, lives) in self.watched.follow(&mut self.kernel)? {
            self.pipeline.push(Input::Followed { at, pid })?;
            if !lives {
                self.has_ended(pid)?;
            }
        }
        Ok(())
    }

    fn push_batch(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.intake.batch).into_iter();
        while let Some(transition) = batch.next() {
            let settled = self.pipeline.tracker.can_settle(&transition.socket);
            if !settled && !self.pace.rests(clock::now()) {
                // A scan says who holds the listener. What is left of the batch goes through the
                // pipeline with it, in order of time. A scan that waits for its turn is made with it.
                let newer = std::mem::take(&mut self.intake.batch);
                self.intake.batch = std::iter::once(transition).chain(batch).chain(newer).collect();
                let wanted = self.pipeline.tracker.wants_pass();
                let alone = matches!(wanted, None | Some(Scope::Lingering));
                self.pass(if alone { Scope::Lingering } else { Scope::Everything })?;
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
            stop::got_on();
        }
        let settled = self.pipeline.tracker.can_settle(&transition.socket);
        self.changes.apply(transition);
        self.pipeline.push(Input::Transition(*transition))?;
        if transition.new == State::Listen || !settled {
            self.watch_listening_processes()?;
        }
        Ok(())
    }

    /// Asks to be told when a process ends whose listener others inherit from. One that has the id by
    /// now, but not then, is somebody else.
    fn watch_listening_processes(&mut self) -> Result<()> {
        for (pid, named) in self.pipeline.tracker.named() {
            if !self.watched.add(pid, named) {
                self.has_ended(pid)?;
            } else if self.pipeline.tracker.is_claimed(pid) {
                self.pipeline.push(Input::Running { at: self.pipeline.tracker.now(), pid })?;
            }
        }
        Ok(())
    }

    /// After a batch was taken and before it is pushed: what comes after a gap, and the ring had room
    /// for again, must not come before the word of it.
    fn count_lost(&mut self) -> Result<()> {
        let lost = self.kernel.lost()?;
        self.tell_lost(lost)
    }

    fn tell_lost(&mut self, lost: Lost) -> Result<()> {
        let lost = Lost { undecodable: self.intake.undecodable, ..lost };
        let (count, all) = (lost.total() - self.lost.total(), lost.total());
        for (count, why) in lost.since(&self.lost) {
            log::warn!("{count} transitions lost ({all} in all): {why}");
        }
        self.lost = lost;
        if count > 0 {
            self.pipeline.push(Input::Lost { at: clock::now(), count })?;
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
        self.pace.make_haste();
        self.step()?;
        // What no file descriptor led to takes a second scan.
        if self.pipeline.tracker.wants_pass() == Some(Scope::Lingering) {
            self.pace.make_haste();
            self.step()?;
        }
        let lost = self.kernel.lost_in_all()?;
        self.tell_lost(lost)?;
        self.mark_clock(clock::mark())?;
        let unfollowed = self.kernel.unfollowed()?;
        if unfollowed > 0 {
            log::warn!(
                "{unfollowed} processes could not be followed, as there were too many at once"
            );
        }
        if self.intake.missed().iter().any(|netns| self.filter.wants_namespace(*netns)) {
            self.push_unseen(Unseen::Queues)?;
        }
        self.pipeline.push(Input::End { at: self.pipeline.tracker.now() })?;
        Ok(self.pipeline.finish()?)
    }
}
