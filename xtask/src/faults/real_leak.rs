//! A recording of a leak that goes on: each new finding must cost what it says, and not what lingers already.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Fault, Setting,
    figures::{Figures, thousands},
    ledger::Ledger,
    recording,
    run::Dir,
};
use crate::{
    hold::Holder,
    load::{Churn, namespace},
    tool::{Tool, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "real-leak",
    what: "a process leaks a connection a second for ten minutes, beside ten connections a second that are closed: about 100 transitions a second, and what lingers becomes more",
    seen: "a recording of at most 8 bytes for each transition and 200 for each finding, all included; its replay says what the live run said, line by line",
    seconds: 600,
    quick: None,
    run,
};

const PACE: u32 = 10;
const LEAKS_PER_SECOND: u32 = 1;
/// Less than this says nothing about growth.
const LEAST: u64 = 30;
const BYTES_PER_TRANSITION: u64 = 8;
const BYTES_PER_FINDING: u64 = 200;
const SECOND: Duration = Duration::from_secs(1);

fn run(setting: &Setting) -> Result<Figures> {
    ensure!(setting.seconds >= LEAST, "shorter than {LEAST} s says nothing about growth");
    let (dir, namespace) = (Dir::new()?, namespace()?);
    let (file, live, again) = (dir.join("leak.tcpw"), dir.join("live"), dir.join("again"));
    let path = file.to_str().context("a path that is no text")?;
    let filter = ["-j", "--linger", "1s", "-N", &namespace];
    let flags = [&filter[..], &["--record", path]].concat();
    let tool = Tool::tcpwatch(&flags, File::create(&live)?.into())?;
    let leaks = LEAKS_PER_SECOND * u32::try_from(setting.seconds)?;
    let mut holder = Holder::start(0, leaks, leaks, LEAKS_PER_SECOND)?;
    let churn = Churn::start(Some(PACE))?;
    thread::sleep(Duration::from_secs(setting.seconds));
    let held = holder.held()?;
    churn.stop()?;
    thread::sleep(2 * SECOND);
    let ended = tool.stop()?;
    ensure!(ended.status.success() && ended.stderr.is_empty(), "it says: {}", ended.stderr);
    let mut ledger = Ledger::default();
    ledger.read(BufReader::new(File::open(&live)?))?;
    ledger.is_consistent()?;
    // A port of a client that is gone is used again after a minute, and then its first leak ends.
    let findings = ledger.count_of("open");
    let made = held.leaks.len() as u64;
    ensure!(findings >= made, "{findings} findings of {made} leaks");
    holder.close()?;
    let replay = tcpwatch()
        .args([&["replay", path], &filter[..]].concat())
        .stdout(File::create(&again)?)
        .stdin(Stdio::null())
        .status()?;
    ensure!(replay.success(), "the replay ended with {replay}");
    same(&live, &again)?;
    let transitions = recording::complete(&file)?;
    let bytes = fs::metadata(&file)?.len();
    let room = transitions * BYTES_PER_TRANSITION + findings * BYTES_PER_FINDING;
    ensure!(
        bytes <= room,
        "{bytes} bytes for {transitions} transitions and {findings} findings: more than {room}"
    );
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = bytes as f64 / transitions as f64;
    let of_findings = bytes.saturating_sub(transitions * BYTES_PER_TRANSITION);
    Ok(Figures::default()
        .with("transitions", thousands(transitions))
        .with("findings", thousands(findings))
        .with("bytes", thousands(bytes))
        .with("bytes for each transition, all included", format!("{each:.1}"))
        .with("bytes for each finding beyond 8 a transition", of_findings / findings)
        .with("lines replayed as they were", "all"))
}

/// Both have the same lines.
fn same(live: &Path, again: &Path) -> Result<()> {
    let lines = |path: &Path| Ok::<_, anyhow::Error>(BufReader::new(File::open(path)?).lines());
    let (mut live, mut again) = (lines(live)?, lines(again)?);
    let mut number = 0;
    loop {
        number += 1;
        match (live.next().transpose()?, again.next().transpose()?) {
            (None, None) => return Ok(()),
            (one, other) => {
                ensure!(one == other, "line {number}: {one:?} is replayed as {other:?}");
            }
        }
    }
}
