//! A running tool: started, asked what it used, and stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::root;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The release build.
pub(crate) fn tcpwatch() -> Command {
    Command::new(root().join("target/release/tcpwatch"))
}

/// `kernel.bpf_stats_enabled` on, and back to what it was. It costs about as much as an empty program, so
/// rates are measured without it.
pub(crate) struct Stats(String);

impl Stats {
    pub(crate) fn enable() -> Result<Self> {
        let before = fs::read_to_string(STATS).context("read kernel.bpf_stats_enabled")?;
        fs::write(STATS, "1").context("set kernel.bpf_stats_enabled")?;
        Ok(Self(before.trim().to_owned()))
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}

/// A tool that runs until it is stopped.
pub(crate) struct Tool {
    child: Child,
    output: PathBuf,
}

impl Tool {
    /// Starts it. tcpwatch says when it is ready; of others it is waited until their programs are there.
    pub(crate) fn start(mut command: Command, says_ready: bool) -> Result<Self> {
        let output =
            std::env::temp_dir().join(format!("tcpwatch-bench-{}.out", std::process::id()));
        if says_ready {
            command.args(["--ready-file", "/dev/stderr"]).stderr(Stdio::piped());
        }
        let file =
            fs::File::create(&output).with_context(|| format!("create {}", output.display()))?;
        let mut child =
            command.stdout(file).spawn().with_context(|| format!("start {command:?}"))?;
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            if !lines.by_ref().map_while(Result::ok).any(|line| line == "ready") {
                bail!("{command:?} did not start");
            }
            // What it says later must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
        } else {
            while programs_ns(child.id())?.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            // It has loaded; attaching takes a moment more.
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(Self { child, output })
    }

    /// Run time of its BPF programs, ns.
    pub(crate) fn programs_ns(&self) -> Result<u64> {
        Ok(programs_ns(self.child.id())?.unwrap_or(0))
    }

    /// CPU time of all its threads, ns, in steps of a scheduler tick.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        let dir = format!("/proc/{}/task", self.child.id());
        let mut ns = 0;
        for thread in fs::read_dir(&dir).with_context(|| format!("list {dir}"))? {
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            ns += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(ns)
    }

    /// CPU time once it has nothing left to do.
    pub(crate) fn settled_cpu_ns(&self) -> Result<u64> {
        const LITTLE: u64 = 1_000_000;
        let mut before = self.cpu_ns()?;
        loop {
            std::thread::sleep(Duration::from_millis(250));
            let now = self.cpu_ns()?;
            if now - before < LITTLE {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Resident memory, MB, its ring included, which is mapped twice.
    pub(crate) fn resident_mb(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kb = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = kb.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
        Ok(kb.context("read VmRSS")? / 1024.0)
    }

    /// Ends it; the number of lost transitions, if it says.
    pub(crate) fn stop(mut self) -> Result<Option<u64>> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        let text = fs::read(&self.output)?;
        let text = String::from_utf8_lossy(&text);
        let summary = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        Ok(summary.and_then(|summary| summary["lost"].as_u64()))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

/// Run time of the BPF programs that a process holds, ns; `None` if it holds none.
fn programs_ns(pid: u32) -> Result<Option<u64>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut total = None;
    let mut ids = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {dir}"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |key: &str| -> Option<u64> {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|value| value.trim().parse().ok())
        };
        let (Some(id), Some(ns)) = (field("prog_id:"), field("run_time_ns:")) else { continue };
        if !ids.contains(&id) {
            ids.push(id);
            *total.get_or_insert(0) += ns;
        }
    }
    Ok(total)
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
