//! What a recorder asks of a disk. Tests put a slow or a full disk in the place of the real one.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// A disk.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Appends bytes to a file.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;

    /// Returns when the data of a file is on the disk.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The disk of this host.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
