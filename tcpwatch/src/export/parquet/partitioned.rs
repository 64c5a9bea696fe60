//! A directory of Parquet files by host and day, the way Hive lays tables out.
//!
//! `OUT/host=<host>/date=YYYY-MM-DD/part-<recording>-<file>-<n>.parquet`: engines take `host` and
//! `date` from the path and leave out directories that a query does not need. `date` is the UTC
//! day of `ts`. Names of host and recording are percent-encoded: a recording may come from
//! somebody else. A host's name of letters, digits, `.`, `_` and `-` stays as it is; `ClickHouse` shows
//! others encoded. `<file>` is the recording's file that was exported (from 1), so that exporting
//! a recording's files one by one, or one of them again, neither loses nor doubles rows.
//! A recording without rows yields one file without rows, so that the table has its columns.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{columns::Origin, file::ParquetFile, row, row::Row};
use crate::{
    core::{
        record::Record,
        time::{ClockMark, Timestamp},
    },
    denied,
    export::{late, newfile::NewFile},
    sink::Sink,
    trace::meta::Meta,
};

/// Files open at once: around midnight rows of two days alternate. A day that comes back later
/// gets another file. Each holds the rows of one row group.
const MOST_OPEN: usize = 2;
const DAY_US: i64 = 86_400_000_000;
/// What Hive calls a partition whose value is not known.
const NO_HOST: &str = "__HIVE_DEFAULT_PARTITION__";

/// Writes a directory of Parquet files.
pub struct PartitionedSink {
    directory: PathBuf,
    meta: Meta,
    origin: Arc<Origin>,
    findings: bool,
    /// Day since 1970 and its file, the least recently begun first.
    open: Vec<(i64, ParquetFile<NewFile>)>,
    /// Files begun.
    begun: u64,
    /// Transitions known to be lost so far.
    lost: u64,
    complete: bool,
}

impl PartitionedSink {
    /// Writes below `directory`, which is made if need be; findings only if asked.
    pub fn new(directory: &Path, meta: &Meta, findings: bool) -> io::Result<Self> {
        let host = match &meta.host[..] {
            "" => NO_HOST.to_owned(),
            host => percent_encoded(host),
        };
        let directory = directory.join(format!("host={host}"));
        create_directory(&directory)?;
        Ok(Self {
            directory,
            meta: meta.clone(),
            origin: Arc::new(Origin::new(meta)),
            findings,
            open: Vec::new(),
            begun: 0,
            lost: 0,
            complete: false,
        })
    }

    fn push(&mut self, row: Row) -> io::Result<()> {
        let day = row.wall_us.div_euclid(DAY_US);
        let position = match self.open.iter().position(|&(open, _)| open == day) {
            Some(position) => position,
            None => self.begin(day)?,
        };
        self.open[position].1.push(row)
    }

    fn begin(&mut self, day: i64) -> io::Result<usize> {
        if self.open.len() >= MOST_OPEN {
            let (_, oldest) = self.open.remove(0);
            complete(oldest, self.lost)?;
        }
        let directory = self.directory.join(format!("date={}", date(day)));
        create_directory(&directory)?;
        self.begun += 1;
        let recording = percent_encoded(&self.meta.recording);
        let name = format!("part-{recording}-{}-{}.parquet", self.meta.sequence, self.begun);
        let file = NewFile::create(&directory.join(name))?;
        let file = ParquetFile::new(file, &self.meta, Arc::clone(&self.origin), false)?;
        self.open.push((day, file));
        Ok(self.open.len() - 1)
    }
}

impl Sink for PartitionedSink {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if let Record::Lost(lost) = record {
            self.lost = lost.total;
        }
        if let Record::Summary(summary) = record {
            self.lost = summary.lost;
            if self.begun == 0 && !self.complete {
                self.begin(day(clock, summary.at))?;
            }
            self.complete = true;
            return self.open.drain(..).try_for_each(|(_, file)| complete(file, summary.lost));
        }
        match row(clock, record, &self.meta, self.findings) {
            Some(_) if self.complete => Err(late()),
            Some(row) => self.push(row),
            None => Ok(()),
        }
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path).map_err(|error| denied::explain(error, path))
}

fn complete(file: ParquetFile<NewFile>, lost: u64) -> io::Result<()> {
    file.finish(lost)?.commit()
}

fn day(clock: &ClockMark, at: Timestamp) -> i64 {
    let seconds = clock.wall_ns(at) / 1_000_000_000;
    i64::try_from(seconds).unwrap_or(0).div_euclid(DAY_US / 1_000_000)
}

fn date(day: i64) -> jiff::civil::Date {
    let start = jiff::Timestamp::from_microsecond(day.saturating_mul(DAY_US));
    start.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// Letters, digits, `.`, `_` and `-` as they are, all else as `%XX`: no name leads elsewhere.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(percent_encoded("web-1.example_x"), "web-1.example_x");
        assert_eq!(percent_encoded("../../etc/ä=%"), "..%2F..%2Fetc%2F%C3%A4%3D%25");
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(date(0).to_string(), "1970-01-01");
        assert_eq!(date(20_454).to_string(), "2026-01-01");
        let clock = ClockMark { real_ns: 20_454 * 86_400_000_000_000, ..ClockMark::default() };
        assert_eq!(day(&clock, Timestamp(86_399_999_999_999)), 20_454);
        assert_eq!(day(&clock, Timestamp(86_400_000_000_000)), 20_455);
    }
}
