//! `cargo xtask difftest`: tcpwatch against the kernel's own trace.
//!
//! Random processes do legal things with sockets; what tcpwatch says of them is held to what ftrace,
//! `/proc`, `ss` and the processes themselves say. Which operations are done depends on the seed only;
//! how the kernel interleaves them is its own affair, so the outcome is compared and not the order.

mod agent;
mod endings;
mod netns;
mod operations;
mod quiet;
mod random;
mod report;
mod run;
mod said;
mod state;
mod subflows;
mod sys;
pub(crate) mod trace;
mod transitions;
mod truth;
mod watched;
mod world;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};

pub(crate) use self::agent::{Args as AgentArgs, run as agent};
use self::{
    report::Report,
    run::{Setting, run as run_seed},
    said::Binary,
};
use crate::{prepare, target_dir, tool::now};

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The first seed; those that follow are its successors
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin new seeds for this long
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Run this many seeds instead
    #[arg(long, conflicts_with = "minutes")]
    seeds: Option<u64>,
    /// Without MPTCP
    #[arg(long)]
    no_mptcp: bool,
    /// Without these operations, to narrow a deviation down
    #[arg(long, value_name = "OPERATION", value_delimiter = ',')]
    without: Vec<String>,
    /// Another tcpwatch than the release build
    #[arg(long, value_name = "FILE")]
    tcpwatch: Option<PathBuf>,
    /// Keep there what tcpwatch and the kernel said, and what the processes did
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Where the seeds of the gate begin.
const GATE_SEED: u64 = 14;
const GATE_MINUTES: u64 = 5;

/// What the gate runs. A seed that deviates is run once more: what does not repeat is printed, and fails nothing.
pub(crate) fn gate() -> Result<()> {
    prepare()?;
    let binary = Binary(target_dir().join("release/tcpwatch"));
    let setting = Setting { binary, mptcp: true, without: Vec::new(), keep: None };
    let (time, start) = (Duration::from_mins(GATE_MINUTES), now());
    for seed in GATE_SEED.. {
        if start.elapsed() >= time {
            break;
        }
        if seeds(&setting, seed, Some(1), time).is_err() {
            println!("seed {seed} deviates, once more:");
            seeds(&setting, seed, Some(1), time)?;
        }
    }
    Ok(())
}

/// Runs seeds, and fails if anything deviates.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = if let Some(file) = &args.tcpwatch {
        file.clone()
    } else {
        prepare()?;
        target_dir().join("release/tcpwatch")
    };
    let setting = Setting {
        binary: Binary(binary),
        mptcp: !args.no_mptcp,
        without: args.without.clone(),
        keep: args.keep.clone(),
    };
    let time = Duration::from_mins(args.minutes);
    seeds(&setting, args.seed, args.seeds, time)
}

fn seeds(setting: &Setting, first: u64, count: Option<u64>, time: Duration) -> Result<()> {
    let (mut report, start) = (Report::default(), now());
    for seed in first.. {
        if count.map_or(start.elapsed() >= time, |count| seed - first >= count) {
            break;
        }
        let before: u64 = report.deviations.values().sum();
        run_seed(setting, seed, &mut report)?;
        let deviations = report.deviations.values().sum::<u64>() - before;
        println!(
            "seed {seed}: {deviations} deviations after {:.0} s",
            start.elapsed().as_secs_f64()
        );
    }
    println!("{}", report.sum());
    let deviations: u64 = report.deviations.values().sum();
    if deviations > 0 {
        bail!("{deviations} deviations");
    }
    Ok(())
}

/// Nanoseconds as seconds, to the microsecond.
fn seconds(ns: u64) -> String {
    format!("{}.{:06}", ns / 1_000_000_000, ns / 1_000 % 1_000_000)
}
