//! The reader goes away: `| head`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{Fault, Setting, figures::Figures};
use crate::{
    load::{Churn, namespace},
    tool::Tool,
};

pub(super) const FAULT: Fault = Fault {
    name: "gone-reader",
    what: "the reader of a pipe goes away (`head`) under load, or before there was anything to read",
    seen: "it ends, quietly, exit code 0",
    seconds: 1,
    quick: Some(1),
    run,
};

const LINES: usize = 10;
const IN_TIME: Duration = Duration::from_secs(2);

fn run(_: &Setting) -> Result<Figures> {
    let namespace = namespace()?;
    let churn = Churn::start(None)?;
    let mut slowest = Duration::ZERO;
    for format in ["-j", "-s", "-w", "-q"] {
        let mut tool = Tool::tcpwatch(&[format, "-N", &namespace], Stdio::piped())?;
        let reader = BufReader::new(tool.stdout()?);
        let lines = if format == "-q" { 0 } else { LINES };
        let read = reader.lines().take(lines).flatten().count();
        ensure!(read == lines, "{format} showed {read} lines");
        let ended = tool.wait()?;
        ensure!(ended.status.success(), "{format} ended with {}", ended.status);
        ensure!(ended.stderr.is_empty(), "{format} says: {}", ended.stderr);
        ensure!(ended.took < IN_TIME, "{format} took {:?} to end", ended.took);
        slowest = slowest.max(ended.took);
    }
    churn.stop()?;
    Ok(Figures::default().with("end after at most", format!("{} ms", slowest.as_millis())))
}
