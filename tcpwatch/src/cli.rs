//! The command line, exactly as typed. [`crate::config`] turns it into what the code needs.

#![expect(clippy::doc_markdown, reason = "these are help texts, which show backticks as they are")]

mod notify;
mod outputs;
mod recordings;
mod serve;
mod top;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::styling};

pub use self::{notify::*, recordings::*, serve::*, top::*};
use crate::{config, core::state::State};

const EXAMPLES: &str = "\
Examples:
  sudo tcpwatch --pid 4242               every state change of that process's sockets, and findings
  sudo tcpwatch -q --linger 1m           only an alarm for what lingers in CLOSE_WAIT, host-wide
  sudo tcpwatch -D 5432 -j               connections to port 5432, as JSON lines
  sudo tcpwatch -stT > states.csv        CSV, bcc style
  sudo tcpwatch -q -d 60s --fail-on-leak fail if anything leaks within a minute
  sudo tcpwatch leaks                    one look at what lingers now
  sudo tcpwatch top                      the same on a screen that updates
  sudo tcpwatch run --fail-on-leak -- make test
                                         fail a test suite that leaks
  sudo tcpwatch record -o incident.tcpw  keep everything for later
  tcpwatch replay incident.tcpw          what happened, anywhere and without root
  tcpwatch report incident.tcpw --html incident.html
                                         the postmortem as a page for a browser
  sudo tcpwatch serve                    metrics for Prometheus at 127.0.0.1:9469
  sudo tcpwatch demo                     see it find a leak, in ten seconds

Exit codes: 0 ok, 1 findings and --fail-on-leak, 2 error.";

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Yellow.on_default().bold())
    .usage(styling::AnsiColor::Yellow.on_default().bold())
    .literal(styling::AnsiColor::Green.on_default())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Find leaking TCP connections: every state change, the right owner, and an alarm for what
/// lingers in `CLOSE_WAIT`.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, styles = STYLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without a verb, watch live.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the live view.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One look, then exit: everything that lingers now, grouped by culprit
    Leaks(LeaksArgs),
    /// A screen that updates: whose connections linger, why, and when that will hurt
    Top(TopArgs),
    /// Record to a trace file that replays anywhere, without root: a black box
    Record(Box<RecordArgs>),
    /// Show a recording as if it happened now, with other thresholds and filters if you like
    Replay(ReplayArgs),
    /// The postmortem of a recording: what happened, who leaked, how long everything took
    Report(ReportArgs),
    /// What changed from one recording to another, as before and after a deploy
    Diff(DiffArgs),
    /// Turn a recording into a table for query engines or a timeline for the Perfetto UI
    Export(ExportArgs),
    /// Say what a recording holds, and what of it is damaged
    Info(InfoArgs),
    /// Serve metrics for Prometheus and open findings over HTTP: the agent for a fleet
    Serve(Box<ServeArgs>),
    /// Run a command and watch it and its descendants from their first socket
    Run(RunArgs),
    /// Count sockets per state, TIME_WAIT included, by process or by port
    States(StatesArgs),
    /// Say what a TCP state means, who is at fault, and what helps
    Explain(ExplainArgs),
    /// Say what this kernel and these privileges allow, and what is therefore exact or inferred
    Doctor(DoctorArgs),
    /// Start a small server that leaks, watch it, and show the findings (about 8 s)
    Demo(DemoArgs),
}

/// Flags of the live view.
#[derive(Args, Clone, Debug)]
pub struct LiveArgs {
    /// A connection that stays in `CLOSE_WAIT` this long is a finding
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = config::duration)]
    pub linger: std::time::Duration,
    /// Also report deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Show findings only; the kernel then sends only what they need
    #[arg(short = 'q', long = "findings", conflicts_with = "state")]
    pub findings: bool,
    /// Exit 1 if there were findings
    #[arg(long)]
    pub fail_on_leak: bool,
    /// Stop after this time
    #[arg(short = 'd', long, value_name = "TIME", value_parser = config::duration)]
    pub duration: Option<std::time::Duration>,
    /// Ring buffer between kernel and agent: a power of two, 4K to 1G
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = config::ring_size)]
    pub ring_size: u32,
    /// Record to this file, too (see `tcpwatch record`)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Create this file when everything is attached
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ready_file: Option<PathBuf>,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to show.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who else is told.
    #[command(flatten)]
    pub notify: NotifyArgs,
}

/// Which sockets to watch. Several values of one flag widen, several flags narrow.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only sockets of these processes: opened, accepted or held by them, or through their listeners
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',',
          value_parser = config::pid)]
    pub pid: Vec<u32>,
    /// Which sockets of these.
    #[command(flatten)]
    pub sockets: SocketArgs,
}

/// Which sockets, whoever has them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct SocketArgs {
    /// Only these local ports
    #[arg(short = 'L', long = "localport", value_name = "PORT", value_delimiter = ',',
          value_parser = config::port)]
    pub localport: Vec<u16>,
    /// Only these remote ports
    #[arg(short = 'D', long = "remoteport", value_name = "PORT", value_delimiter = ',',
          value_parser = config::port)]
    pub remoteport: Vec<u16>,
    /// Only IPv4, v4-mapped IPv6 included
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long = "ipv6")]
    pub ipv6: bool,
    /// Only this network namespace: inode, path, or name in /run/netns
    #[arg(short = 'N', long, value_name = "NS", value_delimiter = ',')]
    pub netns: Vec<String>,
    /// Only sockets of this user id
    #[arg(short = 'u', long, value_name = "UID", value_delimiter = ',', value_parser = config::uid)]
    pub uid: Vec<u32>,
    /// Only transitions from or to this state (close-wait, `CLOSE_WAIT`, …)
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<State>,
}

/// How to show it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag the user may type")]
pub struct OutputArgs {
    /// JSON lines
    #[arg(short, long, conflicts_with = "csv")]
    pub json: bool,
    /// CSV
    #[arg(short = 's', long)]
    pub csv: bool,
    /// Show the time of day
    #[arg(short = 'T', long)]
    pub time: bool,
    /// Show seconds since the first line
    #[arg(short = 't', long = "timestamp")]
    pub timestamp: bool,
    /// Show every column
    #[arg(short, long)]
    pub wide: bool,
}

/// Flags of `leaks`.
#[derive(Args, Clone, Debug)]
pub struct LeaksArgs {
    /// Only what has lingered this long; 0s shows also what passes through at this moment
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = config::duration)]
    pub linger: std::time::Duration,
    /// Also report deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Go on looking for this time, and say what grows and when it will hurt (10s or more)
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    pub watch: Option<std::time::Duration>,
    /// Show this many groups
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = config::number::<usize>(0..=u64::MAX, "a number of groups"))]
    pub top: usize,
    /// JSON lines: every finding, then every group
    #[arg(short, long)]
    pub json: bool,
    /// Exit 1 if anything lingers
    #[arg(long)]
    pub fail_on_leak: bool,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Write to this file instead of standard error
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output_file: Option<PathBuf>,
    /// A connection that stays in `CLOSE_WAIT` this long is a finding
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = config::duration)]
    pub linger: std::time::Duration,
    /// Also report deliberate half-closes, where data still flows
    #[arg(long)]
    pub include_half_open: bool,
    /// Show every state change, too
    #[arg(short = 'a', long)]
    pub transitions: bool,
    /// Exit 1 if there were findings and the command was successful
    #[arg(long)]
    pub fail_on_leak: bool,
    /// Ring buffer between kernel and agent: a power of two, 4K to 1G
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = config::ring_size)]
    pub ring_size: u32,
    /// Record to this file, too (see `tcpwatch record`)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The command and its arguments, after --
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
    /// Which sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// What to show.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `states`.
#[derive(Args, Clone, Debug)]
pub struct StatesArgs {
    /// Count by this
    #[arg(long, value_enum, default_value_t = By::Process)]
    pub by: By,
    /// Show this many rows
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = config::number::<usize>(0..=u64::MAX, "a number of rows"))]
    pub top: usize,
    /// JSON lines: one per row
    #[arg(short, long)]
    pub json: bool,
    /// Which sockets.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `states` counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The process that holds the socket
    Process,
    /// The local port
    Port,
}

/// Flags of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The state (close-wait, CLOSE_WAIT, …)
    pub state: State,
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// List every kernel field and its offset
    #[arg(short, long)]
    pub verbose: bool,
}

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// JSON lines
    #[arg(short, long)]
    pub json: bool,
    /// Be the server that leaks.
    #[arg(long, hide = true)]
    pub serve: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_bcc_combination_parses() {
        let cli = Cli::try_parse_from(["tcpwatch", "-stT", "-p", "1,2", "-p", "3"]).unwrap();
        assert!(cli.live.output.csv && cli.live.output.time && cli.live.output.timestamp);
        assert_eq!(cli.live.filter.pid, [1, 2, 3]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &["tcpwatch", "-L", "0"][..],
            &["tcpwatch", "-D", "65536"],
            &["tcpwatch", "-4", "-6"],
            &["tcpwatch", "-s", "-j"],
            &["tcpwatch", "-q", "--state", "listen"],
            &["tcpwatch", "--state", "closewait?"],
            &["tcpwatch", "-p", "0"],
            &["tcpwatch", "--ring-size", "5000"],
            &["tcpwatch", "--linger", "soon"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
