//! A pass among the transitions of its time: what it saw and what the ring brought go through the
//! pipeline in one order.

use std::io;

use anyhow::Result;

use super::{PUSHED_AT_ONCE, Watcher};
use crate::{
    core::{
        input::{Input, Observation, Scope},
        state::State,
        time::{Nanos, Timestamp},
    },
    kernel::{clock, facts::Answer, memory},
    source::intake::Pass,
};

/// Observations of a pass that are worth giving back: some megabytes.
const MANY_LOOKS: usize = 20_000;

impl Watcher<'_> {
    /// Runs a pass and pushes what it saw, in order with the transitions of that time. A pass that
    /// fails is no reason to end: findings then say that nothing confirms them.
    pub(super) fn pass(&mut self, scope: Scope) -> Result<()> {
        let (began, used) = (clock::now(), clock::used());
        let expected = self.pipeline.lingering().collect();
        let pass = self.intake.pass(scope, expected);
        self.take_in(scope, began, used, pass)
    }

    /// Pushes what a pass saw. `began` is when it did, `used` the CPU time of this thread before it.
    pub(super) fn take_in(
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
                self.pace.failed(at);
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
        self.pace.passed(at, Nanos(here + pass.cost.0 + asking.0));
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
        for answer in answers {
            match answer {
                Answer::Said(facts) => self.pipeline.push(Input::Process(facts))?,
                Answer::Gone(pid) => self.has_ended(pid)?,
            }
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
}
