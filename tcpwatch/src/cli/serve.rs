//! Flags of `serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{FilterArgs, NotifyArgs};
use crate::config;

/// Flags of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Answer at this address and port
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9469", value_parser = config::address)]
    pub listen: SocketAddr,
    /// TLS and passwords, as Prometheus has them in its web.config.file
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Answer other hosts without passwords
    #[arg(long)]
    pub insecure: bool,
    /// A connection that stays in `CLOSE_WAIT` this long is a finding
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::duration)]
    pub linger: Duration,
    /// Also report deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Tell this many culprits apart, the rest together
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = config::number::<u32>(1..=1000, "a number of culprits"))]
    pub top: u32,
    /// Count sockets this often, or less often if that would take more than 0.5 % of a CPU
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = config::duration)]
    pub count_every: Duration,
    /// Send the metrics to the collector of --otlp, too, this often [default:
    /// OTEL_METRIC_EXPORT_INTERVAL, or 1m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, value_parser = config::duration,
          requires = "otlp")]
    pub otlp_metrics: Option<Option<Duration>>,
    /// Record to files in this directory, too, as a black box (see `tcpwatch record`)
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Begin another file when one has this size
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = config::size,
          requires = "record")]
    pub rotate_size: u64,
    /// Begin another file after this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = config::duration, requires = "record")]
    pub rotate_every: Option<Duration>,
    /// Keep this many files, the oldest are removed
    #[arg(long, value_name = "N", default_value_t = 48, requires = "record",
          value_parser = config::number::<u32>(1..=u64::from(u32::MAX), "a number of files"))]
    pub keep: u32,
    /// Record only what findings need: much less
    #[arg(short = 'q', long = "findings", conflicts_with = "state", requires = "record")]
    pub findings: bool,
    /// Ring buffer between kernel and agent: a power of two, 4K to 1G [default: 4M, or 16M with
    /// --record]
    #[arg(long, value_name = "BYTES", value_parser = config::ring_size)]
    pub ring_size: Option<u32>,
    /// Stop after this time
    #[arg(short = 'd', long, value_name = "TIME", value_parser = config::duration)]
    pub duration: Option<Duration>,
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
