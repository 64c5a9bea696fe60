//! Tracks that sockets lie under: one per owner.

use std::io::{self, Write};

use super::{
    packets::Packets,
    proto::{CHRONOLOGICAL, ProcessDescriptor, TrackDescriptor},
    recent::Recent,
};
use crate::core::{comm::Comm, socket::Process};

/// Processes remembered at least. One that comes back after so many others gets a second track
/// under the same process.
const MOST_PROCESSES: usize = 65_536;

/// The tracks of processes, and that of nobody known.
pub(super) struct Owners {
    tracks: Recent<Process, u64>,
    /// Whose name a pid's process track bears.
    names: Recent<u32, Comm>,
    nobody: Option<u64>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            tracks: Recent::new(MOST_PROCESSES),
            names: Recent::new(MOST_PROCESSES),
            nobody: None,
        }
    }

    /// The track of an owner, described when it is first asked for.
    pub(super) fn track<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        owner: Option<Process>,
    ) -> io::Result<u64> {
        let Some(process) = owner else { return self.nobody(out) };
        if let Some(track) = self.tracks.get(process) {
            return Ok(track);
        }
        let uuid = out.new_uuid();
        out.describe(self.descriptor(uuid, process))?;
        self.tracks.insert(process, uuid);
        Ok(uuid)
    }

    /// A process has one name in a trace. A pid that was reused, or that changed its name, gets a
    /// track that is no process, so that nothing of it lies under another's name.
    fn descriptor(&mut self, uuid: u64, process: Process) -> TrackDescriptor {
        let Process { pid, comm } = process;
        let child_ordering = Some(CHRONOLOGICAL);
        let track = TrackDescriptor { uuid: Some(uuid), child_ordering, ..Default::default() };
        let name = self.names.get(pid);
        if name.is_none() {
            self.names.insert(pid, comm);
        }
        match i32::try_from(pid) {
            Ok(pid) if name.is_none_or(|name| name == comm) => {
                let process_name = Some(comm.to_string());
                let process = ProcessDescriptor { pid: Some(pid), process_name };
                TrackDescriptor { process: Some(process), ..track }
            }
            _ => TrackDescriptor { name: Some(process.to_string()), ..track },
        }
    }

    fn nobody<W: Write>(&mut self, out: &mut Packets<W>) -> io::Result<u64> {
        if let Some(track) = self.nobody {
            return Ok(track);
        }
        let uuid = out.new_uuid();
        out.describe(TrackDescriptor {
            uuid: Some(uuid),
            name: Some("owner not known".to_owned()),
            child_ordering: Some(CHRONOLOGICAL),
            ..TrackDescriptor::default()
        })?;
        self.nobody = Some(uuid);
        Ok(uuid)
    }
}
