//! A tool that is measured: what it and its BPF programs used.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tool;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

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

/// A tool that runs until it is stopped, and what it printed.
pub(crate) struct Tool {
    tool: tool::Tool,
    output: PathBuf,
}

impl Tool {
    /// Starts it. tcpwatch says when it is ready; of others it is waited until their programs are there.
    pub(crate) fn start(mut command: Command, says_ready: bool) -> Result<Self> {
        let output =
            std::env::temp_dir().join(format!("tcpwatch-bench-{}.out", std::process::id()));
        let file =
            fs::File::create(&output).with_context(|| format!("create {}", output.display()))?;
        command.stdout(file);
        if says_ready {
            command.args(["--ready-file", "/dev/stderr"]);
            return Ok(Self { tool: tool::Tool::start(&mut command, "ready")?, output });
        }
        let tool = tool::Tool::spawn(&mut command)?;
        while programs_ns(tool.pid())?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It has loaded; attaching takes a moment more.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { tool, output })
    }

    /// Run time of its BPF programs, ns.
    pub(crate) fn programs_ns(&self) -> Result<u64> {
        Ok(programs_ns(self.tool.pid())?.unwrap_or(0))
    }

    /// CPU time of all its threads, ns.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        Ok(u64::try_from(self.tool.cpu()?.as_nanos())?)
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
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let bytes = self.tool.memory()? as f64;
        Ok(bytes / f64::from(1 << 20))
    }

    /// Ends it; the number of lost transitions, if it says.
    pub(crate) fn stop(self) -> Result<Option<u64>> {
        self.tool.stop()?;
        let text = fs::read(&self.output)?;
        let _ = fs::remove_file(&self.output);
        let text = String::from_utf8_lossy(&text);
        let summary = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        Ok(summary.and_then(|summary| summary["lost"].as_u64()))
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
