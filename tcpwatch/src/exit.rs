//! Exit codes, which scripts rely on.

use std::{io, process::ExitCode};

use anyhow::bail;

use crate::{
    Outcome,
    core::{advice::count, comm::tame, record::Summary},
};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked: 0.
    Ok,
    /// It found leaks and was asked to fail on them: 1.
    Findings,
    /// It could not do it: 2.
    Error,
    /// The exit code of the command that it ran.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::from(0),
            Exit::Findings => Self::from(1),
            Exit::Error => Self::from(2),
            Exit::Command(code) => Self::from(code),
        }
    }
}

/// How a run ends that may have been asked to fail on leaks. That there are none is only known where
/// the scans saw everything, and knew how old it is.
pub fn judge(fail_on_leak: bool, leaks: u64, summary: &Summary) -> Outcome {
    match (fail_on_leak, leaks) {
        (false, _) => Ok(Exit::Ok),
        (true, 1..) => Ok(Exit::Findings),
        (true, 0) => {
            if let Some(unseen) = summary.unseen.first() {
                bail!("that nothing lingers is not known: not seen are {unseen}");
            }
            if summary.undecided > 0 {
                let undecided = count(summary.undecided, "socket");
                bail!("that nothing lingers is not known: {undecided} may have for long enough");
            }
            Ok(Exit::Ok)
        }
    }
}

/// Says what went wrong on standard error. A reader that went away is not an error.
pub fn report(error: &anyhow::Error) -> Exit {
    let closed_pipe = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    if closed_pipe {
        return Exit::Ok;
    }
    say(&format!("tcpwatch: error: {error:#}"));
    Exit::Error
}

/// Writes a line to standard error and does not mind if nobody reads it.
pub fn say(line: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr().lock(), "{}", harmless(line));
}

/// What others chose in it is escaped already, unless somebody forgot.
pub fn harmless(lines: &str) -> String {
    lines.split('\n').map(tame).collect::<Vec<_>>().join("\n")
}
