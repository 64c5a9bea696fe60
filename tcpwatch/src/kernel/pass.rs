//! Iterator passes: one look at every socket of the host.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tcpwatch_common::{MOST_QUEUED, PassSetting};

use super::{clock, load::Later, processes::sees_all_pids, residents::Residents, sys};
use crate::{
    core::{
        input::{Observation, Scope},
        socket::{Protocol, SocketId},
        state::State,
        tracker::scope_states,
    },
    decode,
};

/// The iterators, ready to run.
pub struct Passes {
    /// Every (process, fd).
    pub(super) task_file: OwnedFd,
    /// Every socket we remember; absent on kernels that cannot, or must not.
    pub(super) storage: Option<OwnedFd>,
    /// The sockets of one network namespace that nobody holds.
    pub(super) tcp: Option<OwnedFd>,
    /// The cookies of the connections in `CLOSE_WAIT` of one network namespace, where nothing is
    /// remembered.
    pub(super) cookies: Option<OwnedFd>,
    /// Network namespaces that these are wanted of; none are all.
    pub(super) only: BTreeSet<u32>,
    pub(super) settings: Array<MapData, u32>,
    /// Namespaces that could not be entered; with the first it was said so.
    pub(super) missed: FxHashSet<u32>,
    /// Other network namespaces are left out; or how many were entered.
    pub(super) stays: bool,
    pub(super) entered: usize,
    /// Number of the last pass.
    pub(super) number: u32,
    /// Nothing is remembered from one pass to the next.
    pub(super) look_only: bool,
    /// What loads the iterators over sockets without an fd, once a pass finds that it needs them.
    pub(super) later: Option<Later>,
}

/// Bytes taken from the kernel at once: what fits the cache.
const BUFFER: usize = 256 << 10;

impl Passes {
    /// Runs one pass, in order of time. Sockets with an fd come once per holder, those that nobody
    /// holds at least once.
    ///
    /// A pass over everything also takes in what we do not remember yet: sockets in accept
    /// queues, namespace by namespace.
    pub fn run(&mut self, scope: Scope, take: impl FnMut(Observation)) -> io::Result<()> {
        self.run_with(scope, scope_states(scope), None, take)
    }

    /// The same, but sockets that nobody holds are looked for only if one of these is not found
    /// with an fd.
    pub fn run_for(
        &mut self,
        scope: Scope,
        expected: FxHashSet<SocketId>,
        take: impl FnMut(Observation),
    ) -> io::Result<()> {
        let expected = (scope != Scope::Everything).then_some(expected);
        self.run_with(scope, scope_states(scope), expected, take)
    }

    /// A pass over everything, `TIME_WAIT` included: those have no process, no socket id, and may
    /// be many.
    pub fn run_with_time_wait(&mut self, take: impl FnMut(Observation)) -> io::Result<()> {
        self.run_with(Scope::Everything, u32::MAX, None, take)
    }

    fn run_with(
        &mut self,
        scope: Scope,
        states: u32,
        mut expected: Option<FxHashSet<SocketId>>,
        mut take: impl FnMut(Observation),
    ) -> io::Result<()> {
        // 0 is what the kernel program remembers of a socket that no pass has seen.
        self.number = self.number.wrapping_add(1).max(1);
        self.set(PassSetting::Number, self.number)?;
        self.set(PassSetting::States, states)?;
        self.set(PassSetting::PidsOnly, u32::from(scope == Scope::Watched))?;
        let (all, look_only) = (scope == Scope::Everything, self.look_only);
        let mut sight = Sight { all, look_only, ..Sight::default() };
        let mut queued = false;
        let own = own_namespace();
        if all {
            sight.inhabitants.insert(own, std::process::id());
        }
        read(&self.task_file, |seen| {
            if let (Some(expected), Some(id)) = (&mut expected, &seen.socket.id) {
                expected.remove(id);
            }
            queued |= seen.state == State::Listen
                && (seen.queue.0 > 0 || seen.socket.protocol == Protocol::Mptcp);
            sight.note(&seen);
            take(seen);
        })?;
        if scope == Scope::Watched || expected.is_some_and(|missing| missing.is_empty()) {
            return Ok(());
        }
        if queued || all {
            self.load_rest()?;
        }
        if let Some(storage) = &self.storage {
            read(storage, |seen| {
                sight.note(&seen);
                take(seen);
            })?;
        }
        if look_only && !all {
            self.find_unheld(own, &mut sight)?;
        }
        // Without the storage only this leads to what is not in a queue either. Other namespaces are not entered.
        if self.storage.is_none() && !look_only {
            sight.inhabitants.insert(own, std::process::id());
        }
        // Where processes are hidden, so are those who hold most sockets.
        let blind = !sees_all_pids();
        let Sight { inhabitants, found, residents, .. } = &mut sight;
        self.namespaces(own, inhabitants, residents, &mut |seen| {
            let is_found = seen.socket.id.is_some_and(|id| found.contains(&id));
            if !seen.socket.has_file || !blind && !is_found {
                take(seen);
            }
        })
    }

    /// Adds the network namespaces with a connection that no file descriptor led to.
    fn find_unheld(&mut self, own: u32, sight: &mut Sight) -> io::Result<()> {
        let Some(cookies) = self.cookies.as_ref().filter(|_| sees_all_pids()) else {
            return Ok(());
        };
        sight.elsewhere.insert(own, std::process::id());
        for (&netns, &pid) in &sight.elsewhere {
            let wanted = self.only.is_empty() || self.only.contains(&netns);
            if !wanted || sight.inhabitants.contains_key(&netns) || self.stays && netns != own {
                continue;
            }
            let there = if netns == own {
                read_numbers(cookies).map(Some)
            } else {
                run_in(sight.residents.open(netns, pid), || read_numbers(cookies))
            };
            let found = |it: &u64| sight.found.contains(&SocketId(*it));
            match there {
                Ok(there) if there.iter().flatten().all(found) => {}
                Ok(_) => {
                    sight.inhabitants.insert(netns, pid);
                }
                Err(error) if netns == own => return Err(error),
                Err(error) => log::debug!("cannot look into the namespace of {pid}: {error}"),
            }
        }
        if !sight.inhabitants.is_empty() {
            self.load_rest()?;
        }
        Ok(())
    }

    /// Loads what was put off until a pass would need it.
    pub fn load_rest(&mut self) -> io::Result<()> {
        if let Some(later) = self.later.take() {
            (self.storage, self.tcp) = later.load().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Leaves other network namespaces out from now on. What a pass over everything has found there is
    /// remembered, and is seen all the same.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Whether the kernel lets this thread prepare a pass.
    pub fn try_settings(&self) -> Result<()> {
        self.settings.get(&0, 0).map(drop).context("read a setting")
    }

    /// Whether any pass has looked into another network namespace.
    pub fn has_entered(&self) -> bool {
        self.entered > 0
    }

    /// Namespaces that could not be entered and have queues which their listeners do not show.
    pub fn missed(&self) -> &FxHashSet<u32> {
        &self.missed
    }

    /// Whether sockets that nobody holds are found wherever they are.
    pub fn walks_storage(&self) -> bool {
        self.storage.is_some()
    }

    fn set(&mut self, slot: PassSetting, value: u32) -> io::Result<()> {
        self.settings.set(slot as u32, value, 0).map_err(io::Error::other)
    }

    /// Sockets without a file in our own namespace and, where we may enter them, in those of the
    /// holders just seen.
    fn namespaces(
        &mut self,
        own: u32,
        inhabitants: &FxHashMap<u32, u32>,
        residents: &mut Residents,
        take: &mut impl FnMut(Observation),
    ) -> io::Result<()> {
        let Some(tcp) = &self.tcp else { return Ok(()) };
        for (&netns, &pid) in inhabitants {
            if netns == own {
                read(tcp, &mut *take)?;
                continue;
            }
            if self.stays || !self.only.is_empty() && !self.only.contains(&netns) {
                continue;
            }
            let there = run_in(residents.open(netns, pid), || {
                let mut found = Vec::new();
                read(tcp, |seen| found.push(seen))?;
                Ok(found)
            });
            match there {
                Ok(found) => {
                    self.entered += usize::from(found.is_some());
                    found.into_iter().flatten().for_each(&mut *take);
                }
                Err(error) => {
                    if self.missed.is_empty() {
                        let refused = error.kind() == io::ErrorKind::PermissionDenied;
                        let takes = if refused { "; it takes CAP_SYS_ADMIN" } else { "" };
                        log::warn!(
                            "cannot look into network namespace {netns} ({error}): long accept queues, orphans and TIME_WAIT there are not seen{takes}"
                        );
                    }
                    self.missed.insert(netns);
                }
            }
        }
        Ok(())
    }
}

/// What a scan has seen so far.
#[derive(Default)]
struct Sight {
    all: bool,
    look_only: bool,
    /// Who holds a socket of each network namespace that is to be looked into.
    inhabitants: FxHashMap<u32, u32>,
    /// The same of each that somebody has a socket of.
    elsewhere: FxHashMap<u32, u32>,
    /// Where nothing is remembered: sockets that were found and may be shown again without an fd.
    found: FxHashSet<SocketId>,
    residents: Residents,
}

impl Sight {
    fn note(&mut self, seen: &Observation) {
        if let Some(holder) = seen.holder {
            if self.all || self.look_only && is_long(seen) {
                self.inhabitants.insert(seen.socket.netns, holder.process.pid);
            }
            if self.look_only {
                self.elsewhere.entry(seen.socket.netns).or_insert(holder.process.pid);
            }
        }
        if self.look_only && (self.all || seen.state == State::CloseWait) {
            self.found.extend(seen.socket.id);
        }
    }
}

/// A listener whose queue the pass has not seen to its end, or, of MPTCP, at all.
fn is_long(seen: &Observation) -> bool {
    let mptcp = seen.socket.protocol == Protocol::Mptcp && seen.state == State::Listen;
    mptcp || seen.state == State::Listen && seen.queue.0 > MOST_QUEUED
}

/// The inode of this thread's network namespace.
fn own_namespace() -> u32 {
    let file = std::fs::metadata("/proc/thread-self/ns/net");
    file.ok().and_then(|file| file.ino().try_into().ok()).unwrap_or(0)
}

/// Does something in a network namespace, on a thread of its own; nothing if there is none any more.
fn run_in<T: Send>(
    namespace: io::Result<Option<File>>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<Option<T>> {
    let Some(namespace) = namespace? else { return Ok(None) };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work().map(Some)
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Runs an iterator that yields numbers to its end.
fn read_numbers(link: &OwnedFd) -> io::Result<Vec<u64>> {
    let mut file = sys::start_iterator(link)?;
    let mut bytes = Vec::new();
    while let Err(error) = file.read_to_end(&mut bytes) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
    }
    Ok(bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes).collect())
}

/// Runs the iterator to its end. The kernel hands out whole records.
fn read(link: &OwnedFd, mut take: impl FnMut(Observation)) -> io::Result<()> {
    let mut file = sys::start_iterator(link)?;
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    let jiffy = clock::jiffy();
    loop {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(bytes) => filled += bytes,
            // After a million objects without output the kernel wants to be asked again
            // (`kernel/bpf/bpf_iter.c`: `MAX_ITER_OBJECTS`).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let mut whole = 0;
        while let Some(len) = decode::observation_len(&buffer[whole..filled])
            && let Some(record) = buffer[whole..filled].get(..len)
        {
            take(decode::observation(record, jiffy).map_err(io::Error::other)?);
            whole += len;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
