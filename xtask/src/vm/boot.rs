//! One guest from power on to its end: QEMU, its console, and what comes over the line.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{guest::Message, kernels::Fetched};

pub(super) const QEMU: &str = "qemu-system-x86_64";

/// Memory of a guest, MiB. It has everything in it, twice while it boots.
const MEMORY: &str = "2048";
/// From power on to the first word.
const BOOT: Duration = Duration::from_mins(2);
/// Without a word: no test takes so long.
const SILENCE: Duration = Duration::from_mins(10);
/// From the last word to power off.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// Of the console, when something went wrong.
const LAST_LINES: usize = 25;

/// What to boot and how.
pub(super) struct Machine<'a> {
    pub(super) fetched: &'a Fetched,
    pub(super) initramfs: &'a Path,
    pub(super) cpus: u32,
    /// From power on to power off.
    pub(super) limit: Duration,
    /// Where its logs go.
    pub(super) logs: PathBuf,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It did all it was to do.
    Done,
    /// It did not, with the last of its console.
    Early { why: String, console: Vec<String> },
}

impl Machine<'_> {
    /// Boots it and hands on what it says, until it ends or its time is over.
    pub(super) fn run(&self, mut heard: impl FnMut(Message)) -> Result<End> {
        let _ = fs::remove_dir_all(&self.logs);
        fs::create_dir_all(&self.logs)
            .with_context(|| format!("create {}", self.logs.display()))?;
        let mut qemu = Qemu(self.command()?.spawn().context("run QEMU")?);
        let line = qemu.0.stdout.take().context("take the line")?;
        let words = self.listen(line)?;
        let started = now();
        let mut patience = BOOT;
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            match words.recv_timeout(patience.min(left)) {
                Ok(Message::Done) => break,
                Ok(message) => heard(message),
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(self.early(&qemu.gone()?));
                }
                Err(RecvTimeoutError::Timeout) if left <= patience => {
                    return Ok(self.early(&format!("it took longer than {:?}", self.limit)));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Ok(self.early(&format!("it said nothing for {patience:?}")));
                }
            }
            patience = SILENCE;
        }
        Ok(match words.recv_timeout(SHUTDOWN) {
            Err(RecvTimeoutError::Disconnected) => End::Done,
            _ => self.early("it does not switch itself off"),
        })
    }

    /// Lines of the kernel's console.
    pub(super) fn console(&self) -> Vec<String> {
        let bytes = fs::read(self.logs.join("console.log")).unwrap_or_default();
        let printable = |c: &char| !c.is_control() || *c == '\n';
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(printable).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn early(&self, why: &str) -> End {
        let mut console = self.console();
        let last = console.split_off(console.len().saturating_sub(LAST_LINES));
        End::Early { why: why.to_owned(), console: last }
    }

    fn command(&self) -> Result<Command> {
        let console = format!("file:{}", self.logs.join("console.log").display());
        let stderr = fs::File::create(self.logs.join("qemu.log"))?;
        let cpus = self.cpus.to_string();
        // It must not outlive this program, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", QEMU])
            // What hosts can do differs, and what guests are told must not.
            .args([
                "-accel",
                "tcg,tb-size=256",
                "-cpu",
                "max,la57=off",
                "-smp",
                &cpus,
                "-m",
                MEMORY,
            ])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-serial", &console, "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.fetched.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init -- guest"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        Ok(command)
    }

    /// Reads the line, keeps it in a file, and hands on what is a message.
    fn listen(&self, line: std::process::ChildStdout) -> Result<Receiver<Message>> {
        let mut kept = fs::File::create(self.logs.join("messages.jsonl"))?;
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(line).split(b'\n').map_while(Result::ok) {
                let _ = kept.write_all(&text).and_then(|()| kept.write_all(b"\n"));
                let Ok(message) = serde_json::from_slice(&text) else { continue };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

/// A running QEMU, which ends with it.
struct Qemu(Child);

impl Qemu {
    /// Why it has ended by itself.
    fn gone(&mut self) -> Result<String> {
        let status = self.0.wait().context("wait for QEMU")?;
        Ok(if status.success() {
            "the kernel ended early: it has panicked or was switched off".to_owned()
        } else {
            format!("QEMU ended with {status}; see qemu.log")
        })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says what is missing on this machine.
pub(super) fn check_tools() -> Result<()> {
    for (program, package) in
        [(QEMU, "qemu-system-x86"), ("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("xz", "xz-utils")]
    {
        let tried = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            bail!("{program} is missing, which the kernel matrix needs: apt-get install {package}");
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a time limit is on a clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
