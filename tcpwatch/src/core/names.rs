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
/// What it said is forgotten after this long, unless it was asked again.
const STALE: Nanos = Nanos(600_000_000_000);

/// Names of namespaces, and what processes said.
#[derive(Debug, Default)]
pub struct Names {
    processes: FxHashMap<u32, Arc<ProcessFacts>>,
    namespaces: FxHashMap<u32, Arc<str>>,
    /// A process in each namespace: who has no other name is known by this.
    inhabitants: FxHashMap<u32, (Process, Arc<str>)>,
}

impl Names {
    /// Takes in what a process said.
    pub fn learn(&mut self, facts: Arc<ProcessFacts>) {
        self.processes.insert(facts.pid, facts);
    }

    /// Takes in the name of a network namespace.
    pub fn name(&mut self, netns: u32, name: Arc<str>) {
        self.namespaces.insert(netns, name);
    }

    /// Notes who lives in a namespace: the lowest pid stands for it.
    pub fn observe(&mut self, observation: &Observation) {
        let Some(holder) = observation.holder else { return };
        let netns = observation.socket.netns;
        let known = self.inhabitants.get(&netns);
        if known.is_none_or(|(process, _)| holder.process.pid < process.pid) {
            let name = Arc::from(holder.process.to_string());
            self.inhabitants.insert(netns, (holder.process, name));
        }
    }

    /// Forgets a process.
    pub fn exited(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.inhabitants.retain(|_, (process, _)| process.pid != pid);
    }

    /// Forgets what was said long ago.
    pub fn forget(&mut self, now: Timestamp) {
        self.processes.retain(|_, facts| now.since(facts.at) < STALE);
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
        let inhabitant = || self.inhabitants.get(&netns).map(|(_, name)| name);
        self.namespaces.get(&netns).or_else(inhabitant).cloned()
    }
}
