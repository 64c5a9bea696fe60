//! Exit codes, which scripts rely on.

use std::{io, process::ExitCode};

use crate::core::comm::tame;

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
