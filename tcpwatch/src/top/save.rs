//! Writes the findings that are listed to a file of their own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use crate::{
    core::{
        comm::shown,
        finding::{Finding, Status},
        record::Record,
        time::{ClockMark, Timestamp},
    },
    sink::Sink as _,
    sink::json::JsonSink,
};

/// They name the peers of a host.
const MODE: u32 = 0o600;

/// Writes findings as they stand at a moment, as JSON lines, to a file that is not there yet; returns
/// where that is.
pub fn write(
    path: &Path,
    findings: &[Arc<Finding>],
    clock: &ClockMark,
    now: Timestamp,
) -> Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("find {}", shown(path)))?;
    // Never through a link, and never over what is there.
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
    let file = file.with_context(|| format!("create {}", shown(&path)))?;
    let written = write_all(file, findings, clock, now);
    if written.is_err() {
        // Half of it would look like all.
        let _ = fs::remove_file(&path);
    }
    written.with_context(|| format!("write {}", shown(&path)))?;
    Ok(path)
}

fn write_all(
    file: File,
    findings: &[Arc<Finding>],
    clock: &ClockMark,
    now: Timestamp,
) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let mut sink = JsonSink::new(&mut out);
    for finding in findings {
        let finding = match finding.status {
            Status::Ended => (**finding).clone(),
            _ => finding.as_of(now),
        };
        sink.record(clock, &Record::Finding(&finding))?;
    }
    out.flush()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
