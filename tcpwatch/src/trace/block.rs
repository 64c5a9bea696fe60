//! The frame of a trace file: its first bytes, and the header of each block.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I64, U16, U32, U64},
};

use super::TraceError;

/// Bytes before the first block.
pub const FILE_HEADER_LEN: usize = size_of::<FileHeader>();
/// Bytes before each payload.
pub const BLOCK_HEADER_LEN: usize = size_of::<BlockHeader>();
/// No payload is larger than this, stored or restored; a header that says otherwise is damaged.
pub const LARGEST_PAYLOAD: usize = 2 << 20;

/// What a version may not change: a reader refuses a file whose major version it does not know.
pub const MAJOR: u16 = 1;
/// Additions that an older reader passes over.
pub const MINOR: u16 = 0;

/// As in PNG: a byte that is no text, the name, and line ends that a careless copy changes.
const FILE_MAGIC: [u8; 8] = *b"\x89TCPW\r\n\x1a";
/// First bytes of each block: where to go on after damage.
pub(super) const BLOCK_MAGIC: [u8; 4] = *b"\xf5blk";

/// The first 16 bytes of a file.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileHeader {
    magic: [u8; 8],
    major: U16,
    minor: U16,
    /// CRC-32 of the bytes before it.
    crc: U32,
}

impl FileHeader {
    /// Of this version.
    pub fn new() -> Self {
        let mut header = Self {
            magic: FILE_MAGIC,
            major: MAJOR.into(),
            minor: MINOR.into(),
            crc: U32::default(),
        };
        header.crc = header.checksum().into();
        header
    }

    /// Refuses what is no trace, and what is newer. Says whether it is intact: a file whose first
    /// bytes are damaged may still have whole blocks.
    pub fn check(bytes: &[u8]) -> Result<bool, TraceError> {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(TraceError::NoTrace);
        };
        if header.crc.get() != header.checksum() {
            let resembles = header.magic.iter().zip(FILE_MAGIC).filter(|(a, b)| **a == *b).count();
            return if resembles < FILE_MAGIC.len() / 2 {
                Err(TraceError::NoTrace)
            } else {
                Ok(false)
            };
        }
        if header.magic != FILE_MAGIC {
            return Err(TraceError::NoTrace);
        }
        match header.major.get() {
            MAJOR => Ok(true),
            major => Err(TraceError::Newer { major, minor: header.minor.get() }),
        }
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..FILE_HEADER_LEN - 4])
    }
}

impl Default for FileHeader {
    fn default() -> Self {
        Self::new()
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON: [`super::meta::Meta`].
    Meta = 1,
    /// Inputs.
    Inputs = 2,
    /// Where the blocks of inputs are.
    Index = 3,
    /// Nothing: the file was closed in order.
    End = 4,
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// A pass over everything begins in the block: one can begin to read here.
pub const SNAPSHOT: u16 = 1;
/// Another file goes on where this one ends.
pub const CONTINUED: u16 = 2;

/// What stands before each payload: 72 bytes, little-endian.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Eq,
    Unaligned,
)]
#[repr(C)]
pub struct BlockHeader {
    magic: [u8; 4],
    /// A [`Kind`]; others are passed over.
    pub kind: u8,
    /// A [`Codec`].
    pub codec: u8,
    /// [`SNAPSHOT`], [`CONTINUED`].
    pub flags: U16,
    /// Which block of its file this is, from 0.
    pub number: U32,
    /// Inputs in it.
    pub inputs: U32,
    /// Transitions among them.
    pub transitions: U32,
    /// Transitions that the kernel could not hand over, as told in it.
    pub lost: U32,
    /// Bytes of the payload, restored.
    pub raw_len: U32,
    /// Bytes of the payload, as stored.
    pub stored_len: U32,
    /// CRC-32 of the payload as stored.
    pub payload_crc: U32,
    /// CRC-32 of this header, this field being 0.
    pub header_crc: U32,
    /// Transitions of the recording before this block: what is missing is known exactly.
    pub before: U64,
    /// Earliest time in it, `CLOCK_MONOTONIC` ns.
    pub first_ns: U64,
    /// Latest time in it.
    pub last_ns: U64,
    /// Wall time less monotonic time at its beginning, ns.
    pub wall_offset_ns: I64,
}

impl BlockHeader {
    /// An empty one of this kind.
    pub fn new(kind: Kind) -> Self {
        Self { magic: BLOCK_MAGIC, kind: kind as u8, ..Self::default() }
    }

    /// Notes how long the payload is and what it sums up to.
    pub fn seal(&mut self, codec: Codec, raw_len: usize, stored: &[u8]) {
        let len = |len: usize| U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        self.codec = codec as u8;
        (self.raw_len, self.stored_len) = (len(raw_len), len(stored.len()));
        self.payload_crc = crc32fast::hash(stored).into();
        self.header_crc = self.checksum().into();
    }

    /// The header at the beginning of these bytes, if there is an intact one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(bytes).ok()?;
        let intact = header.magic == BLOCK_MAGIC && header.header_crc.get() == header.checksum();
        let fits = |len: U32| len.get() as usize <= LARGEST_PAYLOAD;
        (intact && fits(header.raw_len) && fits(header.stored_len)).then_some(header)
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    /// Whether one can begin to read here.
    pub fn is_snapshot(&self) -> bool {
        self.flags.get() & SNAPSHOT != 0
    }

    fn checksum(&self) -> u32 {
        let blank = Self { header_crc: U32::default(), ..*self };
        crc32fast::hash(blank.as_bytes())
    }
}
