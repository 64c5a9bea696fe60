//! `cargo xtask ci`: everything that must pass before a change lands, in one list.

use std::process::Command;

use anyhow::Result;

use crate::{
    cache, deb, difftest, ebpf, exec, faults, fuzz, ignored, manifests, root, service, vm,
};

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
    println!("== systemd units: cargo xtask check-service");
    service::check()?;
    println!("== Debian package: cargo xtask check-deb");
    deb::check()?;
    println!("== Kubernetes manifests: cargo xtask check-manifests");
    manifests::check()?;
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
    println!("== fuzzing: cargo xtask fuzz, for a minute in all");
    fuzz::gate()?;
    println!("== faults: cargo xtask faults, in part");
    faults::gate()?;
    println!("== kernels of Debian: cargo xtask vm, in part");
    vm::gate()?;
    println!("== the kernel's own trace: cargo xtask difftest, for five minutes");
    difftest::gate()?;
    println!("== tests: cargo test");
    ignored::run_tests(cargo().args(["test", "--locked"]), &mut std::io::stdout())
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    cargo
}
