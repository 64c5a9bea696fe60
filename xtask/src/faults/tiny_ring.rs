//! A ring of one page under full load: most is lost, and all of that is told.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Fault, Setting,
    figures::{Figures, percent, thousands},
    run::{Run, Traffic},
};

pub(super) const FAULT: Fault = Fault {
    name: "tiny-ring",
    what: "a ring of 4 KiB, connections at full speed, a few leaks among them",
    seen: "`lost` records with exact counts, `uncertain` where a path has a gap; every leak, with the right process and age",
    seconds: 10,
    quick: Some(3),
    run,
};

const LEAKS: u32 = 20;

fn run(setting: &Setting) -> Result<Figures> {
    let run = Run::start(&["--ring-size", "4096", "--linger", "1s"])?;
    let traffic = Traffic::start(LEAKS, setting.seconds)?;
    thread::sleep(Duration::from_secs(setting.seconds + 1));
    let sent = traffic.stop(0)?;
    // The last of them is old enough then.
    thread::sleep(Duration::from_secs(2));
    let (ledger, _) = run.stop()?;
    ledger.is_complete(sent.transitions)?;
    ensure!(ledger.lost > 0, "the ring was large enough after all");
    ledger.has_found(&[(&sent.held, sent.holder.pid())])?;
    let now = &ledger.summary()?["now"];
    ensure!(*now == json!({"CLOSE_WAIT": LEAKS, "LISTEN": 1}), "the table is wrong: {now}");
    Ok(Figures::default()
        .with("transitions", thousands(sent.transitions))
        .with("lost", percent(ledger.lost, sent.transitions))
        .with("uncertain", thousands(ledger.uncertain))
        .with("leaks found", format!("{LEAKS} of {LEAKS}")))
}
