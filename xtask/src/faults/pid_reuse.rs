//! A watched process ends, and a stranger gets its pid.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Fault, Setting, figures::Figures, run::Run};
use crate::hold::Holder;

pub(super) const FAULT: Fault = Fault {
    name: "pid-reuse",
    what: "a process that is watched with `--pid`, beside another, ends, and a stranger gets its pid",
    seen: "that the process has ended, and nothing of the stranger; without `--pid` findings of the old one end as `exited`, and those of the new one are its own",
    seconds: 4,
    quick: None,
    run,
};

const LEAKS: u32 = 5;
const LATER: Duration = Duration::from_secs(3);
/// Where the search for a free pid begins. Whoever forks next may take the pid that is wanted.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
const TRIES: u32 = 200;

fn run(setting: &Setting) -> Result<Figures> {
    let pause = Duration::from_secs(setting.seconds);
    // Another is watched, too, so that the run goes on.
    let mut stays = Holder::start(0, LEAKS, LEAKS, 0)?;
    let mut ends = Holder::start(1, LEAKS, LEAKS, 0)?;
    let (stays_held, ends_held, pid) = (stays.held()?, ends.held()?, ends.pid());
    let pids = format!("{},{pid}", stays.pid());
    let watched = Run::start(&["--linger", "300ms", "-p", &pids])?;
    let all = Run::start(&["--linger", "300ms"])?;
    thread::sleep(pause);
    ends.kill()?;
    // It takes longer than this to go through all pids.
    thread::sleep(LATER);
    let (mut stranger, tries) = successor(2, pid)?;
    let stranger_held = stranger.held()?;
    thread::sleep(pause);
    stranger.close()?;
    thread::sleep(pause / 2);
    let ((watched, ended), (all, _)) = (watched.stop()?, all.stop()?);

    ensure!(ended.stderr.contains(&format!("process {pid} has ended")), "{}", ended.stderr);
    // What was there before is not of a known beginning.
    watched.has_found_of(&stays_held, stays.pid())?;
    watched.has_found_of(&ends_held, pid)?;
    let strange = watched.of(&stranger_held).next();
    ensure!(strange.is_none(), "of a stranger with the pid of a watched process: {strange:?}");
    let strange = watched.transitions_of(&stranger_held);
    ensure!(strange == 0, "{strange} transitions of a stranger with the pid of a watched process");
    ensure!(all.transitions_of(&stranger_held) > 0, "it has made no connections");
    all.has_found_of(&ends_held, pid)?;
    all.has_found_of(&stranger_held, pid)?;
    for (held, how) in [(&ends_held, "exited"), (&stranger_held, "closed")] {
        let ended = all.of(held).filter(|f| f["status"] == "ended");
        let same = ended.clone().filter(|f| f["ended"]["how"] == *how).count();
        ensure!(
            same == LEAKS as usize,
            "{same} of {LEAKS} ended as {how}, in all {}",
            ended.count()
        );
    }
    Ok(Figures::default().with("a pid came back after", format!("{tries} tries")))
}

/// A process with this pid, which has just become free; how often that was tried.
fn successor(number: u16, pid: u32) -> Result<(Holder, u32)> {
    for tries in 1..=TRIES {
        fs::write(LAST_PID, (pid - 1).to_string()).with_context(|| format!("write {LAST_PID}"))?;
        let holder = Holder::start(number, LEAKS, LEAKS, 0)?;
        if holder.pid() == pid {
            return Ok((holder, tries));
        }
    }
    bail!("no process got pid {pid} in {TRIES} tries")
}
