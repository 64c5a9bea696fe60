//! Blocks from a file, whatever state it is in.
//!
//! Damage is told, with its position, and passed over; the end of a file that is still being written
//! is told from one that was closed.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use super::{
    TraceError,
    block::{
        BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader, CONTINUED, FILE_HEADER_LEN, FileHeader, Kind,
    },
    index::{self, Entry},
    meta::Meta,
    pack::Unpacker,
};

/// Read at once while looking for the next block.
const WINDOW: usize = 1 << 16;
/// An end block and its payload, the offset of the index.
const END_LEN: u64 = BLOCK_HEADER_LEN as u64 + 8;

/// A part of a file that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub from: u64,
    /// Where what follows begins, or the file ends.
    pub to: u64,
    /// Its header, if that is intact: what is missing is known.
    pub header: Option<BlockHeader>,
    /// What is wrong.
    pub why: &'static str,
}

/// What comes next in a file.
#[derive(Debug)]
pub enum Next {
    /// Inputs; the payload is in [`Reader::payload`].
    Inputs(BlockHeader),
    /// Something that cannot be read.
    Damage(Damage),
    /// The file was closed in order; transitions recorded by then, and whether another goes on.
    End {
        /// Transitions of the recording so far.
        before: u64,
        /// Another file goes on.
        continued: bool,
    },
    /// Nothing more, or only the beginning of a block: it is still being written, or was cut off.
    Pending {
        /// Bytes of a block that is not complete.
        torn: u64,
    },
}

/// Reads a file's blocks in their order.
pub struct Reader {
    file: Arc<File>,
    position: u64,
    unpacker: Unpacker,
    stored: Vec<u8>,
    payload: Vec<u8>,
    meta: Option<Meta>,
    /// Number of the block that was read last.
    number: Option<u32>,
    /// Damage was told since then, so that blocks are missing is no news.
    told: bool,
    damaged_start: bool,
}

impl Reader {
    /// Opens a file and reads what it says of itself.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        Self::new(Arc::new(File::open(path)?))
    }

    /// The same with one that is open.
    pub fn new(file: Arc<File>) -> Result<Self, TraceError> {
        let mut first = [0; FILE_HEADER_LEN];
        let len = read_at(&file, &mut first, 0)?;
        if len == 0 {
            return Err(TraceError::Empty);
        }
        let header = FileHeader::check(&first[..len]);
        let intact = *header.as_ref().unwrap_or(&false);
        let mut reader = Self {
            file,
            position: FILE_HEADER_LEN as u64,
            unpacker: Unpacker::new()?,
            stored: Vec::new(),
            payload: Vec::new(),
            meta: None,
            number: None,
            told: false,
            damaged_start: !intact,
        };
        if let Err(error) = header {
            // Its first bytes may be damaged and the rest be whole.
            if !matches!(error, TraceError::NoTrace) || !reader.has_block_near()? {
                return Err(error);
            }
        }
        reader.read_meta()?;
        Ok(reader)
    }

    /// What the file says of itself; `None` if that is damaged or not yet written.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// The payload of the block that was read last.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Where the next block begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How long the file is now.
    pub fn file_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// What comes next.
    pub fn next_block(&mut self) -> io::Result<Next> {
        if std::mem::take(&mut self.damaged_start) {
            let to = self.position;
            return Ok(Next::Damage(Damage { from: 0, to, header: None, why: "file header" }));
        }
        loop {
            let mut bytes = [0; BLOCK_HEADER_LEN];
            let len = read_at(&self.file, &mut bytes, self.position)?;
            if len < BLOCK_HEADER_LEN {
                return Ok(Next::Pending { torn: len as u64 });
            }
            let Some(header) = BlockHeader::read(&bytes) else {
                return self.find_block().map(Next::Damage);
            };
            let stored_len = header.stored_len.get() as usize;
            self.stored.resize(stored_len, 0);
            let start = self.position + BLOCK_HEADER_LEN as u64;
            let len = read_at(&self.file, &mut self.stored, start)?;
            if len < stored_len {
                return Ok(Next::Pending { torn: (BLOCK_HEADER_LEN + len) as u64 });
            }
            let from = self.position;
            self.position = start + stored_len as u64;
            if let Some(next) = self.take(&header, from) {
                return Ok(next);
            }
        }
    }

    /// What a block means that was read whole; `None` if it means nothing here.
    fn take(&mut self, header: &BlockHeader, from: u64) -> Option<Next> {
        let to = self.position;
        let damage = |why| Some(Next::Damage(Damage { from, to, header: Some(*header), why }));
        let number = header.number.get();
        if self.number.is_some_and(|before| number <= before) {
            return damage("a block that was there before");
        }
        let missing = self.number.is_some_and(|before| number > before + 1);
        self.number = Some(number);
        if missing && !std::mem::replace(&mut self.told, true) {
            self.position = from;
            self.number = Some(number - 1);
            return Some(Next::Damage(Damage {
                from,
                to: from,
                header: None,
                why: "blocks are missing",
            }));
        }
        self.told = false;
        match self.unpacker.unpack(header, &self.stored, &mut self.payload) {
            Ok(()) => {}
            Err(TraceError::Codec(_)) => return damage("a compression that is not known here"),
            Err(_) => return damage("checksum"),
        }
        if header.is(Kind::Inputs) {
            Some(Next::Inputs(*header))
        } else if header.is(Kind::Meta) {
            match Meta::from_json(&self.payload) {
                Some(meta) => self.meta = Some(meta),
                None => return damage("what the file says of itself"),
            }
            None
        } else if header.is(Kind::End) {
            let continued = header.flags.get() & CONTINUED != 0;
            Some(Next::End { before: header.before.get(), continued })
        } else {
            None
        }
    }

    fn read_meta(&mut self) -> io::Result<()> {
        let (start, damaged) = (self.position, self.damaged_start);
        self.damaged_start = false;
        // The first block, if it is intact; if not, the damage is told in its turn, and the same is
        // said again near the end.
        let _ = self.next_block()?;
        if self.meta.is_none() {
            for at in self.places(Kind::Meta)? {
                let payload = self.read_whole(at, Kind::Meta)?;
                self.meta = payload.and_then(|payload| Meta::from_json(&payload));
            }
        }
        (self.position, self.number, self.damaged_start) = (start, None, damaged);
        Ok(())
    }

    /// Passes over what is no block.
    fn find_block(&mut self) -> io::Result<Damage> {
        let from = self.position;
        let mut window = vec![0; WINDOW];
        let mut start = from + 1;
        let to = loop {
            let len = read_at(&self.file, &mut window, start)?;
            let bytes = &window[..len];
            let candidates = bytes.windows(BLOCK_MAGIC.len()).enumerate();
            let found = candidates
                .filter(|(_, bytes)| **bytes == BLOCK_MAGIC)
                .find(|(at, _)| self.is_block(start + *at as u64).unwrap_or(false));
            if let Some((at, _)) = found {
                break start + at as u64;
            }
            if len < WINDOW {
                break start + len as u64;
            }
            start += (WINDOW - BLOCK_MAGIC.len() + 1) as u64;
        };
        (self.position, self.told) = (to, true);
        Ok(Damage { from, to, header: None, why: "no block" })
    }

    /// Whether there is a block not far from the beginning.
    fn has_block_near(&self) -> io::Result<bool> {
        const FAR: usize = 1 << 20;
        let mut bytes = vec![0; FAR];
        let len = read_at(&self.file, &mut bytes, 0)?;
        let candidates =
            bytes[..len].windows(BLOCK_HEADER_LEN).filter(|b| b.starts_with(&BLOCK_MAGIC));
        Ok(candidates.into_iter().any(|bytes| BlockHeader::read(bytes).is_some()))
    }

    fn is_block(&self, at: u64) -> io::Result<bool> {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let len = read_at(&self.file, &mut bytes, at)?;
        Ok(len == BLOCK_HEADER_LEN && BlockHeader::read(&bytes).is_some())
    }

    /// Where its blocks of inputs are, from the index or, without one, from the headers.
    pub fn entries(&mut self) -> io::Result<Vec<Entry>> {
        match self.index()? {
            Some(entries) => Ok(entries),
            None => self.hop(),
        }
    }

    /// Goes on reading at a block.
    pub fn go_to(&mut self, entry: &Entry) {
        (self.position, self.number, self.damaged_start) = (entry.offset, None, false);
    }

    /// The index, if the file has an intact one.
    fn index(&mut self) -> io::Result<Option<Vec<Entry>>> {
        let Some(end) = self.file_len()?.checked_sub(END_LEN) else { return Ok(None) };
        let Some(place) = self.read_whole(end, Kind::End)? else { return Ok(None) };
        let Some(place) = place.first_chunk() else { return Ok(None) };
        let index = self.read_whole(u64::from_le_bytes(*place), Kind::Index)?;
        Ok(index.and_then(|payload| index::decode(&payload).ok()))
    }

    fn read_whole(&mut self, at: u64, kind: Kind) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let len = read_at(&self.file, &mut bytes, at)?;
        let header = BlockHeader::read(&bytes[..len]).filter(|header| header.is(kind));
        let Some(header) = header else { return Ok(None) };
        let mut stored = vec![0; header.stored_len.get() as usize];
        if read_at(&self.file, &mut stored, at + BLOCK_HEADER_LEN as u64)? < stored.len() {
            return Ok(None);
        }
        let mut payload = Vec::new();
        Ok(self.unpacker.unpack(&header, &stored, &mut payload).is_ok().then_some(payload))
    }

    /// The same, from the headers alone.
    fn hop(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.hop_through(|at, header| {
            if header.is(Kind::Inputs) {
                entries.push(Entry::new(at, header));
            }
        })?;
        Ok(entries)
    }

    /// Where the blocks of a kind are.
    fn places(&mut self, kind: Kind) -> io::Result<Vec<u64>> {
        let mut places = Vec::new();
        self.hop_through(|at, header| {
            if header.is(kind) {
                places.push(at);
            }
        })?;
        Ok(places)
    }

    fn hop_through(&mut self, mut each: impl FnMut(u64, &BlockHeader)) -> io::Result<()> {
        let start = std::mem::replace(&mut self.position, FILE_HEADER_LEN as u64);
        loop {
            let mut bytes = [0; BLOCK_HEADER_LEN];
            if read_at(&self.file, &mut bytes, self.position)? < BLOCK_HEADER_LEN {
                break;
            }
            let Some(header) = BlockHeader::read(&bytes) else {
                self.find_block()?;
                continue;
            };
            each(self.position, &header);
            self.position += BLOCK_HEADER_LEN as u64 + u64::from(header.stored_len.get());
        }
        self.position = start;
        Ok(())
    }
}

/// Reads as much as there is.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
