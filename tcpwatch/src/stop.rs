//! When to stop: a signal, the end of the time, or the end of a command that is run.
//!
//! Threads of their own wait, so that a run whose output nobody takes can still be ended: it has as
//! long as it makes progress, and a few seconds when it does not; or until a second signal. Writing to a
//! file waits for nobody: a run that does may stand still for as long as a disk may need.

use std::{
    process::{self, Command},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use crate::{exit::say, launch::Launcher};

/// How long a run that was told to stop may stand still,
const PATIENCE: Duration = Duration::from_secs(3);
/// and how long while it writes to files. A recorder ends well before.
const PATIENCE_WITH_FILES: Duration = Duration::from_mins(1);
/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Signals this close to the first are the same as the first.
const SAME_WISH: Duration = Duration::from_millis(500);
const COULD_NOT_FINISH: i32 = 2;

/// Told once, when it is time.
pub struct Stop {
    told: oneshot::Receiver<()>,
    alarm: Sender<()>,
    flag: Arc<AtomicBool>,
    /// The run has written all it had.
    over: Arc<AtomicBool>,
    /// Files that the run still writes to.
    files: Arc<AtomicUsize>,
}

/// While it is there, the run writes to a file, and is given the time for it.
pub struct WritesFile(Arc<AtomicUsize>);

impl Drop for WritesFile {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// Signals that wait for somebody who minds them.
pub struct Held(SigSet);

impl Held {
    /// Takes SIGINT, SIGTERM and SIGHUP over from here on. Call it before other threads start.
    pub fn new() -> Result<Self> {
        block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]).map(Self)
    }

    /// Stops at a signal, also at one that came before.
    pub fn stop(self) -> Stop {
        let stop = Stop::when_told();
        let alarm = stop.alarm();
        thread::spawn(move || while self.0.wait().is_ok() && alarm.send(()).is_ok() {});
        stop
    }
}

impl Stop {
    /// Stops at a signal from here on. Call it before other threads start.
    pub fn on_signal() -> Result<Self> {
        Held::new().map(Held::stop)
    }

    /// Stops when the alarm is rung, and only then.
    pub fn when_told() -> Self {
        let (alarm, rung) = channel();
        let (tell, told) = oneshot::channel();
        let flag = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&flag);
        let over = Arc::new(AtomicBool::new(false));
        let files = Arc::new(AtomicUsize::new(0));
        let ending = Ending {
            rung,
            over: Arc::clone(&over),
            files: Arc::clone(&files),
            progress: &STEPS,
            patience: PATIENCE,
            patience_with_files: PATIENCE_WITH_FILES,
        };
        thread::spawn(move || {
            if ending.rung.recv().is_err() {
                return;
            }
            raised.store(true, Ordering::Release);
            if tell.send(()).is_ok() {
                ending.wait();
            }
        });
        Self { told, alarm, flag, over, files }
    }

    /// Gives the run more time to end, for as long as what is returned is kept: it writes to a file.
    #[must_use]
    pub fn writes_file(&self) -> WritesFile {
        self.files.fetch_add(1, Ordering::AcqRel);
        WritesFile(Arc::clone(&self.files))
    }

    /// What to ring.
    pub fn alarm(&self) -> Sender<()> {
        self.alarm.clone()
    }

    /// Raised when it is time, for whoever else has to end.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Stops after this time, too.
    pub fn after(&self, duration: Duration) {
        let alarm = self.alarm();
        thread::spawn(move || {
            thread::sleep(duration);
            let _ = alarm.send(());
        });
    }

    /// Whether it is time to stop.
    pub fn is_wanted(&mut self) -> bool {
        self.told.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }

    /// Returns when it is time to stop.
    pub async fn wanted(&mut self) {
        let _ = (&mut self.told).await;
    }
}

/// A run that was told to stop, and has not ended yet.
struct Ending {
    rung: Receiver<()>,
    over: Arc<AtomicBool>,
    files: Arc<AtomicUsize>,
    progress: &'static AtomicU64,
    /// How long it may stand still, and while it writes to files.
    patience: Duration,
    patience_with_files: Duration,
}

impl Ending {
    /// Returns when the run has ended; ends it when it takes too long, or at a second signal.
    fn wait(self) {
        // What comes at once is the same wish: timeout(1) sends its signal twice.
        thread::sleep(SAME_WISH);
        while self.rung.try_recv().is_ok() {}
        let Some(why) = self.too_long() else { return };
        say(&format!("tcpwatch: error: {why}"));
        give_up();
    }

    /// Why the run must not go on; `None` if it has ended.
    fn too_long(self) -> Option<String> {
        let (mut steps, mut stood) = (self.progress.load(Ordering::Relaxed), Duration::ZERO);
        loop {
            let over = self.over.load(Ordering::Acquire);
            let writes = self.files.load(Ordering::Acquire) > 0;
            // What is still done when the output is complete has a limit of its own.
            let rung = if over {
                self.rung.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.rung.recv_timeout(TICK)
            };
            match rung {
                // Nobody is left who could ring: the run has ended.
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(()) if over => {
                    return Some("told to stop at once; what was not handed on is lost".to_owned());
                }
                Ok(()) => return Some(format!("told to stop at once; {}", unwritten())),
                Err(RecvTimeoutError::Timeout) => stood += TICK,
            }
            let now = self.progress.load(Ordering::Relaxed);
            if std::mem::replace(&mut steps, now) != now {
                stood = Duration::ZERO;
            }
            if stood >= if writes { self.patience_with_files } else { self.patience } {
                return Some(unwritten());
            }
        }
    }
}

/// Hands signals on to a command.
pub struct Forwarder {
    blocked: SigSet,
    signals: SignalFd,
}

impl Forwarder {
    /// Takes over the signals that people send to commands. Call it before other threads start.
    pub fn take_over() -> Result<Self> {
        let blocked = block(&[
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ])?;
        let signals = SignalFd::with_flags(&blocked, SfdFlags::SFD_CLOEXEC);
        Ok(Self { blocked, signals: signals.context("take over signals")? })
    }

    /// What will start the command, as it must be started before privileges are given up.
    pub fn launcher(&self, command: Command) -> Launcher {
        Launcher::new(command, self.blocked)
    }

    /// Hands on what comes from now on, and what has come since. What the terminal sends (`^C`)
    /// reaches the command by itself, as it is in the same process group.
    pub fn forward_to(self, pid: u32) -> Result<()> {
        const BY_KERNEL: i32 = 0x80; // SI_KERNEL
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid is positive")?;
        let command = pidfd_open(raw, PidfdFlags::empty()).context("watch the command")?;
        thread::spawn(move || {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
                if let Some(number) = rustix::process::Signal::from_named_raw(number)
                    && signal.ssi_code != BY_KERNEL
                {
                    let _ = pidfd_send_signal(&command, number);
                }
            }
        });
        Ok(())
    }
}

fn block(signals: &[Signal]) -> Result<SigSet> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block().context("take over signals")?;
    Ok(set)
}

/// What this process has got done: it stands still when the run does.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Notes that the run gets on: something was taken in, concluded from, or written.
pub fn got_on() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// Says what is not written, and why.
type Unwritten = Box<dyn Fn() -> String + Send>;
static UNWRITTEN: Mutex<Option<Unwritten>> = Mutex::new(None);

/// Has this asked what is lost if the process is ended before it has finished.
pub fn ask_what_is_unwritten(ask: impl Fn() -> String + Send + 'static) {
    *UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ask));
}

fn unwritten() -> String {
    let ask = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    ask.as_ref().map_or_else(|| "what was not written is lost".to_owned(), |ask| ask())
}

/// What must be put right even if the process ends without having finished.
static AT_LEAST: OnceLock<fn()> = OnceLock::new();

/// Has this done before a process that cannot finish is ended; only the first counts.
pub fn at_least(put_right: fn()) {
    let _ = AT_LEAST.set(put_right);
}

#[expect(clippy::exit, reason = "the main thread is stuck in a write and cannot return")]
fn give_up() {
    if let Some(put_right) = AT_LEAST.get() {
        put_right();
    }
    process::exit(COULD_NOT_FINISH);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that has a tick to end, and twenty while it writes to files; what rings it, and its files.
    fn ending(progress: &'static AtomicU64) -> (Ending, Sender<()>, Arc<AtomicUsize>) {
        let (alarm, rung) = channel();
        let files = Arc::new(AtomicUsize::new(0));
        let ending = Ending {
            rung,
            over: Arc::default(),
            files: Arc::clone(&files),
            progress,
            patience: TICK,
            patience_with_files: TICK * 20,
        };
        (ending, alarm, files)
    }

    #[test]
    fn who_writes_files_has_longer_than_who_waits_for_a_reader() {
        static STOOD: AtomicU64 = AtomicU64::new(0);
        let (waits, _alarm, _) = ending(&STOOD);
        assert!(waits.too_long().unwrap().contains("what was not written is lost"));
        let (ending, alarm, files) = ending(&STOOD);
        files.store(1, Ordering::Release);
        let waiting = thread::spawn(|| ending.too_long());
        thread::sleep(TICK * 4);
        assert!(!waiting.is_finished(), "it has not had its time");
        drop(alarm);
        assert_eq!(waiting.join().unwrap(), None, "it has ended by itself");
    }

    #[test]
    fn a_file_that_is_never_complete_ends_too() {
        static STOOD: AtomicU64 = AtomicU64::new(0);
        let (ending, _alarm, files) = ending(&STOOD);
        files.store(1, Ordering::Release);
        assert!(ending.too_long().is_some());
    }

    #[test]
    fn who_makes_progress_is_waited_for() {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        let (ending, alarm, _) = ending(&STEPS);
        let ending = Ending { patience: TICK * 4, ..ending };
        let waiting = thread::spawn(|| ending.too_long());
        for _ in 0..10 {
            thread::sleep(TICK);
            STEPS.fetch_add(1, Ordering::Relaxed);
        }
        drop(alarm);
        assert_eq!(waiting.join().unwrap(), None, "it was ended while it made progress");
    }
}
