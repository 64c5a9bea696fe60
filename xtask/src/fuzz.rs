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

use crate::{exec, root, target_dir};

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
    build()?;
    let wanted = |target: &&str| args.target.as_ref().is_none_or(|only| only == target);
    TARGETS.into_iter().filter(wanted).try_for_each(|target| fuzz(target, args.seconds))
}

/// A minute in all.
pub(crate) fn gate() -> Result<()> {
    build()?;
    TARGETS.into_iter().try_for_each(|target| fuzz(target, GATE_SECONDS))
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    println!("== fuzzing {target} for {seconds} s");
    let broken = made(&work().join("broken").join(target))?;
    let time = format!("-max_total_time={seconds}");
    let artifacts = format!("-artifact_prefix={}/", broken.display());
    let options = [&time, &artifacts, MEMORY, TIME, LENGTH, "-print_final_stats=1"];
    // What is new goes to the first directory; the committed corpus is only read.
    let dirs = [found(target)?, committed(target)?];
    exec(libfuzzer(target).args(dirs).args(options))
        .with_context(|| format!("{target} failed; the input is in {}", broken.display()))
}

/// Builds the targets, or says what is missing.
fn build() -> Result<()> {
    let mut compiler = Command::new("c++");
    compiler.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if !compiler.status().is_ok_and(|status| status.success()) {
        bail!("a C++ compiler is missing, to build libFuzzer: apt-get install g++");
    }
    exec(
        Command::new("cargo")
            .args(["build", "--locked", "--package", "tcpwatch-fuzz"])
            .current_dir(root())
            .env("CARGO_INCREMENTAL", "0")
            .env("RUSTC_WORKSPACE_WRAPPER", root().join("fuzz/rustc-with-coverage")),
    )
}

fn libfuzzer(target: &str) -> Command {
    Command::new(target_dir().join("debug").join(target))
}

fn committed(target: &str) -> Result<PathBuf> {
    made(&root().join("fuzz/corpus").join(target))
}

/// What was found on this machine, beside the committed corpus.
fn found(target: &str) -> Result<PathBuf> {
    made(&work().join("found").join(target))
}

fn work() -> PathBuf {
    target_dir().join("fuzz")
}

fn made(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.to_owned())
}
