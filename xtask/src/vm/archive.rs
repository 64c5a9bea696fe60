//! A tree of files that becomes an initramfs, with the libraries that its programs are linked with.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use cpio::newc::{Builder, ModeFileType};

/// What is at a path of the guest.
enum Entry {
    Directory,
    /// A directory where everybody may make files.
    Shared,
    Link(String),
    /// The console, which the kernel opens for the first process.
    Console,
    /// A copy of a file of this machine.
    Copy(PathBuf),
    Text(Vec<u8>),
}

/// A tree of files.
#[derive(Default)]
pub(super) struct Archive(BTreeMap<PathBuf, Entry>);

impl Archive {
    pub(super) fn directory(&mut self, path: &str) {
        self.insert(Path::new(path), Entry::Directory);
    }

    pub(super) fn shared(&mut self, path: &str) {
        self.insert(Path::new(path), Entry::Shared);
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.insert(Path::new(path), Entry::Link(target.to_owned()));
    }

    pub(super) fn console(&mut self, path: &str) {
        self.insert(Path::new(path), Entry::Console);
    }

    pub(super) fn text(&mut self, path: &str, text: impl Into<Vec<u8>>) {
        self.insert(Path::new(path), Entry::Text(text.into()));
    }

    /// A file of this machine, at the same path.
    pub(super) fn file(&mut self, path: &Path) -> Result<()> {
        let place = in_real_directory(path)?;
        self.insert(&place, Entry::Copy(path.to_owned()));
        Ok(())
    }

    /// A file of this machine, elsewhere.
    pub(super) fn file_at(&mut self, place: &str, path: &Path) {
        self.insert(Path::new(place), Entry::Copy(path.to_owned()));
    }

    /// A directory of this machine and all that is in it, but for what `leave` says by name.
    pub(super) fn tree(&mut self, dir: &Path, leave: &dyn Fn(&str) -> bool) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry?.path();
            if path.file_name().and_then(|name| name.to_str()).is_none_or(leave) {
                continue;
            }
            // What links point to may be missing, and then nobody needs it.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.tree(&path, leave)?,
                Ok(metadata) if metadata.is_file() => self.file(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The libraries of every program and library in it.
    pub(super) fn libraries(&mut self) -> Result<()> {
        let copies: Vec<_> = self.0.values().filter_map(Entry::copied).collect();
        let linked: Vec<_> = copies.into_iter().filter(|path| is_elf(path)).collect();
        // It ends with an error if one of them is linked with nothing.
        let mut command = Command::new("ldd");
        let done = command.args(linked).output().context("run ldd (libc-bin)")?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if let Some(line) = text.lines().find(|line| line.ends_with("not found")) {
            bail!("a library is missing on this machine: {}", line.trim());
        }
        for word in text.split_whitespace() {
            if word.starts_with('/') && !word.ends_with(':') {
                self.file(Path::new(word))?;
            }
        }
        Ok(())
    }

    /// Writes it in the format that the kernel unpacks.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let entries = self.0.iter().map(|(path, entry)| entry.in_archive(path));
        let entries: Vec<_> = entries.collect::<Result<_>>()?;
        let file = fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
        let mut file = std::io::BufWriter::new(file);
        let written = cpio::write_cpio(entries.into_iter(), &mut file).map(drop);
        written.and_then(|()| file.flush()).with_context(|| format!("write {}", to.display()))
    }

    fn insert(&mut self, path: &Path, entry: Entry) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.0.entry(above.to_owned()).or_insert(Entry::Directory);
        }
        self.0.insert(path.to_owned(), entry);
    }
}

impl Entry {
    fn copied(&self) -> Option<PathBuf> {
        if let Self::Copy(path) = self { Some(path.clone()) } else { None }
    }

    fn in_archive(&self, path: &Path) -> Result<(Builder, Cursor<Vec<u8>>)> {
        let name = path.to_str().with_context(|| format!("the name {}", path.display()))?;
        let of = |kind, mode| Builder::new(name).mode(mode).set_mode_file_type(kind);
        let (builder, bytes) = match self {
            Self::Directory => (of(ModeFileType::Directory, 0o755), Vec::new()),
            Self::Shared => (of(ModeFileType::Directory, 0o1777), Vec::new()),
            Self::Link(target) => (of(ModeFileType::Symlink, 0o777), target.clone().into()),
            Self::Console => {
                (of(ModeFileType::Char, 0o600).rdev_major(5).rdev_minor(1), Vec::new())
            }
            Self::Text(bytes) => (of(ModeFileType::Regular, 0o644), bytes.clone()),
            Self::Copy(source) => {
                let context = || format!("read {}", source.display());
                let metadata = fs::metadata(source).with_context(context)?;
                let mode = metadata.permissions().mode() & 0o777;
                // Python believes its byte code only if the source has the time that is in it.
                let time = u32::try_from(metadata.mtime()).unwrap_or(0);
                let bytes = fs::read(source).with_context(context)?;
                (of(ModeFileType::Regular, mode).mtime(time), bytes)
            }
        };
        Ok((builder, Cursor::new(bytes)))
    }
}

/// The path without links in its directory: `/lib` may be `/usr/lib`.
fn in_real_directory(path: &Path) -> Result<PathBuf> {
    let context = || format!("find {}", path.display());
    let dir = path.parent().with_context(context)?;
    let name = path.components().next_back().with_context(context)?;
    let Component::Normal(name) = name else { bail!("{} is no file", path.display()) };
    Ok(fs::canonicalize(dir).with_context(context)?.join(name))
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}
