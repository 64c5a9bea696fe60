//! Flags of `top`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::FilterArgs;
use crate::{config, top::frame::Size, trace::recording::Moment};

const EXAMPLES: &str = "\
Examples:
  sudo tcpwatch top                      whose connections linger, now
  sudo tcpwatch top --pid 4242           of one process
  sudo tcpwatch top --linger 5s -D 5432  connections to port 5432, found after 5 s
  sudo tcpwatch top --record inc.tcpw    the same, and keep everything for later
  tcpwatch top --replay inc.tcpw         the same screen on a recording, without root
  tcpwatch top --replay inc.tcpw --at -5m --speed 10
                                         its last five minutes, ten times as fast

Keys: Enter goes into a culprit, a socket, its story; Esc goes back; ? shows all of them.";

/// Flags of `top`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// A connection that stays in `CLOSE_WAIT` this long is a finding [default: 30s, or as recorded]
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    pub linger: Option<Duration>,
    /// Also show deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Follow findings only, not every state change; the kernel then sends only what they need
    #[arg(short = 'q', long = "findings", conflicts_with = "state")]
    pub findings: bool,
    /// Exit 1 if there were findings
    #[arg(long)]
    pub fail_on_leak: bool,
    /// Stop after this time
    #[arg(short = 'd', long, value_name = "TIME", value_parser = config::duration)]
    pub duration: Option<Duration>,
    /// Ring buffer between kernel and agent: a power of two, 4K to 1G
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = config::ring_size)]
    pub ring_size: u32,
    /// Record to this file, too (see `tcpwatch record`)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Create this file when everything is attached
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ready_file: Option<PathBuf>,
    /// A recording.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Which recording to show, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Recordings")]
pub struct RecordingArgs {
    /// Show a recording: trace files, or directories of them
    #[arg(long, value_name = "FILE", num_args = 1..,
          conflicts_with_all = ["record", "duration", "ring_size", "ready_file"])]
    pub replay: Vec<PathBuf>,
    /// So many times as fast as it happened [default: 1]
    #[arg(long, value_name = "FACTOR", requires = "replay", value_parser = config::speed)]
    pub speed: Option<f64>,
    /// Begin here: a time such as 2026-11-22T17:30 or 17:30, +5m after the beginning, -5m before the end
    #[arg(long, value_name = "WHEN", requires = "replay", allow_hyphen_values = true,
          value_parser = config::moment)]
    pub at: Option<Moment>,
    /// Write one frame of this size as text, and end.
    #[arg(long, value_name = "COLUMNSxROWS", requires = "replay", hide = true)]
    pub frame: Option<Size>,
    /// What was typed before that frame, one key after the other, such as `down enter`.
    #[arg(long, value_name = "KEYS", requires = "frame", hide = true, value_delimiter = ' ')]
    pub keys: Vec<String>,
}
