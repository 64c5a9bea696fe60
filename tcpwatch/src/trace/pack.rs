//! Payloads, compressed and checked.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::{
    TraceError,
    block::{BlockHeader, Codec, LARGEST_PAYLOAD},
};

/// The level that is used unless another is asked for: beyond it a file hardly shrinks.
pub const LEVEL: i32 = 3;

/// Compresses payloads.
pub struct Packer {
    compressor: Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    /// At a level of zstd's.
    pub fn new(level: i32) -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(level)?, packed: Vec::new() })
    }

    /// Completes the header and returns what is to be stored.
    pub fn pack<'a>(&'a mut self, header: &mut BlockHeader, payload: &'a [u8]) -> &'a [u8] {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(payload.len()));
        let packed = self.compressor.compress_to_buffer(payload, &mut self.packed);
        let smaller = packed.is_ok_and(|len| len < payload.len());
        let (codec, stored) =
            if smaller { (Codec::Zstd, &self.packed[..]) } else { (Codec::Plain, payload) };
        header.seal(codec, payload.len(), stored);
        stored
    }
}

/// Restores payloads.
pub struct Unpacker {
    decompressor: Decompressor<'static>,
}

impl Unpacker {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        Ok(Self { decompressor: Decompressor::new()? })
    }

    /// The payload that was stored, in `payload`; never more than the header says, which is bounded.
    pub fn unpack(
        &mut self,
        header: &BlockHeader,
        stored: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), TraceError> {
        let raw_len = header.raw_len.get() as usize;
        payload.clear();
        if crc32fast::hash(stored) != header.payload_crc.get() || raw_len > LARGEST_PAYLOAD {
            return Err(TraceError::Damaged);
        }
        if header.codec == Codec::Plain as u8 {
            payload.extend_from_slice(stored);
        } else if header.codec == Codec::Zstd as u8 {
            payload.reserve(raw_len);
            self.decompressor
                .decompress_to_buffer(stored, payload)
                .map_err(|_| TraceError::Damaged)?;
        } else {
            return Err(TraceError::Codec(header.codec));
        }
        if payload.len() == raw_len { Ok(()) } else { Err(TraceError::Damaged) }
    }
}
