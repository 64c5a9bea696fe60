//! Changes to a trace file that leave its checksums right.
//!
//! Almost any change to a file is damage, and the reader passes over damage. Here blocks are taken
//! apart, changed within, and sealed again; now and then one is not, so damage is found, too.

use tcpwatch::trace::{
    block::{BLOCK_HEADER_LEN, BlockHeader, Codec, FILE_HEADER_LEN, FileHeader, Kind},
    pack::{LEVEL, Packer, Unpacker},
};
use zerocopy::IntoBytes as _;

use crate::{
    payload,
    random::{self, Random},
};

struct Block {
    header: BlockHeader,
    stored: Vec<u8>,
}

/// Changes a file in one place.
pub(crate) fn mutate(file: &mut Vec<u8>, max_size: usize, random: &mut Random) {
    let room = max_size.saturating_sub(file.len());
    let (mut blocks, rest) = take_apart(file);
    if random.once_in(10) {
        random::any(file, room);
        return;
    }
    if blocks.is_empty() {
        // Whatever it is, it becomes the payload of a block.
        let mut block = Block { header: BlockHeader::new(Kind::Inputs), stored: Vec::new() };
        store(&mut block, file, random);
        blocks.push(block);
    }
    let at = random.below(blocks.len());
    match random.below(12) {
        0 => {
            blocks.remove(at);
        }
        1 => {
            let block = Block { header: blocks[at].header, stored: blocks[at].stored.clone() };
            blocks.insert(random.below(blocks.len() + 1), block);
        }
        2 => {
            let other = random.below(blocks.len());
            blocks.swap(at, other);
        }
        3 => number(&mut blocks),
        4 => header(&mut blocks[at], random),
        // What is stored is no longer what is said of it, but its checksum is right.
        5 => {
            let Block { header, stored } = &mut blocks[at];
            random::any(stored, room);
            let codec = if random.once_in(2) { Codec::Plain } else { Codec::Zstd };
            header.seal(codec, header.raw_len.get() as usize, stored);
        }
        _ => inside(&mut blocks[at], max_size, random),
    }
    let mut out = Vec::with_capacity(file.len() + 64);
    out.extend_from_slice(FileHeader::new().as_bytes());
    for block in &blocks {
        out.extend_from_slice(block.header.as_bytes());
        out.extend_from_slice(&block.stored);
    }
    out.extend_from_slice(&file[file.len() - rest..]);
    *file = out;
}

/// The blocks of a file, and how many bytes are left at its end. What is no trace has neither.
fn take_apart(file: &[u8]) -> (Vec<Block>, usize) {
    let mut blocks = Vec::new();
    if FileHeader::check(file).is_err() {
        return (blocks, 0);
    }
    let mut left = &file[FILE_HEADER_LEN..];
    while let Some(header) = BlockHeader::read(left) {
        let end = BLOCK_HEADER_LEN + header.stored_len.get() as usize;
        let Some(stored) = left.get(BLOCK_HEADER_LEN..end) else { break };
        blocks.push(Block { header, stored: stored.to_vec() });
        left = &left[end..];
    }
    (blocks, left.len())
}

/// Changes what a block holds.
fn inside(block: &mut Block, max_size: usize, random: &mut Random) {
    let mut held = Vec::new();
    let unpacked = Unpacker::new().map(|mut it| it.unpack(&block.header, &block.stored, &mut held));
    if !matches!(unpacked, Ok(Ok(()))) {
        held.clone_from(&block.stored);
    }
    if block.header.is(Kind::Inputs) {
        payload::mutate(&mut held, max_size, random);
    } else {
        let room = max_size.saturating_sub(held.len());
        random::any(&mut held, room);
    }
    store(block, &held, random);
}

/// Stores a payload, plain or compressed.
fn store(block: &mut Block, payload: &[u8], random: &mut Random) {
    block.stored = match Packer::new(LEVEL) {
        Ok(mut packer) if random.once_in(2) => packer.pack(&mut block.header, payload).to_vec(),
        _ => {
            block.header.seal(Codec::Plain, payload.len(), payload);
            payload.to_vec()
        }
    };
}

/// One field of a header becomes something else.
fn header(block: &mut Block, random: &mut Random) {
    let Block { header, stored } = block;
    let edge = random.edge();
    let [a, b, c, d, ..] = edge.to_le_bytes();
    let small = u32::from_le_bytes([a, b, c, d]);
    let (mut codec, mut raw_len) = (None, header.raw_len.get() as usize);
    match random.below(11) {
        0 => header.kind = a % 6,
        1 => codec = Some(a % 3),
        2 => header.flags = u16::from_le_bytes([a, b]).into(),
        3 => header.number = small.into(),
        4 => header.inputs = small.into(),
        5 => header.transitions = small.into(),
        6 => raw_len = small as usize,
        7 => header.before = edge.into(),
        8 => header.first_ns = edge.into(),
        9 => header.last_ns = edge.into(),
        _ => header.wall_offset_ns = edge.cast_signed().into(),
    }
    let codec = match codec.unwrap_or(header.codec) {
        0 => Codec::Plain,
        _ => Codec::Zstd,
    };
    header.seal(codec, raw_len, stored);
}

/// Numbers the blocks one after the other, as a writer would.
fn number(blocks: &mut [Block]) {
    let mut before = 0;
    for (number, Block { header, stored }) in blocks.iter_mut().enumerate() {
        header.number = u32::try_from(number).unwrap_or(u32::MAX).into();
        header.before = before.into();
        before = before.wrapping_add(header.transitions.get().into());
        let codec = if header.codec == 0 { Codec::Plain } else { Codec::Zstd };
        header.seal(codec, header.raw_len.get() as usize, stored);
    }
}
