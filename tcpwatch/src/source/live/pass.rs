//! A pass among the transitions of its time: what it saw and what the ring brought go through the
//! pipeline in one order.

use std::{collections::BTreeSet, io};

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
        let expected = self.pipeline.tracker.lingering().collect();
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
        let Pass { started, observations, cost } = match pass {
            Ok(pass) => pass,
            Err(error) => return self.pass_failed(began, &error),
        };
        let (read, found) = (clock::now(), observations.len());
        let observations = self.begin_pass(scope, started, observations)?;
        if scope == Scope::Everything {
            self.name_all_namespaces()?;
        }
        self.push_batch_in_order(&observations)?;
        self.name_gone()?;
        let asking = self.ask_processes()?;
        let at = clock::now();
        self.pipeline.push(Input::PassEnd { at })?;
        log::debug!(
            "pass over {scope:?}: {found} looks, {} of them news, in {:.1} ms, read after {:.1} ms",
            observations.len(),
            at.since(started).milliseconds(),
            read.since(started).milliseconds()
        );
        if let Some(monitor) = &mut self.monitor {
            monitor.looked(at, at.since(began), true);
        }
        let here = clock::used().0.saturating_sub(used.0);
        self.pace.passed(at, Nanos(here + cost.0 + asking.0));
        if found > MANY_LOOKS {
            drop(observations);
            memory::give_back();
        }
        Ok(())
    }

    fn pass_failed(&mut self, began: Timestamp, error: &io::Error) -> Result<()> {
        log::warn!("cannot look at open sockets: {error}");
        self.push_batch_in_order(&[])?;
        let at = clock::now();
        if let Some(monitor) = &mut self.monitor {
            monitor.looked(at, at.since(began), false);
        }
        self.pace.failed(at);
        Ok(self.pipeline.push(Input::PassFailed { at })?)
    }

    /// Says that a scan begins, and returns the observations that the pipeline needs.
    fn begin_pass(
        &mut self,
        scope: Scope,
        at: Timestamp,
        mut observations: Vec<Observation>,
    ) -> Result<Vec<Observation>> {
        observations.retain(|seen| self.filter.concerns(seen));
        let reported = if scope == Scope::Lingering { Scope::Changes } else { scope };
        self.pipeline.push(Input::PassBegin { at, scope: reported })?;
        match scope {
            Scope::Everything => self.changes.replace(&observations),
            Scope::Watched => {}
            Scope::Lingering | Scope::Changes => {
                let pipeline = &self.pipeline;
                let selected = self.changes.select(observations, |seen, id| match seen.state {
                    State::Listen => !pipeline.tracker.knows_listener(id),
                    // Details change all the time; a finding shows those of its own moment.
                    _ => seen.details.is_some() && pipeline.tracker.is_due(id),
                });
                observations = selected.observations;
                self.forget_inhabitants(selected.renamed)?;
            }
        }
        Ok(observations)
    }

    /// A namespace that has no name of its own goes by a process in it, which may be another by now.
    fn forget_inhabitants(&mut self, renamed: BTreeSet<u32>) -> Result<()> {
        let at = self.pipeline.tracker.now();
        for inode in renamed {
            if !self.namespaces.is_named(inode) {
                self.pipeline.push(Input::Namespace { at, inode, name: None })?;
            }
        }
        Ok(())
    }

    fn name_gone(&mut self) -> Result<()> {
        let at = self.pipeline.tracker.now();
        for id in self.changes.take_gone() {
            self.pipeline.push(Input::Gone { at, id })?;
        }
        Ok(())
    }

    /// Asks the processes that findings of this pass are about; returns the CPU time it took.
    fn ask_processes(&mut self) -> Result<Nanos> {
        let pids = self.pipeline.tracker.wants_processes();
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
        for listener in observations.iter().filter(listens) {
            self.pipeline.push(Input::Observed(listener.clone()))?;
        }
        let mut transitions = std::mem::take(&mut self.intake.batch);
        transitions.sort_by_key(|transition| transition.at);
        let mut transitions = transitions.into_iter().peekable();
        // Both are in order of time; at the same moment the look was first.
        for seen in observations.iter().filter(|seen| !listens(seen)) {
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
