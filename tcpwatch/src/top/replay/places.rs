//! Where to begin to read so that a moment looks as if all before it had been played.
//!
//! The nearest place before it would do for what is open then, but not for what goes back further: growth
//! is judged over as much as an hour, and the line of the last minutes begins five minutes ago. So as much
//! of what came before is played, too, as takes no longer than a person minds.

use anyhow::{Context as _, Result};

use crate::{
    core::comm::shown,
    trace::{
        index::Entry,
        recording::{Place, Recording},
    },
};

/// So much of a recording is read before a moment: some millions of transitions, half a second.
const MOST_BYTES: u64 = 16 << 20;
/// No growth is judged over more than this.
const FAR_BACK_NS: u64 = 3_600_000_000_000;

/// The blocks of a recording, in the order in which they are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    file: usize,
    entry: Entry,
    /// Bytes of the recording before it.
    before: u64,
}

impl Places {
    pub(super) fn of(recording: &Recording) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for (number, file) in recording.files.iter().enumerate() {
            for entry in file.read()?.entries()? {
                blocks.push(Block { file: number, entry, before: bytes + entry.offset });
            }
            bytes += file.len().with_context(|| format!("read {}", shown(file.path())))?;
        }
        Ok(Self { blocks })
    }

    /// Where to begin for a moment: a place that begins with all that is known, or the very beginning.
    pub(super) fn before(&self, wall_ns: u64) -> Place {
        let there = self.blocks.partition_point(|block| block.entry.wall_ns().0 <= wall_ns);
        let Some(last) = there.checked_sub(1).and_then(|at| self.blocks.get(at)) else {
            return Place::default();
        };
        let near = |bytes: u64, from: u64| {
            last.before - bytes <= MOST_BYTES && wall_ns.saturating_sub(from) <= FAR_BACK_NS
        };
        if let Some(first) = self.blocks.first()
            && near(first.before, first.entry.wall_ns().0)
        {
            return Place::default();
        }
        let places = || self.blocks[..there].iter().filter(|block| block.entry.snapshot);
        let far = places().find(|block| near(block.before, block.entry.wall_ns().0));
        let place = far.or_else(|| places().next_back());
        place.map_or_else(Place::default, |block| Place {
            file: block.file,
            block: Some(block.entry),
        })
    }

    /// Whether playing on from a moment reaches another later than beginning anew for it does.
    pub(super) fn is_shorter(&self, from_wall_ns: u64, to_wall_ns: u64) -> bool {
        let place = self.before(to_wall_ns);
        place.block.is_some_and(|entry| entry.wall_ns().0 > from_wall_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    /// A block a minute, each of so many bytes; every fifth is a place to begin.
    fn places(bytes: u64, count: u64) -> Places {
        let block = |number: u64| Block {
            file: 0,
            entry: Entry {
                offset: number * bytes,
                snapshot: number.is_multiple_of(5),
                first_ns: number * MINUTE,
                last_ns: (number + 1) * MINUTE - 1,
                wall_offset_ns: 0,
            },
            before: number * bytes,
        };
        Places { blocks: (0..count).map(block).collect() }
    }

    fn minute(place: &Place) -> Option<u64> {
        place.block.map(|entry| entry.first_ns / MINUTE)
    }

    #[test]
    fn a_short_recording_is_played_from_its_beginning() {
        let places = places(1000, 50);
        assert_eq!(places.before(49 * MINUTE), Place::default());
        assert_eq!(places.before(0), Place::default());
        assert_eq!(Places::default().before(7), Place::default());
    }

    #[test]
    fn no_more_is_played_than_growth_needs() {
        let places = places(1000, 500);
        assert_eq!(minute(&places.before(300 * MINUTE)), Some(240));
        assert_eq!(minute(&places.before(301 * MINUTE)), Some(245));
        assert!(places.is_shorter(100 * MINUTE, 300 * MINUTE));
        assert!(!places.is_shorter(290 * MINUTE, 300 * MINUTE));
    }

    #[test]
    fn no_more_is_played_than_is_read_quickly() {
        let two = places(2 << 20, 500);
        assert_eq!(minute(&two.before(300 * MINUTE)), Some(295));
        let much = places(100 << 20, 500);
        assert_eq!(minute(&much.before(304 * MINUTE)), Some(300), "the nearest at least");
    }
}
