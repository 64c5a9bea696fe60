//! The files of a recording that goes on for ever: one after the other, and no more than so many.
//!
//! `box.tcpw` becomes `box.000001.tcpw`, `box.000002.tcpw`, …; a later run goes on where the last one
//! ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const DIGITS: usize = 6;

/// Names of the files of a recording.
#[derive(Clone, Debug)]
pub struct Series {
    path: PathBuf,
    /// Files that are kept; `None` keeps all.
    keep: Option<usize>,
    next: u32,
}

impl Series {
    /// The series that this name stands for.
    pub fn new(path: &Path, keep: Option<usize>) -> io::Result<Self> {
        let mut series = Self { path: path.to_owned(), keep, next: 1 };
        series.next = series.there()?.last().map_or(1, |(number, _)| number + 1);
        Ok(series)
    }

    /// The name of the next file.
    pub fn next_file(&mut self) -> PathBuf {
        let path = self.name(self.next);
        self.next += 1;
        path
    }

    /// The file of that name could not be begun.
    pub fn give_back(&mut self) {
        self.next -= 1;
    }

    /// Removes the oldest of those that are too many. To be called when the newest has something in
    /// it, so that a full disk costs no history.
    pub fn trim(&self) -> io::Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        let there = self.there()?;
        for (_, oldest) in there.iter().take(there.len().saturating_sub(keep)) {
            fs::remove_file(oldest)?;
        }
        Ok(())
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
        let number: u32 = digits.parse().ok().filter(|_| digits.len() >= DIGITS)?;
        let path = path.with_file_name(format!("{stem}.{extension}"));
        Some((Self { path, keep: None, next: number + 1 }, number))
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

    /// Files of the series that are there, in order.
    fn there(&self) -> io::Result<Vec<(u32, PathBuf)>> {
        let (stem, extension) = self.parts();
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut there = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix(&stem)?.strip_prefix('.'))
                .and_then(|name| name.strip_suffix(&extension)?.strip_suffix('.'))
                .filter(|digits| digits.len() >= DIGITS)
                .and_then(|digits| digits.parse().ok());
            there.extend(number.map(|number: u32| (number, path)));
        }
        there.sort_unstable();
        Ok(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_goes_on_and_keeps_so_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("box.tcpw");
        for round in 0..2 {
            let mut series = Series::new(&path, Some(3)).unwrap();
            for _ in 0..3 {
                fs::write(series.next_file(), "x").unwrap();
                series.trim().unwrap();
            }
            let names: Vec<_> = Series::new(&path, None)
                .unwrap()
                .there()
                .unwrap()
                .into_iter()
                .map(|f| f.0)
                .collect();
            let last = 3 * (round + 1);
            assert_eq!(names, [last - 2, last - 1, last]);
        }
        fs::write(dir.path().join("box.notes.tcpw"), "x").unwrap();
        let series = Series::new(&path, None).unwrap();
        assert_eq!(series.next, 7);
        let after = |number| Series::after(&series.name(number)).unwrap();
        assert_eq!(after(1), Some(series.name(4)), "those between are removed already");
        assert_eq!(after(4), Some(series.name(5)));
        assert_eq!(after(6), None);
        assert!(Series::has_one_file(&path) && !Series::has_one_file(&series.name(1)));
    }
}
