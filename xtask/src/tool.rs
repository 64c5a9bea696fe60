//! A program that is watched from outside: started, measured, ended, and what it said.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::target_dir;

/// Longer than anything should take, so that a hang is a failure and not a hang.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// The release build.
pub(crate) fn tcpwatch() -> Command {
    Command::new(target_dir().join("release/tcpwatch"))
}

/// A running program.
pub(crate) struct Tool {
    child: Child,
    said: Receiver<String>,
    heard: Vec<String>,
}

/// One that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    /// How long it took to end after it was told to.
    pub(crate) took: Duration,
}

impl Tool {
    /// Starts tcpwatch and waits until it is attached and has seen every open socket.
    pub(crate) fn tcpwatch(args: &[impl AsRef<OsStr>], stdout: Stdio) -> Result<Self> {
        let mut command = tcpwatch();
        command.args(args).args(["--ready-file", "/dev/stderr"]).stdout(stdout);
        Self::start(&mut command, "ready")
    }

    /// Starts a program and waits until it says these words on standard error.
    pub(crate) fn start(command: &mut Command, ready: &str) -> Result<Self> {
        let mut tool = Self::spawn(command)?;
        tool.says(ready).with_context(|| format!("{command:?} did not start"))?;
        tool.heard.pop();
        Ok(tool)
    }

    /// Starts a program.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (sender, said) = channel();
        // Always read, so that what it says never holds it up.
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Ok(Self { child, said, heard: Vec::new() })
    }

    /// Waits until it says these words.
    pub(crate) fn says(&mut self, words: &str) -> Result<()> {
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.heard.push(line);
                    if self.heard.last().is_some_and(|line| line.contains(words)) {
                        return Ok(());
                    }
                }
                Err(_) => bail!("it does not say '{words}', but: {:?}", self.heard),
            }
        }
    }

    /// Its standard output, if that is a pipe.
    pub(crate) fn stdout(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("its standard output is no pipe")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads, those that have ended too.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let pid = unistd::Pid::from_raw(i32::try_from(self.pid())?);
        let clock = clock_getcpuclockid(pid).context("find the CPU clock of a process")?;
        Ok(clock_gettime(clock).context("read the CPU clock of a process")?.into())
    }

    /// Memory that it has in use, bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that it had in use, bytes.
    pub(crate) fn most_memory(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no {field}"))? << 10)
    }

    /// Waits until it has nothing left to do; what it has used then.
    pub(crate) fn settle(&self) -> Result<Duration> {
        // Longer than the pauses that it makes in its work.
        const SPAN: Duration = Duration::from_millis(1200);
        let mut before = self.cpu()?;
        loop {
            thread::sleep(SPAN);
            let now = self.cpu()?;
            if now.saturating_sub(before) < SPAN / 60 {
                return Ok(now);
            }
            before = now;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends it as a person does.
    pub(crate) fn stop(self) -> Result<Ended> {
        self.signal(Signal::INT)?;
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<Ended> {
        let start = now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > PATIENCE {
                bail!("it does not end");
            }
            thread::sleep(POLL);
        };
        let took = start.elapsed();
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("its standard error does not end"),
            }
        }
        Ok(Ended { status, stderr: std::mem::take(&mut self.heard).join("\n"), took })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Work on a thread of its own that looks whether it is over, and ends when it is.
pub(crate) struct Background<T> {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Background<T> {
    pub(crate) fn start(work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        Self { over, thread: thread::spawn(move || work(&told)) }
    }

    /// Ends it; what came of it.
    pub(crate) fn stop(self) -> Result<T> {
        self.over.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("a thread panicked"))?
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
