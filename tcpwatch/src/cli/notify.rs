//! Flags that send findings to where people already have theirs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{config, core::finding::Status, notify};

/// Where findings go beside the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Notifications")]
pub struct NotifyArgs {
    /// Send findings as OpenTelemetry log records to this collector (OTLP/HTTP; /v1/logs is added to
    /// an address that does not end so). Without URL: OTEL_EXPORTER_OTLP_ENDPOINT, or
    /// http://localhost:4318
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub otlp: Option<String>,
    /// A header for the collector; for secrets use OTEL_EXPORTER_OTLP_HEADERS, as others can read
    /// command lines
    #[arg(long, value_name = "KEY=VALUE", requires = "otlp")]
    pub otlp_header: Vec<String>,
    /// Run this with /bin/sh for new findings: what was found is in TCPWATCH_… variables, and as JSON on
    /// standard input
    #[arg(long, value_name = "COMMAND")]
    pub exec_on_finding: Option<String>,
    /// How the command is run.
    #[command(flatten)]
    pub exec: ExecArgs,
    /// Whether findings become entries of the systemd journal, with fields of their own; auto: if standard
    /// error is the journal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Journal::Auto, hide_short_help = true)]
    pub journal: Journal,
    /// Where the journal listens.
    #[arg(long, value_name = "PATH", default_value = notify::JOURNAL_SOCKET, hide = true)]
    pub journal_socket: PathBuf,
}

/// How a command is run for findings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Notifications")]
pub struct ExecArgs {
    /// Run it for findings that are these
    #[arg(
        long,
        value_enum,
        value_name = "STATUS",
        value_delimiter = ',',
        default_value = "open",
        requires = "exec_on_finding",
        hide_short_help = true
    )]
    pub exec_when: Vec<When>,
    /// As this user, if tcpwatch is root
    #[arg(
        long,
        value_name = "USER",
        default_value = "nobody",
        requires = "exec_on_finding",
        hide_short_help = true
    )]
    pub exec_user: String,
    /// At most so often per minute, after the first ten
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = config::number::<u32>(1..=60_000, "a number of runs"),
          requires = "exec_on_finding", hide_short_help = true)]
    pub exec_rate: u32,
    /// At most once in this time for findings of one process, verdict and peer (0s: for each)
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = config::duration,
          requires = "exec_on_finding", hide_short_help = true)]
    pub exec_again: Duration,
    /// At most so many at a time; others wait
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = config::number::<u8>(1..=64, "a number of commands"),
          requires = "exec_on_finding", hide_short_help = true)]
    pub exec_jobs: u8,
    /// Kill it after this time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::duration,
          requires = "exec_on_finding", hide_short_help = true)]
    pub exec_timeout: Duration,
}

/// Findings that a command is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// New
    Open,
    /// Still there
    Still,
    /// Over
    Ended,
}

impl From<When> for Status {
    fn from(when: When) -> Self {
        match when {
            When::Open => Self::Open,
            When::Still => Self::Still,
            When::Ended => Self::Ended,
        }
    }
}

/// Whether findings go to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Journal {
    /// If standard error does
    Auto,
    /// Always
    On,
    /// Never
    Off,
}
