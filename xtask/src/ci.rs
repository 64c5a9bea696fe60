//! `cargo xtask ci`: everything that must pass before a change lands, in one list.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{ebpf, exec, root};

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

/// Runs all of it and stops at the first failure.
pub(crate) fn run() -> Result<()> {
    for (name, arguments) in STEPS {
        println!("== {name}: cargo {}", arguments.join(" "));
        exec(cargo().args(arguments).env("RUSTDOCFLAGS", "--deny warnings"))?;
    }
    println!("== kernel object: cargo xtask check-ebpf");
    ebpf::check()?;
    println!("== the README's first command: cargo run --release -- demo");
    exec(cargo().args(["run", "--locked", "--release", "--", "demo"]))?;
    println!(
        "== exports, read by the tools they are for: cargo test --test export -- --ignored consumers"
    );
    exec(
        cargo()
            .args(["test", "--locked", "--test", "export", "--", "--ignored", "consumers"])
            .env("TCPWATCH_PYTHON", python()?),
    )?;
    println!("== chores: cargo test --package xtask");
    exec(cargo().args(["test", "--locked", "--package", "xtask"]))?;
    println!("== tests: cargo test");
    exec(cargo().args(["test", "--locked"]))
}

/// The Python that `.ci/setup` made.
fn python() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = cache.or_else(home).context("HOME is not set")?;
    Ok(cache.join("tcpwatch/python/bin/python"))
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    cargo
}
