//! Iterator passes: one look at every socket of the host.

use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
};

use aya::maps::{Array, MapData};
use tcpwatch_common::{PassSetting, RawObserved};

use super::sys;
use crate::core::{input::Scope, pipeline::scope_states, socket::SocketId};
use crate::{core::input::Observation, decode};

/// The iterators, ready to run. They need no further privilege.
pub struct Passes {
    /// Every (process, fd).
    pub(super) task_file: OwnedFd,
    /// Every socket we remember; absent on kernels that cannot.
    pub(super) storage: Option<OwnedFd>,
    pub(super) settings: Array<MapData, u32>,
}

impl Passes {
    /// Runs one pass. Sockets with an fd come once per holder; then, unless only watched
    /// processes matter, those we remember that nobody holds.
    pub fn run(&mut self, scope: Scope) -> io::Result<Vec<Observation>> {
        self.set(PassSetting::States, scope_states(scope))?;
        self.set(PassSetting::PidsOnly, u32::from(scope == Scope::Watched))?;
        let mut observations = read(&self.task_file)?;
        if scope != Scope::Watched
            && let Some(storage) = &self.storage
        {
            let held: rustc_hash::FxHashSet<Option<SocketId>> =
                observations.iter().map(|seen| seen.socket.id).collect();
            let without_fd = read(storage)?;
            observations
                .extend(without_fd.into_iter().filter(|seen| !held.contains(&seen.socket.id)));
        }
        Ok(observations)
    }

    /// Whether sockets that nobody holds can be found.
    pub fn finds_sockets_without_fd(&self) -> bool {
        self.storage.is_some()
    }

    fn set(&mut self, slot: PassSetting, value: u32) -> io::Result<()> {
        self.settings.set(slot as u32, value, 0).map_err(io::Error::other)
    }
}

fn read(link: &OwnedFd) -> io::Result<Vec<Observation>> {
    let mut bytes = Vec::new();
    sys::start_iterator(link)?.read_to_end(&mut bytes)?;
    bytes
        .chunks(size_of::<RawObserved>())
        .map(|record| decode::observation(record).map_err(io::Error::other))
        .collect()
}
