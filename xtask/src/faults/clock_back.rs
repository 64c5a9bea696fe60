//! The wall clock is set back an hour.
//!
//! Not this machine's, which others use: a run is recorded, and in a copy of the recording the wall clock is
//! set back half-way, with nothing else changed. A replay drives the very pipeline of the live run.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Fault, Setting,
    figures::{Figures, thousands},
    run::Dir,
};
use crate::{
    exec,
    hold::Holder,
    load::{churn, namespace},
    output, root,
    tool::{Tool, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "clock-back",
    what: "the wall clock is set back an hour during a run (in a copy of its recording, as the machine is not ours alone)",
    seen: "the same findings at the same ages, and the same times in each state; only `ts` goes back",
    seconds: 8,
    quick: None,
    run,
};

const BACK_SECONDS: i128 = 3600;
const LEAKS: u32 = 8;
const CONNECTIONS: u32 = 1000;

fn run(setting: &Setting) -> Result<Figures> {
    let dir = Dir::new()?;
    let (whole, back) = (dir.join("whole.tcpw"), dir.join("back.tcpw"));
    record(&whole, setting.seconds)?;
    let mut example = Command::new("cargo");
    example.current_dir(root()).args(["run", "--quiet", "--release", "--package", "tcpwatch"]);
    example.args(["--example", "set_clock_back", "--"]).arg(&whole).arg(&back);
    exec(example.arg(BACK_SECONDS.to_string()))?;

    let (mut findings, mut shifted) = (0, 0);
    for linger in ["1s", "2500ms"] {
        let [whole, back] = [&whole, &back].map(|path| replay(path, linger));
        let (whole, back) = (whole?, back?);
        ensure!(whole.len() == back.len(), "{} lines became {}", whole.len(), back.len());
        findings = 0;
        for (whole, back) in whole.iter().zip(&back) {
            shifted += u64::from(compare(whole, back)?);
            findings += u64::from(whole["type"] == "finding");
        }
    }
    ensure!(findings > u64::from(LEAKS) && shifted > 0, "nothing was compared");
    // Others read it, too.
    for verb in [&["report"][..], &["report", "-j"], &["info"], &["replay", "-T"]] {
        output(tcpwatch().args(verb).arg(&back))?;
    }
    Ok(Figures::default()
        .with("findings compared", findings)
        .with("lines with a time of day that went back", thousands(shifted)))
}

/// Leaks that begin and end all the time.
fn record(path: &Path, seconds: u64) -> Result<()> {
    let (namespace, name) = (namespace()?, path.to_str().context("a path that is no text")?);
    let flags = ["record", "-o", name, "-N", &namespace, "--linger", "1s"];
    let tool = Tool::tcpwatch(&flags, std::process::Stdio::null())?;
    let mut early = Holder::start(0, LEAKS, LEAKS, 2)?;
    let late = Holder::start(1, LEAKS, LEAKS, 2)?;
    churn(CONNECTIONS, None)?;
    early.held()?;
    thread::sleep(Duration::from_secs(seconds / 2));
    early.close()?;
    churn(CONNECTIONS, None)?;
    thread::sleep(Duration::from_secs(seconds / 2));
    late.kill()?;
    let ended = tool.stop()?;
    ensure!(ended.status.success(), "it ended with {}: {}", ended.status, ended.stderr);
    Ok(())
}

fn replay(path: &Path, linger: &str) -> Result<Vec<Value>> {
    let text = output(tcpwatch().args(["replay", "-j", "--linger", linger]).arg(path))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Whether the time of day differs; nothing else may, and that by an hour.
fn compare(whole: &Value, back: &Value) -> Result<bool> {
    let without = |record: &Value| {
        let mut record = record.clone();
        let time = record.as_object_mut().and_then(|fields| fields.remove("ts"));
        (record, time)
    };
    let ((whole, at), (back, then)) = (without(whole), without(back));
    ensure!(whole == back, "{whole} became {back}");
    Ok(at != then)
}
