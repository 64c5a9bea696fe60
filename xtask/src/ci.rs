//! `cargo xtask ci`: everything that must pass before a change lands, in one list.

use std::process::Command;

use anyhow::Result;

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
    println!("== tests: cargo test");
    exec(cargo().args(["test", "--locked"]))
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    cargo
}
