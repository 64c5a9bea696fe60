//! Where the blocks of inputs are, so that a time is found without reading a file.
//!
//! Written at the end of a file; a file without one, as it is still being written or was cut off, is
//! gone through from header to header.

use super::{TraceError, block::BlockHeader, wire};

const COLUMNS: usize = 4;

/// Where a block is, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its header begins.
    pub offset: u64,
    /// One can begin to read there.
    pub snapshot: bool,
    /// Earliest time in it, `CLOCK_MONOTONIC` ns.
    pub first_ns: u64,
    /// Latest time in it.
    pub last_ns: u64,
    /// Wall time less monotonic time at its beginning, ns.
    pub wall_offset_ns: i64,
}

impl Entry {
    /// Of a block at this offset.
    pub fn new(offset: u64, header: &BlockHeader) -> Self {
        Self {
            offset,
            snapshot: header.is_snapshot(),
            first_ns: header.first_ns.get(),
            last_ns: header.last_ns.get(),
            wall_offset_ns: header.wall_offset_ns.get(),
        }
    }

    /// Wall times of the earliest and the latest input in it, ns since 1970.
    pub fn wall_ns(&self) -> (u64, u64) {
        let wall = |mono: u64| mono.saturating_add_signed(self.wall_offset_ns);
        (wall(self.first_ns), wall(self.last_ns))
    }

    fn columns(&self) -> [u64; COLUMNS] {
        [
            self.offset << 1 | u64::from(self.snapshot),
            self.first_ns,
            self.last_ns,
            self.wall_offset_ns.cast_unsigned(),
        ]
    }
}

/// As a payload: each as the difference from the one before.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before = [0; COLUMNS];
    for entry in entries {
        let columns = entry.columns();
        for (number, base) in columns.iter().zip(before) {
            wire::put_difference(&mut out, *number, base);
        }
        before = columns;
    }
    out
}

/// From a payload.
pub(super) fn decode(payload: &[u8]) -> Result<Vec<Entry>, TraceError> {
    let mut from = wire::Cursor::new(payload);
    let mut entries = Vec::new();
    let mut before = [0; COLUMNS];
    while !from.is_empty() {
        for slot in &mut before {
            *slot = from.difference(*slot)?;
        }
        let [place, first_ns, last_ns, wall_offset] = before;
        entries.push(Entry {
            offset: place >> 1,
            snapshot: place & 1 != 0,
            first_ns,
            last_ns,
            wall_offset_ns: wall_offset.cast_signed(),
        });
    }
    Ok(entries)
}
