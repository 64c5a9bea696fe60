//! When to stop: a signal, or the end of the time.
//!
//! Threads of their own wait, so that a run whose output nobody takes can still be ended: it gets
//! [`PATIENCE`] to finish, or until a second signal.

use std::{
    process,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::oneshot;

use crate::exit::say;

/// How long a run may take to write what is left after it was told to stop.
const PATIENCE: Duration = Duration::from_secs(3);
const COULD_NOT_FINISH: i32 = 2;

/// Told once, when it is time.
pub(crate) struct Stop {
    told: oneshot::Receiver<()>,
    alarm: Sender<()>,
}

impl Stop {
    /// Takes SIGINT, SIGTERM and SIGHUP over from here on. Call it before other threads start.
    pub(crate) fn on_signal() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("take over signals")?;
        let (alarm, rung) = channel();
        let by_signal = alarm.clone();
        thread::spawn(move || while signals.wait().is_ok() && by_signal.send(()).is_ok() {});
        let (tell, told) = oneshot::channel();
        thread::spawn(move || {
            let _ = rung.recv();
            let _ = tell.send(());
            let _ = rung.recv_timeout(PATIENCE);
            say("tcpwatch: error: nobody takes the output; what was not written is lost");
            give_up();
        });
        Ok(Self { told, alarm })
    }

    /// Stops after this time, too.
    pub(crate) fn after(&self, duration: Duration) {
        let alarm = self.alarm.clone();
        thread::spawn(move || {
            thread::sleep(duration);
            let _ = alarm.send(());
        });
    }

    /// Returns when it is time to stop.
    pub(crate) async fn wanted(&mut self) {
        let _ = (&mut self.told).await;
    }
}

#[expect(clippy::exit, reason = "the main thread is stuck in a write and cannot return")]
fn give_up() {
    process::exit(COULD_NOT_FINISH);
}
