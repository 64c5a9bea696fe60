//! The kernel object: built from source with either of two toolchains, and kept in step.
//!
//! The object is committed so that `cargo build` needs a stable toolchain and nothing else. Its
//! bytes depend on the source and the toolchain only, not on where the tree lies; beside it
//! `object.json` records which source and which toolchain made it.

mod strip;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::toolchain::Toolchain;
use crate::{exec, root};

const TARGET: &str = "bpfel-unknown-none";

/// What is recorded beside the object.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Recorded {
    /// SHA-256 of the kernel sources.
    sources: String,
    /// SHA-256 of the object.
    object: String,
    /// Compiler.
    rustc: String,
    /// Linker.
    bpf_linker: String,
}

fn object_path() -> PathBuf {
    root().join("tcpwatch/bpf/tcpwatch.bpf.o")
}

fn record_path() -> PathBuf {
    root().join("tcpwatch/bpf/object.json")
}

/// `cargo xtask build-ebpf`.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::find(None)?;
    let object = compile(&toolchain)?;
    let record = Recorded {
        sources: hash_sources()?,
        object: hex(&Sha256::digest(&object)),
        rustc: toolchain.rustc_version.clone(),
        bpf_linker: toolchain.linker_version.clone(),
    };
    fs::write(object_path(), &object).context("write the object")?;
    fs::write(record_path(), serde_json::to_string_pretty(&record)? + "\n")
        .context("write its record")?;
    println!("{} bytes, built by {} with {}", object.len(), record.rustc, record.bpf_linker);
    Ok(())
}

/// `cargo xtask check-ebpf`.
pub(crate) fn check() -> Result<()> {
    let text = fs::read_to_string(record_path()).context("read the object's record")?;
    let recorded: Recorded = serde_json::from_str(&text).context("read the object's record")?;
    let committed = fs::read(object_path()).context("read the committed object")?;
    if hex(&Sha256::digest(&committed)) != recorded.object {
        bail!(
            "tcpwatch.bpf.o is not the object that its record describes; run cargo xtask build-ebpf"
        );
    }
    if hash_sources()? != recorded.sources {
        bail!("the kernel sources changed since the object was built; run cargo xtask build-ebpf");
    }
    let toolchain = Toolchain::find(Some(&recorded.rustc))?;
    let built = compile(&toolchain)?;
    if toolchain.rustc_version == recorded.rustc && toolchain.linker_version == recorded.bpf_linker
    {
        if built != committed {
            bail!(
                "the recorded toolchain builds other bytes from this source; run cargo xtask build-ebpf"
            );
        }
        println!("the committed object is byte for byte what its source builds to");
    } else {
        println!(
            "sources match the record; built with {} instead of {}, so the bytes may differ ({})",
            toolchain.rustc_version,
            recorded.rustc,
            if built == committed { "they do not" } else { "they do" }
        );
    }
    Ok(())
}

/// Builds in a directory of its own and returns the object without debug sections.
fn compile(toolchain: &Toolchain) -> Result<Vec<u8>> {
    let root = root();
    let target_dir = root.join("target/bpf");
    let mut flags: Vec<String> =
        ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", "-Ccodegen-units=1"]
            .map(str::to_owned)
            .to_vec();
    flags.push(format!("-Clinker={}", toolchain.linker.display()));
    for (from, to) in remaps(toolchain, &root) {
        flags.push(format!("--remap-path-prefix={from}={to}"));
    }
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "-Zbuild-std=core",
            "--package",
            "tcpwatch-ebpf",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    toolchain.apply(&mut cargo);
    exec(&mut cargo)?;
    let built = target_dir.join(TARGET).join("release/tcpwatch-ebpf");
    strip::debug(&fs::read(&built).with_context(|| format!("read {}", built.display()))?)
}

/// Line information names source files; these keep everybody's directories out of it.
fn remaps(toolchain: &Toolchain, root: &Path) -> Vec<(String, String)> {
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let mut remaps = Vec::new();
    if let Ok(indexes) = fs::read_dir(format!("{home}/registry/src")) {
        for index in indexes.flatten() {
            remaps.push((index.path().display().to_string(), "crates".to_owned()));
        }
    }
    remaps.push((toolchain.library.display().to_string(), "rust".to_owned()));
    // The library may be a link; debug info has the place it leads to.
    if let Ok(real) = toolchain.library.canonicalize() {
        remaps.push((real.display().to_string(), "rust".to_owned()));
    }
    remaps.push((root.display().to_string(), "tcpwatch".to_owned()));
    remaps
}

/// Everything the object is made of: both crates and the versions of what they use.
fn hash_sources() -> Result<String> {
    let root = root();
    let mut files = Vec::new();
    for dir in ["tcpwatch-ebpf/src", "tcpwatch-common/src"] {
        collect(&root.join(dir), &mut files)?;
    }
    files.push(root.join("tcpwatch-ebpf/Cargo.toml"));
    files.push(root.join("tcpwatch-common/Cargo.toml"));
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        let text = fs::read(&file).with_context(|| format!("read {name}"))?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(&text);
        hash.update([0]);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("read Cargo.lock")?;
    for package in lock.split("[[package]]") {
        let kernel = ["aya-ebpf", "aya-log-ebpf", "aya-log-common"];
        if kernel.iter().any(|name| package.trim_start().starts_with(&format!("name = \"{name}"))) {
            hash.update(package.trim().as_bytes());
        }
    }
    Ok(hex(&hash.finalize()))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
