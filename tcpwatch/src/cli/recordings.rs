//! Flags of the verbs that write and read recordings.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{FilterArgs, NotifyArgs, OutputArgs};
use crate::{
    config,
    trace::{pack, recording::Moment},
};

/// Flags of `record`.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The trace file; with --rotate-… FILE.tcpw becomes FILE.000001.tcpw, FILE.000002.tcpw, …
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Begin another file when one has this size, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = config::size)]
    pub rotate_size: Option<u64>,
    /// Begin another file after this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    pub rotate_every: Option<Duration>,
    /// Keep this many files, the oldest are removed
    #[arg(long, value_name = "N", value_parser = config::number::<u32>(1..=u64::from(u32::MAX), "a number of files"))]
    pub keep: Option<u32>,
    /// Level of compression, 1 to 19
    #[arg(long, value_name = "N", default_value_t = pack::LEVEL,
          value_parser = config::number::<i32>(1..=19, "a level of compression"))]
    pub level: i32,
    /// What a replay calls a finding unless it is told otherwise
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::duration)]
    pub linger: Duration,
    /// A replay also reports deliberate half-closes
    #[arg(long)]
    pub include_half_open: bool,
    /// Record only what findings need: much less
    #[arg(short = 'q', long = "findings", conflicts_with = "state")]
    pub findings: bool,
    /// Also record what `ss -i` shows of each socket that is looked at
    #[arg(long)]
    pub details: bool,
    /// Stop after this time
    #[arg(short = 'd', long, value_name = "TIME", value_parser = config::duration)]
    pub duration: Option<Duration>,
    /// Ring buffer between kernel and agent: a power of two, 4K to 1G
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = config::ring_size)]
    pub ring_size: u32,
    /// Create this file when everything is attached
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ready_file: Option<PathBuf>,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Who else is told.
    #[command(flatten)]
    pub notify: NotifyArgs,
}

/// What a replay is to do otherwise than the recording run.
#[derive(Args, Clone, Debug)]
pub struct RulesArgs {
    /// A connection that stays in `CLOSE_WAIT` this long is a finding [default: as recorded]
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    pub linger: Option<Duration>,
    /// Also report deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Which recordings, and how to read them.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Trace files, or directories of them; those of one recording are put in order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Begin here: a time such as 2026-11-22T17:30 or 17:30, +5m after the beginning, -5m before the end
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = config::moment)]
    pub from: Option<Moment>,
    /// End here
    #[arg(long = "until", value_name = "WHEN", allow_hyphen_values = true, value_parser = config::moment)]
    pub until: Option<Moment>,
    /// What to conclude and show.
    #[command(flatten)]
    pub rules: RulesArgs,
}

/// Flags of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Show findings only
    #[arg(short = 'q', long = "findings", conflicts_with = "state")]
    pub findings: bool,
    /// Exit 1 if there were findings
    #[arg(long)]
    pub fail_on_leak: bool,
    /// So many times as fast as it happened; 1 is real time [default: as fast as it can]
    #[arg(long, value_name = "FACTOR", value_parser = config::speed)]
    pub speed: Option<f64>,
    /// Go on when the file grows
    #[arg(short, long)]
    pub follow: bool,
    /// Which recordings.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// How to show it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Show this many culprits and services
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = config::number::<usize>(0..=u64::MAX, "a number of rows"))]
    pub top: usize,
    /// JSON: one object per recording
    #[arg(short, long)]
    pub json: bool,
    /// A page for a browser, in one file that needs no other: a new file, or - for standard output
    #[arg(long, value_name = "OUT", conflicts_with_all = ["json", "top"])]
    pub html: Option<PathBuf>,
    /// Exit 1 if there were findings
    #[arg(long)]
    pub fail_on_leak: bool,
    /// Which recordings.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Flags of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The recording from before: a file, or a directory of its files
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The recording from after
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Show this many rows
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = config::number::<usize>(0..=u64::MAX, "a number of rows"))]
    pub top: usize,
    /// JSON: one object
    #[arg(short, long)]
    pub json: bool,
    /// Exit 1 if there are new leaks, or more
    #[arg(long)]
    pub fail_on_leak: bool,
    /// What to conclude and show.
    #[command(flatten)]
    pub rules: RulesArgs,
}

/// Flags of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Into what
    #[arg(long, value_enum)]
    pub to: Format,
    /// The file to write, or with --partition the directory; - is standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Findings, too (a timeline has them anyway)
    #[arg(long)]
    pub findings: bool,
    /// Parquet in OUT/host=…/date=…/, as query engines expect the data of many hosts
    #[arg(long)]
    pub partition: bool,
    /// Which recordings.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON lines, as `replay -j` shows them
    Jsonl,
    /// CSV, as `replay -s` shows it
    Csv,
    /// Parquet, for DuckDB, pandas, polars, ClickHouse, Trino and Spark
    Parquet,
    /// A timeline for the Perfetto UI
    Perfetto,
}

/// Flags of `info`.
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// Trace files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// JSON lines: one object per file
    #[arg(short, long)]
    pub json: bool,
}
