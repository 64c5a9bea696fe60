//! Processes are killed, and the network namespaces that only they lived in vanish.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{
    Fault, Setting,
    figures::Figures,
    ledger::{Ledger, ends},
    run::Run,
};
use crate::{
    hold::Holder,
    load::{in_namespace, namespace},
    tool::{Background, now, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "gone-namespace",
    what: "processes with leaks are killed, and with each its network namespace goes, while all namespaces are looked at",
    seen: "findings end as `exited`; no error, no warning",
    seconds: 15,
    quick: None,
    run,
};

/// How long each lives: long enough for a look at it, also on a host with many other sockets.
const LIFE: Duration = Duration::from_secs(3);
const LEAKS: u32 = 2;

fn run(setting: &Setting) -> Result<Figures> {
    // It does not know the namespaces before.
    let run = Run::start_on_host(&["-q", "--linger", "300ms"])?;
    let looks = Background::start(looks);
    let mut inhabitants = HashMap::new();
    let (mut number, mut alive) = (0, VecDeque::new());
    let start = now();
    while start.elapsed() < Duration::from_secs(setting.seconds) {
        let (netns, addr, holder) = inhabitant(number)?;
        inhabitants.insert((netns, addr), holder.pid());
        alive.push_back((now(), holder));
        number += 1;
        while alive.front().is_some_and(|(born, _)| born.elapsed() > LIFE)
            && let Some((_, oldest)) = alive.pop_front()
        {
            oldest.kill()?;
        }
    }
    drop(alive);
    let looks = looks.stop()?;
    thread::sleep(Duration::from_secs(1));
    let (ledger, ended) = run.stop()?;
    ensure!(ended.stderr.is_empty(), "it says: {}", ended.stderr);
    let found = check(&ledger, &inhabitants)?;
    Ok(Figures::default()
        .with("namespaces", number)
        .with("findings", found)
        .with("looks into all of them", looks))
}

/// A process that leaks, in a network namespace of its own.
fn inhabitant(number: u16) -> Result<(u64, SocketAddr, Holder)> {
    in_namespace(|| {
        let mut holder = Holder::start(number, LEAKS, LEAKS, 0)?;
        Ok((namespace()?.parse()?, holder.held()?.listener, holder))
    })
}

/// Counts the sockets of all namespaces again and again.
fn looks(over: &AtomicBool) -> Result<u32> {
    let mut looks = 0;
    while !over.load(Relaxed) {
        let output = tcpwatch().args(["states", "-j"]).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
        looks += 1;
    }
    Ok(looks)
}

/// Findings of these namespaces name their inhabitants, and all of them ended with those.
fn check(ledger: &Ledger, inhabitants: &HashMap<(u64, SocketAddr), u32>) -> Result<usize> {
    let owner = |finding: &Value| -> Result<Option<u32>> {
        let netns = finding["netns"].as_u64().unwrap_or(0);
        Ok(inhabitants.get(&(netns, ends(finding)?[0])).copied())
    };
    let mut ended = HashMap::new();
    for finding in ledger.with_status("ended") {
        ended.insert(finding["socket"].as_u64(), finding["ended"]["how"].as_str());
    }
    let mut found = 0;
    for finding in ledger.with_status("open") {
        // Others have sockets on this host, too.
        let Some(pid) = owner(finding)? else { continue };
        found += 1;
        ensure!(finding["holders"][0]["pid"] == pid, "not held by {pid}: {finding}");
        let how = ended.get(&finding["socket"].as_u64()).copied().flatten();
        ensure!(how == Some("exited"), "it ended as {how:?}: {finding}");
    }
    ensure!(found > 0, "nothing was found");
    Ok(found)
}
