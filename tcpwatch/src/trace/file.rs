//! A trace file that is open: what reads it need not be allowed to open it.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::reader::Reader;
use crate::{core::comm::shown, denied};

/// A trace file, opened once for all that read it.
#[derive(Clone, Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: Arc<File>,
}

impl TraceFile {
    /// Opens a file and reads nothing of it; the message says which.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| denied::explain(error, path));
        let file = file.with_context(|| format!("read {}", shown(path)))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }

    /// Reads it from its beginning.
    pub fn read(&self) -> Result<Reader> {
        let reader = Reader::new(Arc::clone(&self.file));
        reader.with_context(|| format!("read {}", shown(&self.path)))
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is now.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether a name is another one of this file.
    pub fn is(&self, path: &Path) -> bool {
        let identity = |meta: io::Result<std::fs::Metadata>| meta.ok().map(|m| (m.dev(), m.ino()));
        let this = identity(self.file.metadata());
        this.is_some() && this == identity(std::fs::metadata(path))
    }
}
