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

use anyhow::{Context as _, Result, anyhow, bail};

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
    TARGETS.into_iter().filter(wanted).try_for_each(|target| {
        println!("== fuzzing {target} for {} s", args.seconds);
        exec(&mut fuzzer(target, args.seconds)?).with_context(|| failed(target))
    })
}

/// A minute in all, two at a time.
pub(crate) fn gate() -> Result<()> {
    build()?;
    let (some, others) = TARGETS.split_at(TARGETS.len() / 2);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| some.iter().try_for_each(|target| try_out(target)));
        others.iter().try_for_each(|target| try_out(target))?;
        beside.join().map_err(|_| anyhow!("a thread has panicked"))?
    })
}

/// Says only how many inputs there were, if they did no harm.
fn try_out(target: &str) -> Result<()> {
    let mut fuzzer = fuzzer(target, GATE_SECONDS)?;
    // libFuzzer writes to standard error.
    let said = fuzzer.output().with_context(|| format!("run {fuzzer:?}"))?;
    let text = String::from_utf8_lossy(&said.stderr);
    if !said.status.success() {
        bail!("{text}\n{}", failed(target));
    }
    let tried = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let tried = tried.context("libFuzzer does not say how many inputs there were")?.trim();
    println!("{target}: {tried} inputs in {GATE_SECONDS} s");
    Ok(())
}

fn failed(target: &str) -> String {
    format!("{target} failed; the input is in {}", broken(target).display())
}

fn fuzzer(target: &str, seconds: u32) -> Result<Command> {
    let broken = made(&broken(target))?;
    let time = format!("-max_total_time={seconds}");
    let artifacts = format!("-artifact_prefix={}/", broken.display());
    let options = [&time, &artifacts, MEMORY, TIME, LENGTH, "-print_final_stats=1"];
    // What is new goes to the first directory; the committed corpus is only read.
    let dirs = [found(target)?, committed(target)?];
    let mut fuzzer = libfuzzer(target);
    fuzzer.args(dirs).args(options);
    Ok(fuzzer)
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

/// Where inputs go that a target fails on.
fn broken(target: &str) -> PathBuf {
    work().join("broken").join(target)
}

fn work() -> PathBuf {
    target_dir().join("fuzz")
}

fn made(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.to_owned())
}
