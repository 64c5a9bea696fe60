//! Iterator passes: one look at every socket of the host.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use aya::maps::{Array, MapData};
use rustc_hash::FxHashSet;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tcpwatch_common::{PassSetting, RawObserved};

use super::sys;
use crate::{
    core::{
        input::{Observation, Scope},
        pipeline::scope_states,
    },
    decode,
};

/// The iterators, ready to run.
pub struct Passes {
    /// Every (process, fd).
    pub(super) task_file: OwnedFd,
    /// Every socket we remember; absent on kernels that cannot.
    pub(super) storage: Option<OwnedFd>,
    /// The sockets of one network namespace that nobody holds.
    pub(super) tcp: Option<OwnedFd>,
    pub(super) settings: Array<MapData, u32>,
    /// Namespaces that a pass could not enter; said once.
    pub(super) closed: FxHashSet<u32>,
}

impl Passes {
    /// Runs one pass. Sockets with an fd come once per holder, those that nobody holds once.
    ///
    /// A pass over everything also takes in what we do not remember yet: sockets in accept
    /// queues, namespace by namespace.
    pub fn run(&mut self, scope: Scope) -> io::Result<Vec<Observation>> {
        self.run_with(scope, scope_states(scope))
    }

    /// A pass over everything, `TIME_WAIT` included: those have no process, no socket id, and may
    /// be many.
    pub fn run_with_time_wait(&mut self) -> io::Result<Vec<Observation>> {
        self.run_with(Scope::Everything, u32::MAX)
    }

    fn run_with(&mut self, scope: Scope, states: u32) -> io::Result<Vec<Observation>> {
        self.set(PassSetting::States, states)?;
        self.set(PassSetting::PidsOnly, u32::from(scope == Scope::Watched))?;
        let mut observations = read(&self.task_file)?;
        if scope == Scope::Watched {
            return Ok(observations);
        }
        let mut known: FxHashSet<_> =
            observations.iter().filter_map(|seen| seen.socket.id).collect();
        let mut without_fd = match &self.storage {
            Some(storage) => read(storage)?,
            None => Vec::new(),
        };
        if scope == Scope::Everything {
            without_fd.extend(self.namespaces(&observations)?);
        }
        observations.extend(
            without_fd.into_iter().filter(|seen| seen.socket.id.is_none_or(|id| known.insert(id))),
        );
        Ok(observations)
    }

    /// Whether sockets that nobody holds can be found.
    pub fn finds_sockets_without_fd(&self) -> bool {
        self.storage.is_some()
    }

    fn set(&mut self, slot: PassSetting, value: u32) -> io::Result<()> {
        self.settings.set(slot as u32, value, 0).map_err(io::Error::other)
    }

    /// Sockets without a file in our own namespace and, where we may enter them, in those of the
    /// holders just seen.
    fn namespaces(&mut self, seen: &[Observation]) -> io::Result<Vec<Observation>> {
        let Some(tcp) = &self.tcp else { return Ok(Vec::new()) };
        let mut all = read(tcp)?;
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |file| file.ino());
        let others: BTreeMap<u32, u32> = seen
            .iter()
            .filter(|seen| u64::from(seen.socket.netns) != own)
            .filter_map(|seen| Some((seen.socket.netns, seen.holder?.process.pid)))
            .collect();
        for (netns, pid) in others {
            match read_in(tcp, pid) {
                Ok(found) => all.extend(found),
                Err(error) if self.closed.insert(netns) => log::warn!(
                    "cannot look into network namespace {netns} for connections that nobody has accepted ({error}); it takes CAP_SYS_ADMIN"
                ),
                Err(_) => {}
            }
        }
        Ok(all)
    }
}

/// Runs the iterator in the network namespace of a process, on a thread of its own.
fn read_in(link: &OwnedFd, pid: u32) -> io::Result<Vec<Observation>> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            read(link)
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

fn read(link: &OwnedFd) -> io::Result<Vec<Observation>> {
    let mut bytes = Vec::new();
    let mut file = sys::start_iterator(link)?;
    // After a million objects without output the kernel says EAGAIN and wants to be asked again
    // (`kernel/bpf/bpf_iter.c`: `MAX_ITER_OBJECTS`).
    while let Err(error) = file.read_to_end(&mut bytes) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
    }
    bytes
        .chunks(size_of::<RawObserved>())
        .map(|record| decode::observation(record).map_err(io::Error::other))
        .collect()
}
