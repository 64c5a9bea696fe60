//! tcpwatch: every TCP state change, the right owner, an alarm for what lingers in `CLOSE_WAIT`.
//!
//! ```text
//!  kernel   sock:inet_sock_set_state ─▶ ring buffer ─┐   iterators ─┐   drop counters ─┐
//!  source   source::live ────────────────────────────┴──────────────┴── core::input::Input
//!  core     core::tracker ─▶ table, listeners, linger table ─▶ core::record::Record
//!  sinks    sink::{text, json, csv}
//! ```

pub mod cli;
pub mod config;
pub mod decode;
pub mod demo;
pub mod denied;
pub mod doctor;
pub mod driver;
pub mod exit;
pub mod explain;
pub mod export;
pub mod info;
pub mod kernel;
pub mod launch;
pub mod notify;
pub mod output;
pub mod report;
pub mod serve;
pub mod sink;
pub mod source;
pub mod stop;
pub mod top;
pub mod trace;

pub use tcpwatch_core as core;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    core::comm,
    exit::Exit,
    kernel::caller,
    notify::exec::helper,
};

/// Parses the command line, does what it says and returns the exit code.
pub fn run() -> ExitCode {
    if helper::is_called() {
        return helper::be();
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format(|out, record| {
            use std::io::Write as _;
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "tcpwatch: {level}: {}", exit::harmless(&record.args().to_string()))
        })
        .init();
    let cli = parse();
    match caller::stand_in(&cli.outputs()).and_then(|()| command(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}

fn command(cli: Cli) -> Outcome {
    match cli.command {
        None => source::watch::command(&cli.live),
        Some(Command::Leaks(args)) => source::look::command(&args),
        Some(Command::Top(args)) => top::command(&args),
        Some(Command::Record(args)) => source::record::command(&args),
        Some(Command::Replay(args)) => source::replay::command(&args),
        Some(Command::Report(args)) => report::command::report(&args),
        Some(Command::Diff(args)) => report::command::diff(&args),
        Some(Command::Export(args)) => export::command::command(&args),
        Some(Command::Info(args)) => info::command(&args),
        Some(Command::Serve(args)) => serve::command::command(&args),
        Some(Command::Run(args)) => source::run::command(&args),
        Some(Command::States(args)) => source::states::command(&args),
        Some(Command::Explain(args)) => explain::command(&args),
        Some(Command::Doctor(args)) => doctor::command(&args),
        Some(Command::Demo(args)) => demo::command(&args),
    }
}

/// What was typed; what is wrong with it is told without escape sequences that are in it.
fn parse() -> Cli {
    let typed: Vec<_> = std::env::args_os().collect();
    Cli::try_parse_from(&typed).unwrap_or_else(|error| {
        let is_harmless =
            |text: &OsString| text.to_str().is_some_and(|text| comm::tame(text) == text);
        let told = if typed.iter().all(is_harmless) {
            error
        } else {
            Cli::try_parse_from(typed.iter().map(comm::shown)).err().unwrap_or(error)
        };
        told.exit()
    })
}

/// What every verb returns.
pub type Outcome = anyhow::Result<Exit>;
