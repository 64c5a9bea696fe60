//! An agent that stands still under load: SIGSTOP, a frozen container, a machine that swaps.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::{
    Fault, Setting,
    figures::{Figures, percent, thousands},
    run::{Run, Traffic},
};
use crate::{
    hold::Holder,
    load::{TRANSITIONS_PER_CONNECTION, TRANSITIONS_PER_LISTENER},
};

pub(super) const FAULT: Fault = Fault {
    name: "stopped-agent",
    what: "tcpwatch is stopped (SIGSTOP) under load; leaks begin and end meanwhile",
    seen: "one `lost` with the exact count, then everything as it is now: findings with the age they have, and ends for those that ended unseen",
    seconds: 10,
    quick: Some(3),
    run,
};

/// Leaks that begin before, during and after.
const LEAKS: u32 = 30;
/// Leaks that were found before, and end meanwhile.
const EARLY: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

fn run(setting: &Setting) -> Result<Figures> {
    let run = Run::start(&["--linger", "500ms"])?;
    let mut early = Holder::start(1, EARLY, EARLY, 0)?;
    let (early_held, early_pid) = (early.held()?, early.pid());
    let traffic = Traffic::start(LEAKS, setting.seconds + 4)?;
    thread::sleep(2 * SECOND);
    run.tool.signal(Signal::STOP)?;
    thread::sleep(Duration::from_secs(setting.seconds));
    early.close()?;
    run.tool.signal(Signal::CONT)?;
    thread::sleep(2 * SECOND);
    let sent = traffic.stop(0)?;
    thread::sleep(SECOND);
    let (ledger, _) = run.stop()?;
    let early = u64::from(EARLY) * TRANSITIONS_PER_CONNECTION + TRANSITIONS_PER_LISTENER;
    ledger.is_complete(sent.transitions + early)?;
    ensure!(ledger.lost > 0, "the ring was large enough after all");
    ensure!(ledger.uncertain_findings() > 0, "no leak began unseen");
    ledger.has_found(&[(&sent.held, sent.holder.pid()), (&early_held, early_pid)])?;
    let ended = ledger.with_status("ended").count();
    ensure!(ended == EARLY as usize, "{ended} findings ended, and not {EARLY}");
    let now = &ledger.summary()?["now"];
    ensure!(*now == json!({"CLOSE_WAIT": LEAKS, "LISTEN": 1}), "the table is wrong: {now}");
    Ok(Figures::default()
        .with("transitions", thousands(sent.transitions + early))
        .with("lost", percent(ledger.lost, sent.transitions))
        .with("told in records", ledger.losses)
        .with("leaks found", format!("{0} of {0}", LEAKS + EARLY))
        .with("of these began unseen", ledger.uncertain_findings()))
}
