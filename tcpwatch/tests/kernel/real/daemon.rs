//! A server program that runs as long as the test.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::ss;

/// A program that listens on a port of loopback; killed with the test.
pub(crate) struct Daemon {
    child: Child,
    pub(super) port: u16,
}

impl Daemon {
    /// Starts a program and waits until it listens on its port.
    pub(crate) fn start<A: AsRef<OsStr>>(port: u16, command: &[A]) -> Self {
        // The kernel kills it when this thread ends, however that comes about.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) is needed");
        let daemon = Self { child, port };
        ss::eventually("it does not listen", || ss::listener(port).is_some().then_some(()));
        daemon
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and waits until every thread has stopped.
    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
        ss::eventually("it does not stop", || self.threads_all_stopped().then_some(()));
    }

    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn threads_all_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks.map(|task| task.unwrap().path().join("status")).all(|status| {
            std::fs::read_to_string(status).is_ok_and(|text| text.contains("State:\tT"))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody else in this namespace uses.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
