//! Where the blocks of inputs are, so that a time is found without reading a file.
//!
//! Written at the end of a file; a file without one, as it is still being written or was cut off, is
//! gone through from header to header.

use super::{TraceError, block::BlockHeader, wire};

/// Where a block is, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its header begins.
    pub offset: u64,
    /// One can begin to read there.
    pub snapshot: bool,
    /// Earliest time in it, `CLOCK_MONOTONIC` ns.
    pub first_ns: u64,
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
            wall_offset_ns: header.wall_offset_ns.get(),
        }
    }

    /// Wall time of the earliest input in it, ns since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.first_ns.saturating_add_signed(self.wall_offset_ns)
    }

    fn columns(&self) -> [u64; 3] {
        [
            self.offset << 1 | u64::from(self.snapshot),
            self.first_ns,
            self.wall_offset_ns.cast_unsigned(),
        ]
    }
}

/// As a payload: each as the difference from the one before.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before = [0; 3];
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
    let mut before = [0; 3];
    while !from.is_empty() {
        for slot in &mut before {
            *slot = from.difference(*slot)?;
        }
        let [place, first_ns, wall_offset] = before;
        entries.push(Entry {
            offset: place >> 1,
            snapshot: place & 1 != 0,
            first_ns,
            wall_offset_ns: wall_offset.cast_signed(),
        });
    }
    Ok(entries)
}
