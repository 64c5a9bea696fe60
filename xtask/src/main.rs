//! tcpwatch's own chores. `cargo xtask --help` lists them.

mod bench;
mod ci;
mod deb;
mod difftest;
mod ebpf;
mod faults;
mod fuzz;
mod hold;
mod ignored;
mod load;
mod manifests;
mod page;
#[cfg(test)]
mod purity;
mod screenshots;
mod service;
mod tool;
mod vm;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "tcpwatch's own chores")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel object from source and put it where the agent embeds it
    BuildEbpf,
    /// Fail if the committed kernel object and its source disagree
    CheckEbpf,
    /// Measure what tcpwatch costs, next to other tools
    Bench(bench::Args),
    /// Break things, and check what tcpwatch does
    Faults(faults::Args),
    /// Random processes, and what tcpwatch says of them against the kernel's own trace
    Difftest(difftest::Args),
    /// Be one of those processes.
    #[command(hide = true)]
    DifftestAgent(difftest::AgentArgs),
    /// Hold sockets, for others
    #[command(hide = true)]
    Hold(hold::Args),
    /// Try trace files, kernel records and inputs that nobody would write
    Fuzz(fuzz::Args),
    /// Renew fuzz/corpus from stories, a recording and what fuzzing has found
    FuzzCorpus,
    /// Make the pictures in docs/images anew
    Screenshots(screenshots::Args),
    /// Fail if systemd does not understand a unit, or rates it worse than the docs say
    CheckService,
    /// Build the Debian package
    Deb,
    /// Build the Debian package; fail if lintian objects, or it leaves anything behind
    CheckDeb,
    /// Fail if Kubernetes does not know a field of the manifests
    CheckManifests,
    /// Run the kernel tests on other kernels, each in a virtual machine
    Vm(vm::Args),
    /// What a virtual machine does, for vm.
    #[command(hide = true)]
    Guest,
    /// Everything that must pass before a change lands
    Ci,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::BuildEbpf => ebpf::build(),
        Task::CheckEbpf => ebpf::check(),
        Task::Bench(args) => bench::run(&args),
        Task::Faults(args) => faults::run(&args),
        Task::Difftest(args) => difftest::run(&args),
        Task::DifftestAgent(args) => difftest::agent(&args),
        Task::Hold(args) => hold::hold(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::FuzzCorpus => fuzz::renew(),
        Task::Screenshots(args) => screenshots::run(&args),
        Task::CheckService => service::check(),
        Task::Deb => deb::build().map(|package| println!("{}", package.display())),
        Task::CheckDeb => deb::check(),
        Task::CheckManifests => manifests::check(),
        Task::Vm(args) => vm::run(&args),
        Task::Guest => vm::guest(),
        Task::Ci => ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The top of the tree.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Where cargo builds.
fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Where things are kept that were fetched, for all trees of this user.
fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Ok(cache.or_else(home).context("HOME is not set")?.join("tcpwatch"))
}

/// What watching needs: root, and a release build.
fn prepare() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("this loads BPF programs and makes network namespaces: run it as root");
    }
    let build = ["build", "--quiet", "--release", "--package", "tcpwatch"];
    exec(Command::new("cargo").current_dir(root()).args(build))
}

/// Runs a command and fails with its whole line if it fails.
fn exec(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what {command:?} printed"))
}
