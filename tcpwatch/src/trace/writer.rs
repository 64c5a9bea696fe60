//! One file, to which blocks are appended.
//!
//! A block that cannot be written whole is taken back, so that what is in the file stays readable and
//! what comes later can follow.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use zerocopy::IntoBytes as _;

use super::{
    block::{BlockHeader, CONTINUED, FileHeader, Kind},
    disk::{Disk, RealDisk},
    encode::Sealed,
    index::{self, Entry},
    meta::Meta,
    pack::Packer,
};

/// A trace file that is being written.
pub struct Writer {
    file: Arc<File>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    packer: Packer,
    /// Where the next block goes.
    offset: u64,
    number: u32,
    entries: Vec<Entry>,
    /// What the file says of itself, for its end.
    meta: Vec<u8>,
    unsynced: bool,
}

impl Writer {
    /// Creates a file that only its owner may read. One that is there is never overwritten.
    pub fn create(path: &Path, meta: &Meta, level: i32) -> io::Result<Self> {
        Self::create_on(Arc::new(RealDisk), path, meta, level)
    }

    /// The same on this disk.
    pub fn create_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        meta: &Meta,
        level: i32,
    ) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut writer = Self {
            file: Arc::new(file),
            disk,
            path: path.to_owned(),
            packer: Packer::new(level)?,
            offset: 0,
            number: 0,
            entries: Vec::new(),
            meta: serde_json::to_vec(meta)?,
            unsynced: true,
        };
        match writer.begin() {
            Ok(()) => Ok(writer),
            Err(error) => {
                // Nobody needs a file that says nothing. Why it could not be written counts.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let header = FileHeader::new();
        append(&*self.disk, &self.file, &mut self.offset, &[header.as_bytes()])?;
        self.write_meta()
    }

    fn write_meta(&mut self) -> io::Result<()> {
        let meta = std::mem::take(&mut self.meta);
        let written = self.block(BlockHeader::new(Kind::Meta), &meta);
        self.meta = meta;
        written
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Appends a block of inputs.
    pub fn write(&mut self, sealed: &Sealed) -> io::Result<()> {
        let entry = Entry::new(self.offset, &sealed.header);
        self.block(sealed.header, &sealed.payload)?;
        self.entries.push(entry);
        Ok(())
    }

    /// The file, if something was written to it since this was last asked: that is to be brought to
    /// the disk.
    pub fn unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.unsynced).then(|| Arc::clone(&self.file))
    }

    /// Ends the file; `before` is what the recording has by now.
    pub fn close(&mut self, before: u64, continued: bool) -> io::Result<()> {
        self.write_meta()?;
        let place = self.offset;
        let entries = index::encode(&self.entries);
        // Too many for one block: then the headers must do.
        if entries.len() <= super::block::LARGEST_PAYLOAD {
            self.block(BlockHeader::new(Kind::Index), &entries)?;
        }
        let mut end = BlockHeader::new(Kind::End);
        end.before = before.into();
        end.flags = if continued { CONTINUED } else { 0 }.into();
        self.block(end, &place.to_le_bytes())
    }

    fn block(&mut self, mut header: BlockHeader, payload: &[u8]) -> io::Result<()> {
        header.number = self.number.into();
        // Counted even if it cannot be written: the next number then tells that one is missing.
        self.number += 1;
        let stored = self.packer.pack(&mut header, payload);
        self.unsynced = true;
        append(&*self.disk, &self.file, &mut self.offset, &[header.as_bytes(), stored])
    }
}

/// Appends all of it, or nothing.
fn append(disk: &dyn Disk, mut file: &File, offset: &mut u64, parts: &[&[u8]]) -> io::Result<()> {
    let written = parts.iter().try_for_each(|part| disk.write(file, part));
    if let Err(error) = written {
        file.set_len(*offset)?;
        file.seek(SeekFrom::Start(*offset))?;
        return Err(error);
    }
    *offset += parts.iter().map(|part| part.len() as u64).sum::<u64>();
    Ok(())
}
