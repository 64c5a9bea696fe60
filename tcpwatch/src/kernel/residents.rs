//! Ways into a network namespace. A process that holds a socket of it may live in another, and one that
//! has lost its name is kept by whoever lives there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;

use super::facts;

/// The namespaces of all processes, read when a holder turns out to live elsewhere.
#[derive(Default)]
pub(super) struct Residents(Option<FxHashMap<u32, PathBuf>>);

impl Residents {
    /// Opens a namespace through a process that may live there, or another that does, or a mount. Absent if
    /// its sockets have gone meanwhile.
    pub(super) fn open(&mut self, netns: u32, holder: u32) -> io::Result<Option<File>> {
        let process = PathBuf::from(format!("/proc/{holder}"));
        if let Some(file) = open(&process.join("ns/net"), netns)? {
            return Ok(Some(file));
        }
        let all = self.0.get_or_insert_with(all);
        if let Some(path) = all.get(&netns)
            && let Some(file) = open(path, netns)?
        {
            return Ok(Some(file));
        }
        if process.exists() {
            return Err(io::Error::other("no process and no name leads there"));
        }
        Ok(None)
    }
}

/// Whether a process is known to be in this network namespace.
pub fn is_inhabited(netns: u32) -> bool {
    processes().any(|path| inode(&path) == Some(netns))
}

fn all() -> FxHashMap<u32, PathBuf> {
    let names = facts::namespace_files();
    names.chain(processes()).filter_map(|path| Some((inode(&path)?, path))).collect()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = entries.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    numbered.map(|entry| entry.path().join("ns/net"))
}

/// The file, if it is of this namespace.
fn open(path: &Path, netns: u32) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => {
            let is_it = file.metadata()?.ino() == u64::from(netns);
            Ok(is_it.then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode(path: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}
