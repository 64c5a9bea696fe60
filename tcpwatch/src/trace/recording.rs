//! The files of a recording, in order, and the moments of it that people name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use jiff::{Timestamp as Wall, civil, tz::TimeZone};

use super::{file::TraceFile, index::Entry, meta::Meta, reader::Reader};
use crate::{
    core::{
        comm,
        time::{Nanos, Timestamp},
    },
    denied,
    exit::say,
};

/// A moment as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Wall time, ns since 1970.
    At(u64),
    /// A time of day, on the day when the recording begins, where this is asked.
    TimeOfDay(civil::Time),
    /// So long after the beginning.
    AfterStart(Nanos),
    /// So long before the end.
    BeforeEnd(Nanos),
}

/// The files of one recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What the first file says of itself.
    pub meta: Meta,
    /// Its files, the oldest first.
    pub files: Vec<TraceFile>,
}

/// A part of a recording, as wall times; `None` is its beginning or end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// From here on.
    pub from: Option<u64>,
    /// Up to here.
    pub to: Option<u64>,
}

/// Files that were opened, of which nothing was read.
pub struct Opened {
    /// With each, whether it was named itself.
    files: Vec<(TraceFile, bool)>,
}

/// Opens files, and the trace files in directories.
pub fn open_all(paths: &[PathBuf]) -> Result<Opened> {
    let mut files = Vec::new();
    for (path, named) in expand(paths)? {
        if let Some(file) = unless_bad(TraceFile::open(&path), named)? {
            files.push((file, named));
        }
    }
    Ok(Opened { files })
}

/// One bad file is no reason to keep a directory back.
fn unless_bad<T>(result: Result<T>, named: bool) -> Result<Option<T>> {
    match result {
        Ok(good) => Ok(Some(good)),
        Err(error) if !named => {
            say(&format!("tcpwatch: {error:#}; it is left out"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens files and sorts them into recordings.
pub fn recordings(paths: &[PathBuf]) -> Result<Vec<Recording>> {
    open_all(paths)?.recordings()
}

impl Opened {
    /// What is read from each. A bad one that was not named itself is said and left out.
    pub fn each<T>(
        &self,
        read: impl Fn(&TraceFile) -> Result<T>,
    ) -> impl Iterator<Item = Result<T>> {
        let read = move |(file, named): &(TraceFile, bool)| unless_bad(read(file), *named);
        self.files.iter().map(read).filter_map(Result::transpose)
    }

    /// Sorts them into recordings: by host and boot, then by time.
    pub fn recordings(self) -> Result<Vec<Recording>> {
        let meta =
            |file: &TraceFile| Ok((file.read()?.meta().cloned().unwrap_or_default(), file.clone()));
        sort(self.each(meta).collect::<Result<_>>()?)
    }
}

fn sort(mut files: Vec<(Meta, TraceFile)>) -> Result<Vec<Recording>> {
    files.sort_by(|(a, _), (b, _)| {
        let key = |meta: &Meta| (meta.host.clone(), meta.recording.clone());
        key(a).cmp(&key(b)).then(a.sequence.cmp(&b.sequence))
    });
    let mut recordings: Vec<Recording> = Vec::new();
    let mut sequence = None;
    for (meta, file) in files {
        let number = meta.sequence;
        match recordings.last_mut() {
            // One that says nothing of itself belongs to none.
            Some(last) if last.meta.recording == meta.recording && !meta.recording.is_empty() => {
                if let (Some(same), true) = (last.files.last(), sequence == Some(meta.sequence)) {
                    bail!(
                        "{} and {} are the same file of one recording",
                        comm::shown(same.path()),
                        comm::shown(file.path())
                    );
                }
                last.files.push(file);
            }
            _ => recordings.push(Recording { meta, files: vec![file] }),
        }
        sequence = Some(number);
    }
    recordings.sort_by_key(|recording| recording.meta.clock.real_ns);
    Ok(recordings)
}

/// A directory stands for the trace files in it. With each, whether it was named itself.
fn expand(paths: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), true));
            continue;
        }
        let entries = fs::read_dir(path).map_err(|error| denied::explain(error, path));
        let entries = entries.with_context(|| format!("read {}", comm::shown(path)))?;
        let there = files.len();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tcpw") {
                files.push((path, false));
            }
        }
        files[there..].sort();
        if files.len() == there {
            bail!("there is no trace file (*.tcpw) in {}", comm::shown(path));
        }
    }
    Ok(files)
}

/// Opens a trace file; the message says which.
pub fn open(path: &Path) -> Result<Reader> {
    TraceFile::open(path)?.read()
}

impl Recording {
    /// The part between two moments.
    pub fn range(&self, from: Option<Moment>, to: Option<Moment>) -> Result<Range> {
        if from.is_none() && to.is_none() {
            return Ok(Range::default());
        }
        let (start, end) = self.span()?;
        let wall = |moment: Moment| match moment {
            Moment::At(ns) => Ok(ns),
            Moment::AfterStart(span) => Ok(start.saturating_add(span.0)),
            Moment::BeforeEnd(span) => Ok(end.saturating_sub(span.0)),
            Moment::TimeOfDay(time) => time_of_day(time, start, end),
        };
        let mut range = Range { from: from.map(wall).transpose()?, to: to.map(wall).transpose()? };
        let (first, last) = (range.from.unwrap_or(start), range.to.unwrap_or(end));
        if first > end || last < start || first > last {
            bail!(
                "nothing was recorded between {} and {}: the recording is from {} to {}",
                shown(first),
                shown(last),
                shown(start),
                shown(end)
            );
        }
        // What is before the beginning was not seen, and does not count as time.
        range.from = range.from.filter(|&from| from > start);
        Ok(range)
    }

    /// When a part begins, as the clocks were when the recording began; `None` if it does not say.
    pub fn start(&self, range: Range) -> Option<Timestamp> {
        let clock = self.meta.clock;
        let from =
            range.from.map(|ns| ns.saturating_sub(clock.real_ns.saturating_sub(clock.mono_ns)));
        (clock.mono_ns != 0).then(|| Timestamp(from.unwrap_or(clock.mono_ns)))
    }

    /// Wall times of its first and its last input.
    pub fn span(&self) -> Result<(u64, u64)> {
        let (mut start, mut end) = (u64::MAX, 0);
        for file in &self.files {
            for entry in file.read()?.entries()? {
                let (first, last) = entry.wall_ns();
                start = start.min(first);
                end = end.max(last);
            }
        }
        if end == 0 {
            bail!("{} holds no inputs yet", comm::shown(self.files[0].path()));
        }
        Ok((start, end))
    }

    /// Where to begin to read so that what was before a moment is known.
    pub fn place(&self, from_ns: u64) -> Result<Place> {
        for (number, file) in self.files.iter().enumerate().rev() {
            let entries = file.read()?.entries()?;
            let found =
                entries.iter().rev().find(|entry| entry.snapshot && entry.wall_ns().0 <= from_ns);
            if let Some(entry) = found {
                return Ok(Place { file: number, block: Some(*entry) });
            }
        }
        Ok(Place::default())
    }
}

/// Where one can begin to read: a file, and the block from which on; the default is the very beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which of the files of the recording.
    pub file: usize,
    /// `None` is its beginning.
    pub block: Option<Entry>,
}

/// That time on the first day on which the recording has it, or else on its first day.
fn time_of_day(time: civil::Time, start: u64, end: u64) -> Result<u64> {
    let first_day = wall(start).to_zoned(TimeZone::system()).date();
    let on = |day: civil::Date| {
        let at = day.to_datetime(time).to_zoned(TimeZone::system())?;
        Ok(u64::try_from(at.timestamp().as_nanosecond())?)
    };
    let mut day = first_day;
    while wall(end).to_zoned(TimeZone::system()).date() >= day {
        let at = on(day)?;
        if (start..=end).contains(&at) {
            return Ok(at);
        }
        day = day.tomorrow()?;
    }
    on(first_day)
}

fn wall(ns: u64) -> Wall {
    Wall::from_nanosecond(i128::from(ns)).unwrap_or(Wall::UNIX_EPOCH)
}

/// A moment as people read it.
pub fn shown(ns: u64) -> String {
    wall(ns).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}
