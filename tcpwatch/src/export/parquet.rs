//! Parquet: one table of transitions and findings for `DuckDB`, pandas, polars, `ClickHouse`,
//! Trino, Spark and whatever else reads Parquet.
//!
//! One row per transition and, if asked, one per finding; `type` says which. Names and meanings of
//! the columns are those of CSV and JSON ([`crate::sink::csv`], [`crate::sink::json`]): a
//! finding's state is in `new`, `by_pid` and `by_comm` made the change or ended what lingered,
//! `holders` is `pid:fd pid:fd`, `listener` the local end of the listener that did not accept.
//! `carried_over` says that an earlier file of the recording has the finding, too: it is `still`
//! there, and not `open` once more.
//! What is not known, or does not apply, is null, never 0: the remote end of a listener, the
//! round-trip time before the first sample. Losses have no row; their number is in the metadata.
//!
//! # Types
//!
//! The plain ones, because the same file is to be read everywhere without a setting:
//!
//! - `ts` is `TIMESTAMP(MICROS, UTC)`. Spark, 4.3 included, refuses a file with `TIMESTAMP(NANOS)`
//!   unless told to read it as a number (SPARK-40819), and its own times end at microseconds.
//!   `mono_ns` has the nanoseconds: it orders and measures, `ts` places in wall time.
//! - Whole numbers are `INT64`, signed. Unsigned 64 bits become `DECIMAL(20,0)` in Spark, and SQL
//!   engines such as Trino have no unsigned type. Numbers that only name something
//!   (`socket`, `cookie`, `cgroup`) keep their 64 bits; they are counted up, so none is negative.
//! - Text is UTF-8 with a dictionary, flags are `BOOLEAN`. All but `ts` may be null.
//! - zstd, data pages of version 1, `DELTA_BINARY_PACKED` for times and ids (Spark reads it fast
//!   from 3.3 on); statistics per page and row group.
//!
//! `socket` is unique within a `recording`, `mono_ns` compares within a `boot_id`. The metadata
//! has `tcpwatch.tool`, `.recording`, `.host`, `.kernel`, `.machine`, `.boot_id` and `.lost`, the
//! number of transitions that never reached us.
//!
//! # Memory
//!
//! Rows wait for their row group: at most 128 Ki rows, about 45 MB, and 32 MiB of findings' text.
//! Within a row group rows are sorted by `ts`; they come in nearly in order, so the row groups'
//! ranges overlap by little.

mod columns;
mod file;
mod partitioned;
mod row;

use std::{
    io::{self, Write},
    sync::Arc,
};

pub use self::partitioned::PartitionedSink;
use self::{columns::Origin, file::ParquetFile, row::Row};
use crate::{
    core::{record::Record, time::ClockMark},
    sink::Sink,
    trace::meta::Meta,
};

/// Writes one Parquet file.
pub struct ParquetSink<W: Write + Send> {
    /// `None` once it is complete.
    file: Option<ParquetFile<W>>,
    meta: Meta,
    findings: bool,
}

impl<W: Write + Send> ParquetSink<W> {
    /// Writes to `out`, which needs no buffer; findings only if asked.
    pub fn new(out: W, meta: &Meta, findings: bool) -> io::Result<Self> {
        let file = ParquetFile::new(out, meta, Arc::new(Origin::new(meta)), true)?;
        Ok(Self { file: Some(file), meta: meta.clone(), findings })
    }
}

impl<W: Write + Send> Sink for ParquetSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if let Record::Summary(summary) = record {
            // Dropped and not handed back: whoever needs the writer lends it.
            return self.file.take().map_or(Ok(()), |file| file.finish(summary.lost)?.flush());
        }
        match (row(clock, record, &self.meta, self.findings), &mut self.file) {
            (Some(_), None) => Err(super::late()),
            (Some(row), Some(file)) => file.push(row),
            (None, _) => Ok(()),
        }
    }
}

/// The row of a record, if it has one.
fn row(clock: &ClockMark, record: &Record<'_>, meta: &Meta, findings: bool) -> Option<Row> {
    match record {
        Record::Transition(transition) => Some(Row::transition(clock, transition)),
        Record::Finding(finding) if findings => {
            Some(Row::finding(clock, finding, meta.carries_over(finding)))
        }
        Record::Finding(_) | Record::Culprit(_) | Record::Lost(_) | Record::Summary(_) => None,
    }
}

impl Origin {
    fn new(meta: &Meta) -> Self {
        Self {
            host: meta.host.clone(),
            recording: meta.recording.clone(),
            boot_id: meta.boot_id.clone(),
        }
    }
}
