//! Counts all sockets by state, for a monitor. The look goes past the core: it concludes nothing from
//! it, and a recording need not hold it.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::Watcher;
use crate::{
    core::{filter::Filter, input::Observation, socket::SocketId, state::State, time::Timestamp},
    kernel::{clock, processes::sees_all_pids, sockstat},
    source::monitor::Counts,
};

impl Watcher<'_> {
    /// Counts if the monitor wants it now.
    pub(super) fn count_sockets(&mut self, now: Timestamp) {
        let Some(monitor) = &mut self.monitor else { return };
        if !monitor.wants_count(now) {
            return;
        }
        let mut counter = Counter { filter: &self.filter, namespaces: BTreeMap::new() };
        let mut seen = FxHashSet::default();
        let (looked, cost) = self.intake.look(|look| counter.take(&look, &mut seen));
        let at = clock::now();
        monitor.looked(at, at.since(now), looked.is_ok());
        monitor.counted(at, looked.map(|()| counter.counts()), cost);
    }
}

/// Processes that are asked about a network namespace.
const MOST_PIDS: usize = 4;

/// What a look has brought so far.
struct Counter<'a> {
    filter: &'a Filter,
    namespaces: BTreeMap<u32, Namespace>,
}

#[derive(Default)]
struct Namespace {
    states: [u64; 12],
    /// Processes with a socket of it, of which one will be in it.
    pids: Vec<u32>,
}

impl Counter<'_> {
    /// A socket that several processes hold counts once.
    fn take(&mut self, look: &Observation, seen: &mut FxHashSet<SocketId>) {
        let pid = look.holder.map(|holder| holder.process.pid);
        let watched =
            self.filter.pids.is_empty() || pid.is_some_and(|pid| self.filter.pids.contains(&pid));
        if !watched || !self.filter.accepts(&look.socket, look.state) {
            return;
        }
        let namespace = self.namespaces.entry(look.socket.netns).or_default();
        if let Some(pid) = pid
            && namespace.pids.len() < MOST_PIDS
            && !namespace.pids.contains(&pid)
        {
            namespace.pids.push(pid);
        }
        if look.socket.id.is_none_or(|id| seen.insert(id)) {
            namespace.states[usize::from(look.state.number())] += 1;
        }
    }

    fn counts(self) -> Counts {
        let complete = counts_everything(self.filter) && sees_all_pids();
        let namespaces = self.namespaces.into_iter().map(|(netns, namespace)| {
            let mut states = namespace.states.map(Some);
            let mut pids = namespace.pids.into_iter().filter(|_| complete);
            states[usize::from(State::TimeWait.number())] =
                pids.find_map(|pid| sockstat::time_wait(pid, netns));
            (netns, states)
        });
        Counts { namespaces: namespaces.collect() }
    }
}

/// Whether the kernel's own counts are of what the filter lets pass.
fn counts_everything(filter: &Filter) -> bool {
    filter.watches_all()
        && filter.local_ports.is_empty()
        && filter.remote_ports.is_empty()
        && filter.family.is_none()
        && filter.uids.is_empty()
}
