//! The disk that is recorded to is full, and then has room again.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Fault, Setting,
    figures::{Figures, percent, thousands},
    ledger::number,
    recording::info,
    run::{Dir, Traffic},
};
use crate::{
    exec,
    load::namespace,
    output,
    tool::{Tool, tcpwatch},
};

pub(super) const FAULT: Fault = Fault {
    name: "full-disk",
    what: "the disk that `record` writes to is full under load, and has room again",
    seen: "a word on standard error when it is full and when it goes on; what was written stays readable, what is missing is counted exactly, in `info` and in a replay",
    seconds: 5,
    quick: None,
    run,
};

/// Of the disk, and of what fills it.
const DISK: &str = "4m";
const FILLER: usize = 3 << 20;

fn run(setting: &Setting) -> Result<Figures> {
    let dir = Dir::new()?;
    let disk = Disk::new(&dir)?;
    let (filler, path) = (dir.join("filler"), dir.join("a.tcpw"));
    fs::write(&filler, vec![1; FILLER])?;
    let (namespace, name) = (namespace()?, path.to_str().context("a path that is no text")?);
    let flags = ["record", "-o", name, "-N", &namespace];
    let mut tool = Tool::tcpwatch(&flags, std::process::Stdio::null())?;
    let traffic = Traffic::start(1, 1)?;
    tool.says("No space left on device")?;
    thread::sleep(Duration::from_secs(setting.seconds));
    fs::remove_file(&filler)?;
    tool.says("the recording goes on")?;
    let sent = traffic.stop(0)?;
    let ended = tool.stop()?;
    ensure!(ended.status.success(), "it ended with {}: {}", ended.status, ended.stderr);
    let info = info(&path)?;
    let [there, missing, lost] = ["transitions", "missing", "lost"].map(|key| number(&info[key]));
    let (there, missing) = (there?, missing?);
    ensure!(
        there + missing + lost? == sent.transitions,
        "{} were sent: {info}; it says: {}",
        sent.transitions,
        ended.stderr
    );
    ensure!(missing > 0, "nothing is missing: {info}");
    let text = output(tcpwatch().args(["replay", "-j"]).arg(&path))?;
    let shown = text.matches(r#"{"type":"transition""#).count();
    ensure!(shown as u64 == there, "a replay shows {shown} of {there}");
    ensure!(
        text.contains(&format!(r#""lost":{missing},"#)),
        "a replay does not tell what is missing"
    );
    drop(disk);
    Ok(Figures::default()
        .with("transitions", thousands(sent.transitions))
        .with("missing", percent(missing, sent.transitions)))
}

/// A small disk in a directory, gone with it.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(dir: &'a Dir) -> Result<Self> {
        let options = format!("size={DISK}");
        exec(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()))?;
        Ok(Self(dir.path()))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
