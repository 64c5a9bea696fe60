//! `cargo xtask ci`: everything that must pass before a change lands, in one list.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{ebpf, exec, root, service};

/// Commands before the tests, so that the tests' own summary comes last.
const STEPS: [(&str, &[&str]); 3] = [
    ("formatting", &["fmt", "--all", "--check"]),
    (
        "lints",
        &[
            "clippy",
            "--locked",
            "--workspace",
            "--exclude",
            "tcpwatch-ebpf",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ),
    (
        "docs",
        &[
            "doc",
            "--locked",
            "--workspace",
            "--exclude",
            "tcpwatch-ebpf",
            "--no-deps",
            "--document-private-items",
        ],
    ),
];

/// What dependencies are held to, by `deny.toml`; why advisories are not among that is said there.
const DEPENDENCIES: [&str; 3] = ["licenses", "bans", "sources"];

/// Runs all of it and stops at the first failure.
pub(crate) fn run() -> Result<()> {
    for (name, arguments) in STEPS {
        println!("== {name}: cargo {}", arguments.join(" "));
        exec(cargo().args(arguments).env("RUSTDOCFLAGS", "--deny warnings"))?;
    }
    println!("== dependencies: cargo deny check {}", DEPENDENCIES.join(" "));
    exec(
        Command::new(cache()?.join("tools/bin/cargo-deny"))
            .args(["--locked", "check"])
            .args(DEPENDENCIES)
            .current_dir(root()),
    )?;
    println!("== kernel object: cargo xtask check-ebpf");
    ebpf::check()?;
    println!("== the README's first command: cargo run --release -- demo");
    exec(cargo().args(["run", "--locked", "--release", "--", "demo"]))?;
    println!("== systemd unit: cargo xtask check-service");
    service::check()?;
    println!(
        "== exports, read by the tools they are for: cargo test --test export -- --ignored consumers"
    );
    exec(
        cargo()
            .args(["test", "--locked", "--test", "export", "--", "--ignored", "consumers"])
            .env("TCPWATCH_PYTHON", cache()?.join("python/bin/python")),
    )?;
    println!("== chores: cargo test --package xtask");
    exec(cargo().args(["test", "--locked", "--package", "xtask"]))?;
    println!("== tests: cargo test");
    exec(cargo().args(["test", "--locked"]))
}

/// Where `.ci/setup` puts what it makes.
fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Ok(cache.or_else(home).context("HOME is not set")?.join("tcpwatch"))
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    cargo
}
