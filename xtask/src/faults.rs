//! `cargo xtask faults`: what tcpwatch does when things break.
//!
//! Each fault is a scenario that runs the release tcpwatch on real sockets, in a network namespace
//! of its own, breaks something, and checks what came of it: no word of what tcpwatch says may be
//! wrong, and what it could not see it must have counted. `docs/faults.md` shows what they found.

mod abandoned;
mod blocked_sink;
mod clock_back;
mod figures;
mod full_disk;
mod gone_namespace;
mod gone_reader;
mod hidden;
mod killed_in_pass;
mod ledger;
mod page;
mod password_flood;
mod pid_reuse;
mod queued_children;
mod real_leak;
mod recording;
mod resets;
mod run;
mod soak;
mod stopped_agent;
mod tiny_ring;
mod turnover;

use anyhow::{Result, bail};
use serde::Serialize;

use self::figures::Figures;
use crate::{load::in_namespace, prepare, tool::now};

/// A scenario.
struct Fault {
    name: &'static str,
    /// What breaks.
    what: &'static str,
    /// What the user of tcpwatch sees then.
    seen: &'static str,
    /// For how long it is broken, s.
    seconds: u64,
    /// The same in the gate; `None` if it is not in it.
    quick: Option<u64>,
    run: fn(&Setting) -> Result<Figures>,
}

/// How a scenario is run.
struct Setting {
    /// For how long something is broken, s.
    seconds: u64,
    /// It must not take long.
    quick: bool,
}

const FAULTS: [&Fault; 16] = [
    &tiny_ring::FAULT,
    &stopped_agent::FAULT,
    &blocked_sink::FAULT,
    &gone_reader::FAULT,
    &full_disk::FAULT,
    &killed_in_pass::FAULT,
    &gone_namespace::FAULT,
    &pid_reuse::FAULT,
    &queued_children::FAULT,
    &resets::FAULT,
    &clock_back::FAULT,
    &abandoned::FAULT,
    &password_flood::FAULT,
    &real_leak::FAULT,
    &turnover::FAULT,
    &soak::FAULT,
];

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these
    #[arg(value_name = "NAME", value_parser = names())]
    names: Vec<String>,
    /// Say which there are
    #[arg(long)]
    list: bool,
    /// For how long something is broken, s [default: what --list says]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Print JSON lines
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Renew the table in docs/faults.md
    #[arg(long)]
    markdown: bool,
}

fn names() -> Vec<&'static str> {
    FAULTS.iter().map(|fault| fault.name).collect()
}

/// How it went.
#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    passed: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    seconds: f64,
    figures: Figures,
}

/// Runs them all, and fails if something is wrong.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        for fault in FAULTS {
            println!("{:<16} {:>4} s  {}", fault.name, fault.seconds, fault.what);
        }
        return Ok(());
    }
    prepare()?;
    let wanted =
        |fault: &&Fault| args.names.is_empty() || args.names.iter().any(|n| n == fault.name);
    let mut failed = Vec::new();
    for fault in FAULTS.into_iter().filter(wanted) {
        let seconds = args.seconds.unwrap_or(fault.seconds);
        let outcome = fault.outcome(&Setting { seconds, quick: false });
        if args.json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            outcome.show();
        }
        if !outcome.passed {
            failed.push(fault.name);
        } else if args.markdown {
            // At once: the next may take long, or fail.
            page::renew(fault, &outcome)?;
        }
    }
    ended(&failed)
}

/// Those that are in the gate, as short as it runs them.
pub(crate) fn gate() -> Result<()> {
    prepare()?;
    let mut failed = Vec::new();
    for fault in FAULTS {
        let Some(seconds) = fault.quick else { continue };
        let outcome = fault.outcome(&Setting { seconds, quick: true });
        outcome.show();
        if !outcome.passed {
            failed.push(fault.name);
        }
    }
    ended(&failed)
}

fn ended(failed: &[&str]) -> Result<()> {
    if !failed.is_empty() {
        bail!("tcpwatch does not do what it should: {}", failed.join(", "));
    }
    Ok(())
}

impl Fault {
    /// Runs it in a network namespace of its own.
    fn outcome(&self, setting: &Setting) -> Outcome {
        let start = now();
        let result = in_namespace(|| (self.run)(setting));
        let seconds = start.elapsed().as_secs_f64();
        let (wrong, figures) = match result {
            Ok(figures) => (None, figures),
            Err(error) => (Some(format!("{error:#}")), Figures::default()),
        };
        Outcome { name: self.name, passed: wrong.is_none(), wrong, seconds, figures }
    }
}

impl Outcome {
    fn show(&self) {
        let word = if self.passed { "ok" } else { "WRONG" };
        println!("{:<16} {word:<5} {:>6.1} s  {}", self.name, self.seconds, self.figures);
        if let Some(wrong) = &self.wrong {
            println!("    {wrong}");
        }
    }
}
