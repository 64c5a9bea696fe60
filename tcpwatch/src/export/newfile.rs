//! A file that has its name only once it is complete.
//!
//! Query engines read whole directories, at any time: half a Parquet file would fail their
//! queries. So it is written under a name that starts with a dot, which they leave out, and takes
//! its own when it is on disk. What names the peers of a host is for its owner's eyes: mode 0600.
//! [`NewFile::commit`] replaces what has that name, [`NewFile::commit_new`] never does.

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{core::comm::shown, denied};

const MODE: u32 = 0o600;

/// What may be replaced by a file: nothing, or a file. A device, a pipe, or what a link leads to is
/// written to as it is.
pub fn is_replaceable(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or(true, |meta| meta.is_file())
}

/// Written under another name until [`NewFile::commit`]; removed if that is never called.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    /// `None` once it has its name.
    name: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file that will be called `path`. One of that name stays until `commit`.
    pub fn create(path: &Path) -> io::Result<Self> {
        if !is_replaceable(path) {
            let message = format!("'{}' is there and is no file", shown(path));
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let Some(name) = path.file_name() else {
            let message = format!("'{}' does not name a file", shown(path));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = exclusive(&temporary).or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // Left over by a process that was killed and had our id.
            fs::remove_file(&temporary)?;
            exclusive(&temporary)
        })?;
        Ok(Self { file, temporary, name: Some(path.to_owned()) })
    }

    /// Gives the file its name, once its content is on disk.
    pub fn commit(self) -> io::Result<()> {
        self.commit_by(|from, to| fs::rename(from, to))
    }

    /// The same, unless something has that name: then that stays, and this is an error.
    pub fn commit_new(self) -> io::Result<()> {
        self.commit_by(|from, to| {
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                // Some file systems cannot; a link is as good.
                Err(Errno::INVAL) => {
                    fs::hard_link(from, to)?;
                    fs::remove_file(from)
                }
                renamed => Ok(renamed?),
            }
        })
    }

    fn commit_by(mut self, rename: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        self.file.sync_all()?;
        let Some(name) = self.name.take() else { return Ok(()) };
        if let Err(error) = rename(&self.temporary, &name) {
            self.name = Some(name);
            return Err(error);
        }
        let directory = name.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Never follows a link that somebody put there.
fn exclusive(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    file.map_err(|error| denied::explain(error, path))
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.name.is_some() {
            // Nothing more can be done; the name starts with a dot and ends in `.tmp`.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_has_its_name_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"all").unwrap();
        assert!(names(directory.path()).iter().all(|name| name.starts_with('.')));
        file.commit().unwrap();
        assert_eq!(names(directory.path()), ["a.parquet"]);
        assert_eq!(fs::read(&path).unwrap(), b"all");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_new_one_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.html");
        NewFile::create(&path).unwrap().commit_new().unwrap();
        // Another one that was begun before the first had its name.
        let mut late = NewFile::create(&path).unwrap();
        late.write_all(b"late").unwrap();
        let error = late.commit_new().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(directory.path()), ["a.html"]);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn what_is_given_up_leaves_nothing_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        fs::write(&path, "before").unwrap();
        drop(NewFile::create(&path).unwrap());
        assert_eq!(names(directory.path()), ["a.parquet"]);
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (link, target) = (directory.path().join("link"), directory.path().join("target"));
        fs::write(&target, "before").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [&link, directory.path(), Path::new("/dev/null")] {
            assert!(!is_replaceable(path) && NewFile::create(path).is_err(), "{path:?}");
        }
        assert!(is_replaceable(&target) && is_replaceable(&directory.path().join("new")));
    }

    #[test]
    fn a_link_in_its_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("a"), directory.path().join("target"));
        let planted = directory.path().join(format!(".a.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink(&target, planted).unwrap();
        NewFile::create(&path).unwrap().commit().unwrap();
        assert!(!target.exists());
    }
}
