//! `cargo xtask bench`: what tcpwatch costs, side by side with others in one run.
//!
//! Every section yields tables; `--write` puts those of all sections into `docs/performance.md`.

mod empty;
mod growth;
mod looks;
mod memory;
mod page;
mod requests;
mod serve;
mod table;
mod tool;
mod traces;
mod transitions;

use std::fs;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use table::Table;

use crate::{prepare, root};

/// Where the figures are kept.
const PAGE: &str = "docs/performance.md";

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure [default: everything]
    sections: Vec<Section>,
    /// Rounds of each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Connections of a round
    #[arg(long, default_value_t = 20_000)]
    connections: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write docs/performance.md
    #[arg(long, conflicts_with = "sections")]
    write: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Section {
    /// What a transition costs, beside tcpstates, tcplife and an empty program
    Transitions,
    /// What a look costs, beside ss and lsof
    Leaks,
    /// What a recording takes, beside JSON, CSV and tcpdump
    Traces,
    /// What the agent of a fleet costs
    Serve,
    /// What tcpwatch keeps of a socket
    Memory,
    /// How cost grows with connections and processes
    Growth,
}

/// How much is done.
struct Scale {
    rounds: u32,
    connections: u32,
    /// Seconds of each round of HTTP.
    seconds: u32,
}

impl Section {
    fn run(self, scale: &Scale) -> Result<Vec<Table>> {
        match self {
            Self::Transitions => transitions::run(scale),
            Self::Leaks => looks::run(scale),
            Self::Traces => traces::run(scale),
            Self::Serve => serve::run(scale),
            Self::Memory => memory::run(),
            Self::Growth => growth::run(scale),
        }
    }
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    prepare()?;
    let scale = Scale { rounds: args.rounds, connections: args.connections, seconds: 2 };
    let sections = match &args.sections[..] {
        [] => Section::value_variants(),
        some => some,
    };
    let mut tables = Vec::new();
    for section in sections {
        let new = section.run(&scale)?;
        if !args.json {
            for table in &new {
                println!("{}\n", table.text());
            }
        }
        tables.extend(new);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
    }
    if args.write {
        let page = root().join(PAGE);
        fs::write(&page, page::page(&tables)?)
            .with_context(|| format!("write {}", page.display()))?;
    }
    Ok(())
}
