//! When to stop: a signal, the end of the time, or the end of a command that is run.
//!
//! Threads of their own wait, so that a run whose output nobody takes can still be ended: it has as
//! long as it gets on, and a few seconds when it does not; or until a second signal.

use std::{
    process::{self, Command},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
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

/// How long a run that was told to stop may stand still.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);
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
        let is_over = Arc::clone(&over);
        thread::spawn(move || {
            if rung.recv().is_err() {
                return;
            }
            raised.store(true, Ordering::Release);
            if tell.send(()).is_err() {
                return;
            }
            // What comes at once is the same wish: timeout(1) sends its signal twice.
            thread::sleep(SAME_WISH);
            while rung.try_recv().is_ok() {}
            // Nobody is left who could ring: the run has ended.
            let again = wait_while_it_gets_on(&rung, &is_over);
            if again == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            if is_over.load(Ordering::Acquire) {
                say("tcpwatch: error: told to stop at once; what was not handed on is lost");
            } else {
                say(&format!("tcpwatch: error: {}", unwritten()));
            }
            give_up();
        });
        Self { told, alarm, flag, over }
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

/// Waits until somebody rings again, or until the run stands still for too long.
fn wait_while_it_gets_on(
    rung: &Receiver<()>,
    is_over: &AtomicBool,
) -> Result<(), RecvTimeoutError> {
    let (mut steps, mut left) = (STEPS.load(Ordering::Relaxed), PATIENCE);
    loop {
        match rung.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            rung => return rung,
        }
        if is_over.load(Ordering::Acquire) {
            // What is still done has a limit of its own.
            return rung.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let now = STEPS.load(Ordering::Relaxed);
        left = if now == steps { left.saturating_sub(LOOK_EVERY) } else { PATIENCE };
        steps = now;
        if left.is_zero() {
            return Err(RecvTimeoutError::Timeout);
        }
    }
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
