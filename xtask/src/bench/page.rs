//! `docs/performance.md`: the tables of the last full run, with the machine that made them.

use std::{fmt::Write as _, fs};

use anyhow::Result;

use super::table::Table;
use crate::page::today;

/// The page.
pub(crate) fn page(tables: &[Table]) -> Result<String> {
    let mut page = format!(
        "# What tcpwatch costs\n\n\
         Made by `cargo xtask bench --write` (as root, with Debian's `libbpf-tools`, `lighttpd`, `wrk`, `lsof` and \
         `tcpdump`) on {}. Each table has the command that makes it alone; `--json` prints the numbers.\n\
         Machines differ, and a shared one differs from minute to minute: trust the ratios, which come from \
         rounds side by side.\n\n",
        machine()?
    );
    for table in tables {
        let _ = writeln!(page, "{}", table.markdown());
    }
    page.push_str(include_str!("budgets.md"));
    Ok(page)
}

/// When, and on what.
fn machine() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let virtual_machine =
        cpus.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    Ok(format!(
        "{}, Linux {}, {} {}{}",
        today()?,
        release.trim(),
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.map_or("CPUs", |(_, model)| model),
        if virtual_machine { ", virtual machine" } else { "" }
    ))
}
