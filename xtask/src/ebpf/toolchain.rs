//! The two toolchains that build the kernel object.
//!
//! Debian's `rustc-web` with `rust-web-src`, or rustup's nightly with `rust-src`; and
//! `bpf-linker`, which must know the LLVM that the compiler emits.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::output;

const DEBIAN: &str = "/usr/bin/rustc";

/// A compiler that can build for BPF, and the linker.
pub(super) struct Toolchain {
    /// The compiler.
    rustc: PathBuf,
    /// What it says it is.
    pub(super) rustc_version: String,
    /// Source of the standard library.
    pub(super) library: PathBuf,
    /// The linker.
    pub(super) linker: PathBuf,
    /// What it says it is.
    pub(super) linker_version: String,
}

impl Toolchain {
    /// The first that works, or the one that says it is `preferred`. The error says in one
    /// sentence what is missing.
    pub(super) fn find(preferred: Option<&str>) -> Result<Self> {
        let Some((linker, linker_version)) = linker() else {
            bail!("bpf-linker is missing: run .ci/setup, or cargo install bpf-linker");
        };
        let mut candidates = Vec::new();
        let mut lacking = Vec::new();
        for rustc in [Some(PathBuf::from(DEBIAN)), nightly()].into_iter().flatten() {
            let Ok(version) = output(Command::new(&rustc).arg("--version")) else { continue };
            let Ok(sysroot) = output(Command::new(&rustc).args(["--print", "sysroot"])) else {
                continue;
            };
            let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
            let version = version.trim().to_owned();
            if library.join("core/src/lib.rs").exists() {
                candidates.push((rustc, version, library));
            } else {
                lacking.push(version);
            }
        }
        candidates.sort_by_key(|(_, version, _)| Some(version.as_str()) != preferred);
        let Some((rustc, rustc_version, library)) = candidates.into_iter().next() else {
            bail!(missing(&lacking));
        };
        Ok(Self { rustc, rustc_version, library, linker, linker_version })
    }

    /// Makes cargo use it. The flag that opens unstable features is harmless on a nightly.
    pub(super) fn apply(&self, cargo: &mut Command) {
        cargo.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
    }
}

fn missing(lacking: &[String]) -> String {
    if lacking.is_empty() {
        return "a compiler for BPF is missing: apt-get install rustc-web rust-web-src, or rustup toolchain install nightly --component rust-src".to_owned();
    }
    format!(
        "the source of the standard library is missing for {}: apt-get install rust-web-src (Debian), or rustup component add rust-src --toolchain nightly",
        lacking.join(" and ")
    )
}

fn nightly() -> Option<PathBuf> {
    let path =
        output(Command::new("rustup").args(["which", "rustc", "--toolchain", "nightly"])).ok()?;
    Some(PathBuf::from(path.trim()))
}

fn linker() -> Option<(PathBuf, String)> {
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    [PathBuf::from("bpf-linker"), Path::new(&home).join("bin/bpf-linker")].into_iter().find_map(
        |path| {
            let version = output(Command::new(&path).arg("--version")).ok()?;
            Some((path, version.trim().to_owned()))
        },
    )
}
