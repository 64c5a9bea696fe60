//! Starts a command with all that tcpwatch was started with, and tcpwatch has given up itself.

use std::{
    io,
    process::{Child, Command},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::sys::signal::SigSet;

use crate::kernel::processes::unblock_in;

/// A thread that keeps the privileges of the moment when it began, and ends when it has started
/// the command.
pub struct Launcher {
    go: Sender<()>,
    thread: JoinHandle<io::Result<Child>>,
}

impl Launcher {
    /// Gets ready. `blocked` are signals that were taken over, which the command shall get.
    pub fn new(mut command: Command, blocked: SigSet) -> Self {
        let (go, told) = channel();
        let thread = thread::spawn(move || {
            told.recv().map_err(io::Error::other)?;
            // No thread here ever unblocks what was taken over, or a signal in that moment would end the
            // run and not reach the command.
            unblock_in(&mut command, blocked);
            command.spawn()
        });
        Self { go, thread }
    }

    /// Starts the command.
    pub fn launch(self) -> io::Result<Child> {
        self.go.send(()).map_err(io::Error::other)?;
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }
}
