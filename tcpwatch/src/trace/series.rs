//! The files of a recording that goes on for ever: one after the other, and no more than so many.
//!
//! `box.tcpw` becomes `box.000001.tcpw`, `box.000002.tcpw`, …; a later run goes on where the last one
//! ended.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::disk::Disk;
use crate::core::comm::shown;

const DIGITS: usize = 6;
/// A number beyond this is no file's.
const LAST: u32 = 999_999_999;

/// Names of the files of a recording.
#[derive(Clone, Debug)]
pub struct Series {
    path: PathBuf,
    /// Files that are kept; `None` keeps all.
    keep: Option<usize>,
    next: u32,
    /// Files that could not be removed, which was said.
    stuck: BTreeSet<u32>,
    /// The directory could not be read, which was said.
    unreadable: bool,
}

impl Series {
    /// The series that this name stands for.
    pub fn new(path: &Path, keep: Option<usize>) -> io::Result<Self> {
        let mut series = Self::at(path.to_owned(), keep);
        series.next = series.there()?.last().map_or(1, |(number, _)| number + 1);
        Ok(series)
    }

    fn at(path: PathBuf, keep: Option<usize>) -> Self {
        Self { path, keep, next: 1, stuck: BTreeSet::new(), unreadable: false }
    }

    /// The name of the next file.
    pub fn next_file(&self) -> PathBuf {
        self.name(self.next)
    }

    /// Goes on to the number after that, as there is a file of that name; `false` after the last.
    pub fn pass_over(&mut self) -> bool {
        self.next += 1;
        self.next <= LAST
    }

    /// Removes the oldest of those that are too many. To be called when the newest has something in
    /// it, so that a full disk costs no history. A file that cannot be removed stays beside those that
    /// are kept; that is said once.
    pub fn trim(&mut self, disk: &dyn Disk) {
        let Some(keep) = self.keep else { return };
        let there = match self.there() {
            Ok(there) => there,
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    let dir = shown(self.dir());
                    log::warn!("cannot look for old files of the recording in {dir}: {error}");
                }
                return;
            }
        };
        for (number, oldest) in there.iter().take(there.len().saturating_sub(keep)) {
            if let Err(error) = disk.remove(oldest)
                && self.stuck.insert(*number)
            {
                log::warn!(
                    "cannot remove {}: {error}; it stays, beside the {keep} files that are kept",
                    shown(oldest)
                );
            }
        }
        self.stuck.retain(|number| there.iter().any(|(other, _)| other == number));
    }

    /// The file after this one in its series: the one with the next number that is there.
    pub fn after(path: &Path) -> io::Result<Option<PathBuf>> {
        let Some((series, number)) = Self::of(path) else { return Ok(None) };
        Ok(series.there()?.into_iter().find(|&(other, _)| other > number).map(|(_, path)| path))
    }

    /// Whether a file belongs to no series.
    pub fn has_one_file(path: &Path) -> bool {
        Self::of(path).is_none()
    }

    /// The series that a file belongs to, and its number there.
    fn of(path: &Path) -> Option<(Self, u32)> {
        let name = path.file_name()?.to_str()?;
        let (stem, extension) = name.rsplit_once('.')?;
        let (stem, digits) = stem.rsplit_once('.')?;
        let number = number(digits)?;
        Some((Self::at(path.with_file_name(format!("{stem}.{extension}")), None), number))
    }

    fn name(&self, number: u32) -> PathBuf {
        let (stem, extension) = self.parts();
        self.path.with_file_name(format!("{stem}.{number:0DIGITS$}.{extension}"))
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let extension = text(self.path.extension()).unwrap_or_else(|| "tcpw".to_owned());
        (text(self.path.file_stem()).unwrap_or_default(), extension)
    }

    fn dir(&self) -> &Path {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        }
    }

    /// Files of the series that are there, in order.
    fn there(&self) -> io::Result<Vec<(u32, PathBuf)>> {
        let (stem, extension) = self.parts();
        let mut there = Vec::new();
        for entry in fs::read_dir(self.dir())? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix(&stem)?.strip_prefix('.'))
                .and_then(|name| name.strip_suffix(&extension)?.strip_suffix('.'))
                .and_then(number);
            // A directory of such a name is no file of the series.
            if let Some(number) = number
                && entry.file_type().is_ok_and(|kind| !kind.is_dir())
            {
                there.push((number, entry.path()));
            }
        }
        there.sort_unstable();
        Ok(there)
    }
}

/// The number that these digits of a name are.
fn number(digits: &str) -> Option<u32> {
    let number = digits.parse().ok().filter(|_| digits.len() >= DIGITS)?;
    (number <= LAST).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::disk::RealDisk;

    /// Makes the next file of a series.
    fn begin(series: &mut Series) {
        fs::write(series.next_file(), "x").unwrap();
        assert!(series.pass_over());
    }

    fn numbers(path: &Path) -> Vec<u32> {
        let there = Series::new(path, None).unwrap().there().unwrap();
        there.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn a_series_goes_on_and_keeps_so_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.tcpw");
        for round in 0..2 {
            let mut series = Series::new(&path, Some(3)).unwrap();
            for _ in 0..3 {
                begin(&mut series);
                series.trim(&RealDisk);
            }
            let last = 3 * (round + 1);
            assert_eq!(numbers(&path), [last - 2, last - 1, last]);
        }
        fs::write(dir.path().join("box.notes.tcpw"), "x").unwrap();
        fs::write(dir.path().join("box.4294967295.tcpw"), "x").unwrap();
        let series = Series::new(&path, None).unwrap();
        assert_eq!(series.next, 7);
        let after = |number| Series::after(&series.name(number)).unwrap();
        assert_eq!(after(1), Some(series.name(4)), "those between are removed already");
        assert_eq!(after(4), Some(series.name(5)));
        assert_eq!(after(6), None);
        assert!(Series::has_one_file(&path) && !Series::has_one_file(&series.name(1)));
    }

    #[test]
    fn a_directory_of_such_a_name_is_no_file_of_the_series() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.tcpw");
        let mut series = Series::new(&path, Some(2)).unwrap();
        fs::create_dir(series.name(1)).unwrap();
        series.next = 2;
        for _ in 0..4 {
            begin(&mut series);
            series.trim(&RealDisk);
        }
        assert_eq!(numbers(&path), [4, 5]);
        assert!(series.stuck.is_empty() && series.name(1).is_dir());
    }

    /// A disk on which the first file of a series cannot be removed.
    #[derive(Debug)]
    struct Sticky;

    impl Disk for Sticky {
        fn write(&self, _: &fs::File, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self, _: &fs::File) -> io::Result<()> {
            Ok(())
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            if path.ends_with("box.000001.tcpw") {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            fs::remove_file(path)
        }
    }

    #[test]
    fn what_cannot_be_removed_does_not_keep_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.tcpw");
        let mut series = Series::new(&path, Some(2)).unwrap();
        for _ in 0..5 {
            begin(&mut series);
            series.trim(&Sticky);
        }
        assert_eq!(numbers(&path), [1, 4, 5]);
        assert_eq!(series.stuck.iter().copied().collect::<Vec<_>>(), [1]);
    }
}
