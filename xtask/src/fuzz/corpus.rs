//! `cargo xtask fuzz-corpus`: the few files that are worth committing.
//!
//! Of what the tests and a recording here begin with, what is committed and what fuzzing has found,
//! libFuzzer says which reach code that no smaller one reaches. Those that reach the most are kept.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{LENGTH, MEMORY, TARGETS, TIME, build, committed, found, libfuzzer, made, work};
use crate::{exec, root};

/// Of each target.
const MOST_FILES: usize = 48;
const MOST_BYTES: usize = 80 << 10;

/// Runs it.
pub(crate) fn renew() -> Result<()> {
    build()?;
    let seeds = work().join("seeds");
    if seeds.exists() {
        fs::remove_dir_all(&seeds).context("remove the last seeds")?;
    }
    for target in TARGETS {
        made(&seeds.join(target))?;
    }
    let tests = [
        "test",
        "--locked",
        "--package",
        "tcpwatch",
        "--test",
        "core",
        "--",
        "--ignored",
        "--exact",
    ];
    super::workload::record(&seeds.join("trace_file/recorded.tcpw"))?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(tests).arg("fuzz_corpus::seeds").env("TCPWATCH_SEEDS", &seeds);
    exec(&mut cargo)?;
    for target in TARGETS {
        let from = [seeds.join(target), committed(target)?, found(target)?];
        let kept = keep(target, &from)?;
        replace(&committed(target)?, &kept)?;
    }
    Ok(())
}

/// What is worth keeping of these directories.
fn keep(target: &str, from: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let (said, merged) = (work().join("merge"), work().join("merged"));
    for path in [&said, &merged] {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
    }
    let control = format!("-merge_control_file={}", said.display());
    let dirs: Vec<_> = [made(&merged)?].into_iter().chain(from.iter().cloned()).collect();
    exec(libfuzzer(target).args(dirs).args(["-merge=1", &control, MEMORY, TIME, LENGTH]))?;
    let text = fs::read_to_string(&said).context("read what libFuzzer says of the files")?;
    let mut files = reached(&text);
    let (mut kept, mut bytes, mut edges) = (Vec::new(), 0, BTreeSet::new());
    let all = files.iter().flat_map(|(reached, _)| reached).copied().collect::<BTreeSet<_>>().len();
    while kept.len() < MOST_FILES {
        for (reached, _) in &mut files {
            reached.retain(|edge| !edges.contains(edge));
        }
        let most = files.iter().enumerate().max_by_key(|(_, (reached, _))| reached.len());
        let Some((at, _)) = most.filter(|(_, (reached, _))| !reached.is_empty()) else { break };
        let (more, path) = files.swap_remove(at);
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if bytes + content.len() <= MOST_BYTES {
            bytes += content.len();
            edges.extend(more);
            kept.push(content);
        }
    }
    println!(
        "{target}: {} files of {bytes} bytes reach {} of {all} edges",
        kept.len(),
        edges.len()
    );
    Ok(kept)
}

/// The edges that libFuzzer tells of each file, mostly those that no smaller one reaches: a list of
/// paths follows two numbers, and then lines such as `COV 3 17 18`, for the fourth of them.
fn reached(text: &str) -> Vec<(BTreeSet<u32>, PathBuf)> {
    let lines: Vec<_> = text.lines().collect();
    let file = |line: &&str| {
        let mut numbers = line.strip_prefix("COV ")?.split(' ').filter_map(|n| n.parse().ok());
        let path = lines.get(2 + usize::try_from(numbers.next()?).ok()?)?;
        Some((numbers.collect(), PathBuf::from(path)))
    };
    lines.iter().filter_map(file).collect()
}

/// Files are called by what is in them, so that the same one is the same the next time.
fn replace(dir: &Path, files: &[Vec<u8>]) -> Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    made(dir)?;
    for content in files {
        let name = Sha256::digest(content)[..8].iter().fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        fs::write(dir.join(name), content)?;
    }
    Ok(())
}
