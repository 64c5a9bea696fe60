//! What other things are called, and what processes said of themselves.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    input::Observation,
    process::ProcessFacts,
    socket::Process,
    time::{Nanos, Timestamp},
};

/// What a process said of itself stands for this long, and is then asked again.
const FRESH: Nanos = Nanos::SECOND;
/// Namespaces that have a name at most: more than a host can have, but not more than a forged
/// recording.
const MOST: usize = 1 << 16;

/// Names of namespaces, and what processes said.
#[derive(Debug, Default)]
pub struct Names {
    processes: FxHashMap<u32, Arc<ProcessFacts>>,
    namespaces: FxHashMap<u32, Arc<str>>,
    /// A process in each namespace, as the last scan saw it: who has no other name is known by this.
    inhabitants: FxHashMap<u32, Process>,
}

impl Names {
    /// Takes in what a process said.
    pub fn learn(&mut self, facts: Arc<ProcessFacts>) {
        self.processes.insert(facts.pid, facts);
    }

    /// Takes in the name of a network namespace, or that it has none any more and that somebody else
    /// lives there: the kernel gives the inode of one that is gone to the next.
    ///
    /// Returns whether it has lost a name.
    pub fn name(&mut self, netns: u32, name: Option<Arc<str>>) -> bool {
        match name {
            Some(name) if self.namespaces.len() < MOST || self.namespaces.contains_key(&netns) => {
                self.namespaces.insert(netns, name);
                false
            }
            Some(_) => false,
            None => {
                self.inhabitants.remove(&netns);
                self.namespaces.remove(&netns).is_some()
            }
        }
    }

    /// Part of what was said is missing: a name may be somebody else's by now.
    pub fn doubt(&mut self) {
        self.namespaces.clear();
    }

    /// A scan that sees everyone begins: it says anew who lives where.
    pub fn begin_scan(&mut self) {
        self.inhabitants.clear();
    }

    /// Notes who lives in a namespace: the lowest pid stands for it.
    pub fn observe(&mut self, observation: &Observation) {
        let Some(holder) = observation.holder else { return };
        let inhabitant = self.inhabitants.entry(observation.socket.netns).or_insert(holder.process);
        if holder.process.pid < inhabitant.pid {
            *inhabitant = holder.process;
        }
    }

    /// Forgets a process.
    pub fn exited(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// Forgets what was said too long ago to speak of now.
    pub fn forget(&mut self, now: Timestamp) {
        self.processes.retain(|_, facts| now.since(facts.at) < FRESH);
    }

    /// What a process said, if that is fresh enough to speak of `at`.
    pub fn process(&self, pid: u32, at: Timestamp) -> Option<&Arc<ProcessFacts>> {
        self.processes.get(&pid).filter(|facts| at.since(facts.at) < FRESH)
    }

    /// Whether a process should be asked (again).
    pub fn wants(&self, pid: u32, now: Timestamp) -> bool {
        self.process(pid, now).is_none()
    }

    /// What a network namespace is called: its own name, or that of a process in it.
    pub fn namespace(&self, netns: u32) -> Option<Arc<str>> {
        let inhabitant = || Some(self.inhabitants.get(&netns)?.to_string().into());
        self.namespaces.get(&netns).cloned().or_else(inhabitant)
    }

    /// Entries in all tables.
    pub fn entries(&self) -> usize {
        self.processes.len() + self.namespaces.len() + self.inhabitants.len()
    }
}
