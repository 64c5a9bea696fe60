//! Standard output is a pipe whose reader does not read: a paused pager, a log shipper that hangs.

use std::{
    io::{BufReader, Read},
    path::Path,
    process::Stdio,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;

use super::{
    Fault, Setting,
    figures::{Figures, percent, thousands},
    hidden::Hidden,
    ledger::Ledger,
    recording,
    run::{Dir, Traffic},
};
use crate::{load::namespace, tool::Tool};

pub(super) const FAULT: Fault = Fault {
    name: "blocked-sink",
    what: "nobody reads standard output, a full pipe, under load, with `--record` beside it; SIGTERM while it is full",
    seen: "`lost` with the exact count of what was not shown, once output flows again; findings as they are now; the recording has everything. SIGTERM ends it within 4 s, exit code 2, with a word on standard error",
    seconds: 10,
    quick: Some(3),
    run,
};

const LEAKS: u32 = 20;
/// What it may take to end while nobody reads.
const IN_TIME: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn run(setting: &Setting) -> Result<Figures> {
    let dir = Dir::new()?;
    let (path, killed) = (dir.join("a.tcpw"), dir.join("b.tcpw"));
    let hidden = Hidden::start()?;
    let mut tool = start(&path)?;
    let traffic = Traffic::start(LEAKS, setting.seconds + 3)?;
    thread::sleep(Duration::from_secs(setting.seconds));
    let reader = read(tool.stdout()?);
    thread::sleep(SECOND);
    let sent = traffic.stop(0)?;
    thread::sleep(SECOND);
    let ended = tool.stop()?;
    ensure!(ended.status.success(), "it ended with {}: {}", ended.status, ended.stderr);
    let mut ledger = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
    ledger.hidden = hidden.stop()?;
    ledger.is_complete(sent.transitions)?;
    ensure!(ledger.unshown > 0, "the pipe was large enough after all");
    ledger.has_found(&[(&sent.held, sent.holder.pid())])?;
    let recorded = recording::complete(&path)?;
    ensure!(
        recorded == sent.transitions,
        "{recorded} of {} transitions are in the recording",
        sent.transitions
    );
    sent.holder.close()?;

    let mut tool = start(&killed)?;
    let pipe = tool.stdout()?;
    let traffic = Traffic::start(1, 1)?;
    thread::sleep(2 * SECOND);
    let traffic = traffic.stop(0)?;
    tool.signal(Signal::TERM)?;
    let ended = tool.wait()?;
    drop(pipe);
    ensure!(ended.took < IN_TIME, "it took {:?} to end", ended.took);
    ensure!(ended.status.code() == Some(2), "it ended with {}", ended.status);
    ensure!(ended.stderr.contains("nobody takes the output"), "it says: {}", ended.stderr);
    let recorded = recording::complete(&killed)?;
    ensure!(recorded == traffic.transitions, "{recorded} of {} are recorded", traffic.transitions);
    Ok(Figures::default()
        .with("transitions", thousands(sent.transitions))
        .with("not shown", percent(ledger.unshown, sent.transitions))
        .with("recorded", "all")
        .with("leaks found", format!("{LEAKS} of {LEAKS}"))
        .with("end after SIGTERM", format!("{:.1} s", ended.took.as_secs_f64())))
}

fn start(record: &Path) -> Result<Tool> {
    let (namespace, record) = (namespace()?, record.to_str().context("a path that is no text")?);
    let flags = ["-j", "-N", &namespace, "--linger", "500ms", "--record", record];
    Tool::tcpwatch(&flags, Stdio::piped())
}

/// Begins to read.
fn read(pipe: impl Read + Send + 'static) -> JoinHandle<Result<Ledger>> {
    thread::spawn(move || {
        let mut ledger = Ledger::default();
        ledger.read(BufReader::with_capacity(1 << 20, pipe))?;
        Ok(ledger)
    })
}
