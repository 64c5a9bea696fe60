//! A running tcpwatch whose output is awaited.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read, Seek as _},
    os::unix::fs::MetadataExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything should take, so that a hang is a failure and not a hang.
const PATIENCE: Duration = Duration::from_mins(4);

pub(crate) struct Watch {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    pub(crate) lines: Vec<Value>,
}

/// What a finished run said.
pub(crate) struct Done {
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

/// The inode of this thread's network namespace.
pub(crate) fn namespace() -> String {
    std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino().to_string()
}

impl Watch {
    /// Starts `tcpwatch -j` on this namespace and waits until it is attached.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_raw(&[&["-j", "-N", &namespace()], flags].concat())
    }

    /// The same, with its output in a file: a slow reader must not slow it down.
    pub(crate) fn start_to_file(flags: &[&str]) -> (Self, File) {
        let file = tempfile::tempfile().unwrap();
        let namespace = namespace();
        let flags = [&["-j", "-N", &namespace], flags].concat();
        (Self::spawn(&flags, file.try_clone().unwrap().into()), file)
    }

    /// Starts tcpwatch with these flags alone and waits until it is attached.
    pub(crate) fn start_raw(flags: &[&str]) -> Self {
        Self::spawn(flags, Stdio::piped())
    }

    /// The same for what attaches nothing.
    pub(crate) fn start_unattached(flags: &[&str]) -> Self {
        Self::spawn_unattached(flags, Stdio::piped(), &[])
    }

    /// The same as [`Self::start`], with variables in its environment.
    pub(crate) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let namespace = namespace();
        let flags = [&["-j", "-N", &namespace], flags].concat();
        Self::spawn_with(&flags, Stdio::piped(), variables)
    }

    /// Starts it with its output here and waits until it is attached.
    pub(crate) fn spawn(flags: &[&str], stdout: Stdio) -> Self {
        Self::spawn_with(flags, stdout, &[])
    }

    fn spawn_with(flags: &[&str], stdout: Stdio, variables: &[(&str, &str)]) -> Self {
        let flags = [flags, &["--ready-file", "/dev/stderr"]].concat();
        let watch = Self::spawn_unattached(&flags, stdout, variables);
        watch.said("ready");
        watch
    }

    /// The same in another network namespace.
    pub(crate) fn start_elsewhere(flags: &[&str]) -> Self {
        let flags = [flags, &["--ready-file", "/dev/stderr"]].concat();
        let watch = Self::start_elsewhere_unattached(&flags);
        watch.said("ready");
        watch
    }

    /// The same for what attaches nothing.
    pub(crate) fn start_elsewhere_unattached(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", env!("CARGO_BIN_EXE_tcpwatch")]).args(flags);
        Self::spawn_command(&mut command, Stdio::piped())
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same as [`Self::start_unattached`], with variables in its environment.
    pub(crate) fn start_unattached_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn_unattached(flags, Stdio::piped(), variables)
    }

    fn spawn_unattached(flags: &[&str], stdout: Stdio, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
        Self::spawn_command(command.args(flags).envs(variables.iter().copied()), stdout)
    }

    fn spawn_command(command: &mut Command, stdout: Stdio) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map_or_else(|| channel().1, lines);
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err, lines: Vec::new() }
    }

    /// Waits for a line on standard error that has these words.
    pub(crate) fn said(&self, words: &str) -> String {
        self.said_until(words).pop().unwrap()
    }

    /// The same, with all lines before it.
    pub(crate) fn said_until(&self, words: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.err.recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(why) => panic!("tcpwatch does not say '{words}' ({why}): {said:?}"),
            }
            if said.last().is_some_and(|line| line.contains(words)) {
                return said;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line that satisfies a condition; keeps all lines.
    pub(crate) fn until(&mut self, what: &str, mut found: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let Ok(line) = self.out.recv_timeout(PATIENCE) else {
                panic!("no {what}; tcpwatch said {:#?}", self.lines);
            };
            let value: Value = serde_json::from_str(&line).unwrap();
            self.lines.push(value.clone());
            if found(&value) {
                return value;
            }
        }
    }

    /// Waits for a finding with this status.
    pub(crate) fn finding(&mut self, status: &str) -> Value {
        self.until(&format!("finding {status}"), |line| {
            line["type"] == "finding" && line["status"] == status
        })
    }

    /// Waits for the transition into a state at a local port.
    pub(crate) fn transition(&mut self, port: u16, new: &str) -> Value {
        self.until(&format!("transition to {new}"), |line| {
            line["type"] == "transition" && line["new"] == new && line["local"]["port"] == port
        })
    }

    /// Ends it as a person does and returns everything.
    pub(crate) fn stop(self) -> Done {
        self.signal(Signal::INT);
        self.wait()
    }

    /// Ends it and returns what is in the file.
    pub(crate) fn stop_and_read(self, file: &mut File) -> Done {
        let mut done = self.stop();
        assert!(done.status.success(), "{}: {}", done.status, done.stderr);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        done.lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        done
    }

    /// Waits for its own end.
    pub(crate) fn wait(mut self) -> Done {
        let Ok(lines) = drain(&self.out) else { panic!("tcpwatch does not end") };
        self.lines.extend(lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        let stderr = drain(&self.err).unwrap_or_default().join("\n");
        let status = self.child.wait().unwrap();
        Done { lines: std::mem::take(&mut self.lines), stderr, status }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Done {
    pub(crate) fn of(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == kind).collect()
    }

    pub(crate) fn summary(&self) -> &Value {
        let last = self.lines.last().unwrap();
        assert_eq!(last["type"], "summary", "the last line is the summary");
        last
    }

    /// `old>new` of the transitions at a local port and remote port, in order.
    pub(crate) fn path(&self, local: u16, remote: u16) -> Vec<String> {
        self.of("transition")
            .into_iter()
            .filter(|t| t["local"]["port"] == local && t["remote"]["port"] == remote)
            .map(change)
            .collect()
    }
}

pub(crate) fn change(transition: &Value) -> String {
    format!("{}>{}", transition["old"].as_str().unwrap(), transition["new"].as_str().unwrap())
}

fn drain(lines: &Receiver<String>) -> Result<Vec<String>, ()> {
    let mut all = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => all.push(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(all),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return Err(()),
        }
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
