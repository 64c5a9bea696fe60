//! Processes that are killed while tcpwatch looks at them.
//!
//! Each holds a few leaks behind a listener of its own, so its address says whose a record must be. A
//! live run looks at them, and one `tcpwatch leaks` after the other, which does hardly anything else.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Fault, Setting,
    figures::{Figures, thousands},
    ledger::ends,
    run::Run,
};
use crate::{
    hold::Holder,
    load::namespace,
    tool::{Background, now, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "killed-in-pass",
    what: "processes with leaks are killed (SIGKILL) at any moment of a pass, hundreds of times, and others take their place",
    seen: "findings end as `exited`; never a process that did not hold the socket, no error",
    seconds: 10,
    quick: Some(3),
    run,
};

const PROCESSES: usize = 200;
const QUICK_PROCESSES: usize = 60;
const LEAKS: u32 = 3;

fn run(setting: &Setting) -> Result<Figures> {
    let run = Run::start(&["--linger", "100ms"])?;
    let netns = namespace()?;
    let looks = Background::start(move |over| looks(&netns, over));
    let mut owners = HashMap::new();
    let killed = kill(setting, &mut owners)?;
    let looks = looks.stop()?;
    // Whatever was due when the last one ended is looked at once more.
    thread::sleep(Duration::from_secs(1));
    let (ledger, ended) = run.stop()?;
    ensure!(ended.stderr.is_empty(), "it says: {}", ended.stderr);
    // Nothing may be lost at this rate, so what is shown is all.
    ledger.is_complete(ledger.transitions)?;
    for record in ledger.findings.iter().chain(&looks.findings) {
        check(record, &owners)?;
    }
    let mut opened = 0;
    for finding in ledger.with_status("open") {
        opened += 1;
        let over = ledger.with_status("ended").find(|f| f["socket"] == finding["socket"]);
        let over = over.with_context(|| format!("it has not ended: {finding}"))?;
        ensure!(over["ended"]["how"] == "exited", "it was killed: {over}");
    }
    ensure!(opened > 0, "nothing was found");
    Ok(Figures::default()
        .with("killed", thousands(killed))
        .with("findings", thousands(opened))
        .with("looks", looks.count)
        .with("findings of these", thousands(looks.findings.len() as u64)))
}

/// Kills the oldest and starts another, for as long as it takes; who has which address.
fn kill(setting: &Setting, owners: &mut HashMap<SocketAddr, u32>) -> Result<u64> {
    let processes = if setting.quick { QUICK_PROCESSES } else { PROCESSES };
    let mut alive = std::collections::VecDeque::new();
    let (mut number, start) = (0, now());
    while start.elapsed() < Duration::from_secs(setting.seconds) || alive.len() < processes {
        let mut holder = Holder::start(number, LEAKS, LEAKS, 0)?;
        owners.insert(holder.held()?.listener, holder.pid());
        alive.push_back(holder);
        number += 1;
        if alive.len() > processes
            && let Some(oldest) = alive.pop_front()
        {
            oldest.kill()?;
        }
    }
    // All that are left, at once.
    drop(alive);
    Ok(number.into())
}

/// What was seen in looks.
#[derive(Default)]
struct Looks {
    count: u32,
    findings: Vec<Value>,
}

/// One after the other.
fn looks(netns: &str, over: &AtomicBool) -> Result<Looks> {
    let mut looks = Looks::default();
    while !over.load(Relaxed) {
        let mut command = tcpwatch();
        command.args(["leaks", "-j", "--linger", "0s", "-N", netns]).stdin(Stdio::null());
        let output = command.output().context("run tcpwatch leaks")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
        looks.count += 1;
        for line in BufReader::new(&output.stdout[..]).lines() {
            let value: Value = serde_json::from_str(&line?)?;
            if value["type"] == "finding" {
                looks.findings.push(value);
            }
        }
    }
    Ok(looks)
}

/// Every process that a finding names is the one that had the socket.
fn check(finding: &Value, owners: &HashMap<SocketAddr, u32>) -> Result<()> {
    let [local, remote] = ends(finding)?;
    let pid = owners.get(&local).or_else(|| owners.get(&remote));
    let pid = *pid.with_context(|| format!("a socket of nobody: {finding}"))?;
    let holders = finding["holders"].as_array().map_or(&[][..], Vec::as_slice);
    let named = [&finding["owner"], &finding["ended"]["by"], &finding["process"]];
    for named in named.into_iter().chain(holders).map(|process| &process["pid"]) {
        ensure!(named.is_null() || *named == pid, "{named} is not {pid}: {finding}");
    }
    ensure!(finding["verdict"] != "never-accepted", "it was accepted: {finding}");
    ensure!(finding["verdict"] != "inherited", "it was opened by its holder: {finding}");
    Ok(())
}
