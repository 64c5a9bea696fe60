//! Trace files (`.tcpw`): what a run saw, kept, so that a replay concludes the same.
//!
//! A trace holds inputs ([`crate::core::input::Input`]) in the order in which the pipeline took them,
//! and never a conclusion. `docs/trace-format.md` is this text for people.
//!
//! # Frame
//!
//! All numbers are little-endian. A file is a header of 16 bytes ([`block::FileHeader`]: magic
//! `89 54 43 50 57 0d 0a 1a`, major and minor version, CRC-32) and blocks, one after the other, only
//! ever appended. A block is a header of 72 bytes ([`block::BlockHeader`]) and a payload of at most
//! 2 MiB, plain or one zstd frame; header and payload have a CRC-32 each. Blocks depend on nothing
//! before them, so a damaged one costs its own inputs and no others: its reader looks for the next
//! intact header. Each header tells how many transitions the recording had before it, so what is
//! missing, also for want of space on the disk, is known exactly. A block is written when it has
//! 256 KiB, when it has 16 KiB and its first input is a second old, or when that is five seconds old (a minute, if
//! it holds clock marks only).
//!
//! Kinds of blocks: `1` meta ([`meta::Meta`], JSON; the first block, and once more at the end), `2` inputs, `3` index (where the
//! blocks of inputs are: an accelerator, at the end), `4` end (the file was closed in order; flag 2
//! says that another file goes on). Others are passed over, by a reader that does not know them.
//!
//! # Inputs
//!
//! A number is a varint: seven bits a byte, the lowest first. A difference is zigzag-coded. A payload
//! begins with the clock that is in force, as three numbers: `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`,
//! `CLOCK_REALTIME`, ns. Each record begins with a tag; its time is the difference from that of the
//! record before.
//!
//! - A tag below `0x80` is a transition: its new state, plus `0x10` at the socket's first record in
//!   the block. Then the time; which socket, as the number of sockets that are newer in the block
//!   (not at a first record); a mask, and for each bit that is set the difference from what was
//!   expected of that column (`row.rs` has the columns in order).
//! - Above, a length follows the tag. `0x80` an address (4 or 16 bytes), `0x81` a process (pid,
//!   name), `0x82` a text: known from then on by their numbers, in the order in which they come.
//!   `0x90` clock, `0x91` observation, `0x92` to `0x94` a pass begins, ends, has failed, `0x95` lost,
//!   `0x96` running, `0x97` exited, `0x98` what a process says (JSON), `0x99` a namespace's name,
//!   `0x9a` followed, `0x9b` end, `0x9c` gone, `0x9d` unseen. Others, and bytes that are left in a known one, are passed over.
//!
//! Expected of a socket is its last row, in its new state since the time of its last transition; of a
//! socket's first record the first row of the last socket that began in the same state, born now.
//!
//! # Versions
//!
//! A minor version adds kinds of blocks, tags, columns at the end of a mask, JSON fields. Whatever
//! else changes is a major version, and a reader refuses one that it does not know.

pub mod block;
mod codec;
pub mod decode;
pub mod disk;
pub mod encode;
mod facts;
pub mod file;
mod files;
pub mod index;
pub mod meta;
pub mod pack;
pub mod reader;
pub mod recorder;
pub mod recording;
mod row;
pub mod series;
mod syncer;
pub mod tape;
mod wire;
pub mod writer;

/// Why a trace, or a part of one, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It begins with something else.
    #[error("this is not a trace file of tcpwatch")]
    NoTrace,
    /// It has not a single byte.
    #[error("the file is empty")]
    Empty,
    /// It was written by a later version.
    #[error(
        "format {major}.{minor} is newer than this tcpwatch, which reads format {}; use a newer tcpwatch",
        block::MAJOR
    )]
    Newer {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// A number or a text goes on beyond its end.
    #[error("a record ends too early")]
    Short,
    /// A number that stands for nothing.
    #[error("a record makes no sense")]
    Senseless,
    /// A payload is stored in a way that only a later version knows.
    #[error("compression {0} is not known here")]
    Codec(u8),
    /// The payload is not what its header says.
    #[error("a block's checksum or length is wrong")]
    Damaged,
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
