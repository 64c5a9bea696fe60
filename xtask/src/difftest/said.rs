//! What tcpwatch says (`-j`), line by line, and a tcpwatch that says it.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::state::State;
use crate::tool::Tool;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) addr: IpAddr,
    pub(super) port: u16,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) fd: i32,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Transition {
    pub(super) mono_ns: u64,
    /// `None` if the kernel had no memory to remember the socket.
    pub(super) socket: Option<u64>,
    pub(super) cookie: Option<u64>,
    pub(super) family: u8,
    pub(super) uid: u32,
    pub(super) protocol: String,
    pub(super) local: End,
    pub(super) remote: End,
    pub(super) old: State,
    pub(super) new: State,
    pub(super) in_state_ns: Option<u64>,
    pub(super) lifetime_ns: Option<u64>,
    pub(super) owner: Option<Process>,
    /// Who did it, where that is certain.
    pub(super) by: Option<Process>,
    pub(super) uncertain: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listener {
    pub(super) holders: Vec<Holder>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ended {
    pub(super) how: String,
    pub(super) by: Option<Process>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Finding {
    pub(super) mono_ns: u64,
    /// `None` if the kernel had no memory to remember the socket.
    pub(super) socket: Option<u64>,
    pub(super) cookie: Option<u64>,
    pub(super) uid: u32,
    pub(super) protocol: String,
    pub(super) local: End,
    pub(super) remote: End,
    pub(super) status: String,
    pub(super) verdict: Option<String>,
    pub(super) state: State,
    pub(super) linger_ns: u64,
    pub(super) linger_at_least: bool,
    pub(super) linger_at_most_ns: Option<u64>,
    pub(super) unread: Option<u32>,
    pub(super) unsent: Option<u32>,
    pub(super) holders: Vec<Holder>,
    pub(super) listener: Option<Listener>,
    pub(super) ended: Option<Ended>,
    pub(super) inode: Option<u64>,
}

impl Transition {
    pub(super) fn is_mptcp(&self) -> bool {
        self.protocol == "mptcp"
    }
}

/// A socket's name that lasts: its cookie. Several MPTCP sockets have one cookie, so of those it is the inode, or
/// the ends of one that nobody has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Cookie(u64),
    Inode(u64),
    Ends(End, End),
}

impl Finding {
    pub(super) fn key(&self) -> Key {
        match self.inode {
            Some(inode) if self.protocol == "mptcp" && inode > 0 => Key::Inode(inode),
            _ if self.protocol == "mptcp" => Key::Ends(self.local, self.remote),
            _ => Key::Cookie(self.cookie.unwrap_or(0)),
        }
    }

    /// What is the same in all that one run says of a socket: an MPTCP socket gets its inode late.
    pub(super) fn id(&self) -> Result<u64, Key> {
        self.socket.ok_or_else(|| self.key())
    }

    pub(super) fn is_open(&self) -> bool {
        self.status != "ended"
    }

    pub(super) fn how(&self) -> &str {
        self.ended.as_ref().map_or("", |ended| &ended.how)
    }
}

/// What a line says.
#[derive(Clone, Debug)]
pub(super) enum What {
    Transition(Box<Transition>),
    Finding(Box<Finding>),
    Lost(u64),
    Summary(Value),
    Other,
}

/// A line, as it was read and as it was written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) what: What,
    pub(super) text: Arc<str>,
}

impl Line {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let what = match value["type"].as_str() {
            Some("transition") => What::Transition(serde_json::from_str(text)?),
            Some("finding") => What::Finding(serde_json::from_str(text)?),
            Some("lost") => What::Lost(value["count"].as_u64().context("a loss without a count")?),
            Some("summary") => What::Summary(value),
            _ => What::Other,
        };
        Ok(Self { what, text: text.into() })
    }

    pub(super) fn transition(&self) -> Option<&Transition> {
        if let What::Transition(transition) = &self.what { Some(transition) } else { None }
    }

    /// When it happened, if it says that.
    pub(super) fn at(&self) -> u64 {
        let finding = self.finding().map(|finding| finding.mono_ns);
        self.transition().map(|said| said.mono_ns).or(finding).unwrap_or(0)
    }

    pub(super) fn finding(&self) -> Option<&Finding> {
        if let What::Finding(finding) = &self.what { Some(finding) } else { None }
    }
}

/// Which tcpwatch is held to the truth.
#[derive(Clone)]
pub(super) struct Binary(pub(super) PathBuf);

impl Binary {
    /// Runs it to its end; what it printed, line by line.
    pub(super) fn lines(&self, arguments: &[String]) -> Result<Vec<Line>> {
        let output = Command::new(&self.0).args(arguments).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tcpwatch {arguments:?} failed: {said}");
        String::from_utf8(output.stdout)?.lines().map(Line::parse).collect()
    }
}

/// A tcpwatch that runs beside the random processes.
pub(super) struct Live {
    tool: Tool,
    lines: Arc<Mutex<Vec<Line>>>,
    reader: JoinHandle<Result<()>>,
}

impl Live {
    /// Starts it and waits until it is attached.
    pub(super) fn start(binary: &Binary, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(&binary.0);
        command.args(["-j", "--ready-file", "/dev/stderr"]).args(arguments).stdout(Stdio::piped());
        let mut tool = Tool::start(&mut command, "ready")?;
        let out = BufReader::with_capacity(1 << 20, tool.stdout()?);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in out.lines() {
                let line = Line::parse(&line?)?;
                all.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
            Ok(())
        });
        Ok(Self { tool, lines, reader })
    }

    /// What it has said until now.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; everything that it said, and its words on standard error.
    pub(super) fn stop(self) -> Result<(Vec<Line>, String)> {
        let ended = self.tool.stop()?;
        self.reader.join().map_err(|_| anyhow!("the reader panicked"))??;
        ensure!(ended.status.success(), "tcpwatch ended with {}: {}", ended.status, ended.stderr);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((lines, ended.stderr))
    }
}
