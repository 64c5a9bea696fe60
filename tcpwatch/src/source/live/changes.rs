//! What the scan before observed, so that the next one reports only what changed.
//!
//! A host that leaks has thousands of sockets that linger unchanged. Without this, every scan would push
//! all of them again, and a recording would grow with the square of what lingers.

use std::{
    collections::BTreeSet,
    hash::{Hash as _, Hasher as _},
};

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use crate::core::{
    input::{Observation, Transition},
    socket::SocketId,
    state::State,
    time::{Nanos, Timestamp},
};

/// Two readings of one TCP timestamp differ by at most a jiffy each: 10 ms at the lowest clock rate.
const JITTER: Nanos = Nanos(25_000_000);

/// The sockets of the scan before: about 50 bytes each.
#[derive(Debug, Default)]
pub(super) struct Changes {
    seen: FxHashMap<SocketId, Seen>,
    gone: FxHashSet<SocketId>,
    /// The lowest pid in each network namespace, which its name may be taken from.
    inhabitants: FxHashMap<u32, u32>,
}

/// What is worth reporting of a scan.
pub(super) struct Selected {
    pub(super) observations: Vec<Observation>,
    /// Network namespaces whose lowest pid is another, or that are gone.
    pub(super) renamed: BTreeSet<u32>,
}

/// A socket as one scan observed it, for all its holders together.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    hash: u64,
    at: Timestamp,
    /// When the last ACK and the last data came in, and the last data was sent.
    active: [Timestamp; 3],
}

impl Changes {
    /// Notes what a scan of everything observed; all of it is reported.
    pub(super) fn replace(&mut self, observations: &[Observation]) {
        self.seen = digest(observations);
        self.inhabitants = inhabitants(observations);
        self.gone.clear();
    }

    /// The observations of a scan that are worth reporting: those of sockets that changed since the scan
    /// before, and those that are `wanted` all the same. Whatever is not found any more is gone.
    pub(super) fn select(
        &mut self,
        mut observations: Vec<Observation>,
        wanted: impl Fn(&Observation, SocketId) -> bool,
    ) -> Selected {
        let (now, lowest) = (digest(&observations), inhabitants(&observations));
        let others = |netns: &u32| lowest.get(netns) != self.inhabitants.get(netns);
        let renamed: BTreeSet<u32> =
            self.inhabitants.keys().filter(|netns| others(netns)).copied().collect();
        observations.retain(|seen| {
            let netns = seen.socket.netns;
            let pid = seen.holder.map(|holder| holder.process.pid);
            let newcomer = others(&netns) && pid == lowest.get(&netns).copied();
            seen.socket.id.is_none_or(|id| {
                let same = |before: &Seen| now.get(&id).is_some_and(|now| now.is_as(before));
                newcomer || !self.seen.get(&id).is_some_and(same) || wanted(seen, id)
            })
        });
        self.gone = self.seen.keys().filter(|id| !now.contains_key(id)).copied().collect();
        (self.seen, self.inhabitants) = (now, lowest);
        Selected { observations, renamed }
    }

    /// A transition says what became of a socket, unless a scan has seen the socket since: what is at hand
    /// of the time of a scan is applied after it. Of one that is closed already it says nothing: MPTCP has a
    /// transition then, too.
    pub(super) fn apply(&mut self, transition: &Transition) {
        let left = matches!(transition.old, State::CloseWait | State::Listen);
        let Some(id) = transition.socket.id.filter(|_| left) else { return };
        self.gone.remove(&id);
        if self.seen.get(&id).is_some_and(|seen| seen.at <= transition.at) {
            self.seen.remove(&id);
        }
    }

    /// What the last scan did not find and no transition has explained, in order.
    pub(super) fn take_gone(&mut self) -> Vec<SocketId> {
        let mut gone: Vec<_> = self.gone.drain().collect();
        gone.sort_unstable();
        gone
    }
}

impl Seen {
    fn is_as(&self, before: &Self) -> bool {
        let near = |(now, before): (&Timestamp, &Timestamp)| now.0.abs_diff(before.0) <= JITTER.0;
        self.hash == before.hash && self.active.iter().zip(&before.active).all(near)
    }
}

/// The sockets that a scan for lingering ones covers.
fn digest(observations: &[Observation]) -> FxHashMap<SocketId, Seen> {
    let mut all = FxHashMap::<SocketId, Seen>::default();
    for observation in observations {
        let covered = matches!(observation.state, State::CloseWait | State::Listen | State::Close);
        let Some(id) = observation.socket.id.filter(|_| covered) else { continue };
        let seen = all.entry(id).or_default();
        // Holders come in any order.
        seen.hash = seen.hash.wrapping_add(hash(observation));
        seen.at = seen.at.max(observation.at);
        if let Some(activity) = observation.activity {
            let ages = [activity.ack_received, activity.data_received, activity.data_sent];
            seen.active = ages.map(|age| observation.at - age);
        }
    }
    all
}

/// The lowest pid in each network namespace.
fn inhabitants(observations: &[Observation]) -> FxHashMap<u32, u32> {
    let mut lowest = FxHashMap::default();
    for observation in observations {
        let Some(holder) = observation.holder else { continue };
        let pid = lowest.entry(observation.socket.netns).or_insert(holder.process.pid);
        *pid = holder.process.pid.min(*pid);
    }
    lowest
}

fn hash(observation: &Observation) -> u64 {
    let Observation { state, entered, holder, queue, waiters, send_window, socket, .. } =
        observation;
    let flags = observation.activity.map(|activity| (activity.keepalive, activity.quiet_since_fin));
    let mut hasher = FxHasher::default();
    (state, entered, holder, queue, waiters, send_window, socket, flags).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        comm::Comm,
        input::Activity,
        socket::{Holder, Process, Protocol, Socket},
    };

    fn seen(id: u64, at: u64, fd: u32) -> Observation {
        let at = Timestamp(at * 1_000_000_000);
        let process = Process { pid: 7, comm: Comm::from("web") };
        // Everything that TCP notes happened at the first second.
        let age = at.since(Timestamp(1_000_000_000));
        Observation {
            at,
            state: State::CloseWait,
            entered: None,
            holder: Some(Holder { process, fd }),
            queue: (0, 0),
            activity: Some(Activity {
                ack_received: age,
                data_received: age,
                data_sent: age,
                keepalive: false,
                quiet_since_fin: true,
            }),
            waiters: None,
            send_window: None,
            details: None,
            socket: Socket {
                id: Some(SocketId(id)),
                cookie: None,
                listener: None,
                born: None,
                netns: 1,
                protocol: Protocol::Tcp,
                local: ([127, 0, 0, 1], 80).into(),
                remote: ([10, 0, 0, 9], 5000).into(),
                uid: 0,
                cgroup: None,
                inode: Some(9),
                owner: None,
                role: None,
                has_file: true,
                watched: false,
                tcp: None,
                error: 0,
                uncertain: false,
            },
        }
    }

    fn select(changes: &mut Changes, observations: Vec<Observation>) -> Vec<u64> {
        let selected = changes.select(observations, |_, id| id == SocketId(3));
        selected.observations.iter().filter_map(|seen| Some(seen.socket.id?.0)).collect()
    }

    #[test]
    fn only_what_changed_is_reported() {
        let mut changes = Changes::default();
        changes.replace(&[seen(1, 5, 4), seen(2, 5, 5)]);
        assert_eq!(select(&mut changes, vec![seen(2, 9, 5), seen(1, 9, 4)]), [0; 0]);
        let mut read = seen(1, 11, 4);
        read.send_window = Some(3);
        assert_eq!(select(&mut changes, vec![read.clone(), seen(2, 11, 5)]), [1]);
        // An ACK came in.
        let mut acked = seen(2, 12, 5);
        acked.activity = acked.activity.map(|it| Activity { ack_received: Nanos(0), ..it });
        assert_eq!(select(&mut changes, vec![read, acked]), [2]);
    }

    #[test]
    fn a_socket_with_another_holder_is_reported_whole() {
        let mut changes = Changes::default();
        changes.replace(&[seen(1, 5, 4), seen(1, 5, 6)]);
        assert_eq!(select(&mut changes, vec![seen(1, 9, 6), seen(1, 9, 4)]), [0; 0]);
        assert_eq!(select(&mut changes, vec![seen(1, 9, 4), seen(1, 9, 6), seen(1, 9, 7)]), [1; 3]);
        assert_eq!(select(&mut changes, vec![seen(1, 9, 7)]), [1]);
    }

    #[test]
    fn a_namespace_is_renamed_when_its_lowest_pid_is_another() {
        let mut changes = Changes::default();
        let mut other = seen(2, 5, 5);
        other.holder = other
            .holder
            .map(|holder| Holder { process: Process { pid: 9, ..holder.process }, ..holder });
        changes.replace(&[seen(1, 5, 4), other.clone()]);
        assert!(
            changes.select(vec![seen(1, 6, 4), other.clone()], |_, _| false).renamed.is_empty()
        );
        let selected = changes.select(vec![other], |_, _| false);
        assert_eq!(selected.renamed, BTreeSet::from([1]));
        assert_eq!(selected.observations.len(), 1);
    }

    #[test]
    fn what_is_wanted_is_reported_unchanged() {
        let mut changes = Changes::default();
        changes.replace(&[seen(3, 5, 4)]);
        assert_eq!(select(&mut changes, vec![seen(3, 9, 4)]), [3]);
    }

    fn left(id: u64, at: u64) -> Transition {
        Transition {
            at: Timestamp(at * 1_000_000_000),
            old: State::CloseWait,
            new: State::Close,
            entered: None,
            actor: None,
            exiting: false,
            disconnects: false,
            socket: seen(id, at, 4).socket,
        }
    }

    #[test]
    fn a_transition_from_before_a_scan_does_not_undo_what_that_saw() {
        let mut changes = Changes::default();
        changes.replace(&[seen(1, 5, 4)]);
        changes.apply(&left(1, 4));
        select(&mut changes, Vec::new());
        assert_eq!(changes.take_gone(), [SocketId(1)]);
    }

    #[test]
    fn what_is_gone_is_named_once_unless_a_transition_explains_it() {
        let mut changes = Changes::default();
        changes.replace(&[seen(1, 5, 4), seen(2, 5, 5)]);
        select(&mut changes, Vec::new());
        changes.apply(&left(1, 6));
        assert_eq!(changes.take_gone(), [SocketId(2)]);
        select(&mut changes, Vec::new());
        assert!(changes.take_gone().is_empty());
    }

    #[test]
    fn what_closes_again_is_named_when_it_is_gone() {
        let mut changes = Changes::default();
        changes.replace(&[seen(1, 5, 4), seen(2, 5, 4)]);
        let again = |id, at| Transition { old: State::Close, ..left(id, at) };
        changes.apply(&again(1, 6));
        select(&mut changes, Vec::new());
        changes.apply(&again(2, 7));
        assert_eq!(changes.take_gone(), [SocketId(1), SocketId(2)]);
    }
}
