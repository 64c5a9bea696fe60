//! The ring buffer of transitions.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::sys;

/// The consumer's end. The kernel wakes it only when the ring fills; otherwise the owner drains
/// it on a tick.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// Tells when the ring fills, from the first time that somebody waits for it.
    wakes: Option<AsyncFd<OwnedFd>>,
}

impl Ring {
    /// Takes the map.
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, wakes: None }
    }

    /// Hands over at most `most` records; says whether the ring is empty now.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> bool {
        for _ in 0..most {
            match self.ring.next() {
                Some(record) => take(&record),
                None => return true,
            }
        }
        false
    }

    /// Waits until the kernel says that the ring is filling. Must be called inside a tokio runtime.
    pub async fn filling(&mut self) -> io::Result<()> {
        let wakes = match self.wakes.take() {
            Some(wakes) => wakes,
            None => sys::register(self.ring.as_fd().try_clone_to_owned()?)?,
        };
        let mut guard = self.wakes.insert(wakes).readable().await?;
        guard.clear_ready();
        Ok(())
    }
}
