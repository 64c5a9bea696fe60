//! `cargo xtask fuzz` and `fuzz-corpus`: trace files that nobody would write, kernel records that no kernel
//! would, inputs in any order, and what they did.
//!
//! Coverage is asked of the compiler by options that every rustc has, so stable will do; sanitizers
//! would need a nightly, and what reads traces has no `unsafe` of its own. Arithmetic that overflows
//! is a failure, and so is an input that takes too much memory or time.

mod corpus;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cache, exec, root};

pub(crate) use self::corpus::renew;

const TARGETS: [&str; 4] = ["trace_file", "trace_block", "kernel_records", "pipeline"];
/// Of each in the gate.
const GATE_SECONDS: u32 = 15;
/// What a run may take, MB. libFuzzer itself has some 100.
const MEMORY: &str = "-rss_limit_mb=1024";
/// What one input may take, s.
const TIME: &str = "-timeout=20";
/// Larger inputs find nothing that smaller ones do not, and take longer.
const LENGTH: &str = "-max_len=16384";

/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this one
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    check_tools()?;
    let wanted = |target: &&str| args.target.as_ref().is_none_or(|only| only == target);
    TARGETS.into_iter().filter(wanted).try_for_each(|target| fuzz(target, args.seconds))
}

/// A minute in all.
pub(crate) fn gate() -> Result<()> {
    check_tools()?;
    TARGETS.into_iter().try_for_each(|target| fuzz(target, GATE_SECONDS))
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    println!("== fuzzing {target} for {seconds} s");
    let time = format!("-max_total_time={seconds}");
    let options = [&time, MEMORY, TIME, LENGTH, "-print_final_stats=1"];
    // What is new goes to the first directory; the committed corpus is only read.
    let dirs = [found(target)?, committed(target)?];
    exec(&mut libfuzzer(target, &dirs, &options)?)
        .with_context(|| format!("{target} failed; the input is in fuzz/artifacts/{target}"))
}

/// Says what is missing.
fn check_tools() -> Result<()> {
    let there = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !there(cargo()?.args(["fuzz", "--version"])) {
        bail!("cargo-fuzz is missing: .ci/setup installs it, or cargo install cargo-fuzz --locked");
    }
    if !there(Command::new("c++").arg("--version")) {
        bail!("a C++ compiler is missing, to build libFuzzer: apt-get install g++");
    }
    Ok(())
}

fn libfuzzer(target: &str, dirs: &[PathBuf], options: &[&str]) -> Result<Command> {
    let mut cargo = cargo()?;
    cargo.args(["fuzz", "run", "--sanitizer", "none", target]).args(dirs).arg("--").args(options);
    Ok(cargo)
}

/// With what `.ci/setup` has installed for it.
fn cargo() -> Result<Command> {
    let tools = cache()?.join("tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::env::split_paths(&path).chain([tools]))?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).env("PATH", path);
    Ok(cargo)
}

fn committed(target: &str) -> Result<PathBuf> {
    made(&root().join("fuzz/corpus").join(target))
}

/// What was found on this machine, beside the committed corpus.
fn found(target: &str) -> Result<PathBuf> {
    made(&work().join("found").join(target))
}

fn work() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(target.unwrap_or_else(|| "target".into())).join("fuzz")
}

fn made(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.to_owned())
}
