//! The ring buffer of transitions.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::sys;

/// The consumer's end. The kernel wakes it only when the ring fills; otherwise the owner drains
/// it on a tick.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Takes the map. Must be called inside a tokio runtime.
    pub fn new(map: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self { fd: sys::register(map)? })
    }

    /// Hands over at most `most` records; says whether the ring is empty now.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> bool {
        let ring = self.fd.get_mut();
        for _ in 0..most {
            match ring.next() {
                Some(record) => take(&record),
                None => return true,
            }
        }
        false
    }

    /// Waits until the kernel says that the ring is filling.
    pub async fn filling(&mut self) -> io::Result<()> {
        let mut guard = self.fd.readable().await?;
        guard.clear_ready();
        Ok(())
    }
}
