//! Processes: whether they live, and word when they end.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::fd::OwnedFd,
    process::Command,
};

use nix::sys::signal::SigSet;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit},
};

use super::{clock, sys};
use crate::core::{
    time::{ClockMark, Timestamp},
    unseen::Unseen,
};

/// Why a pid cannot be watched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PidError {
    /// Nothing has that id.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// It is a thread's id.
    #[error("{tid} is a thread of process {pid}; use --pid {pid}")]
    Thread {
        /// What was given.
        tid: u32,
        /// Its process.
        pid: u32,
    },
    /// It is a thread's id, of a process that is hidden from us.
    #[error(
        "{0} is the id of a thread, not of a process (which process, /proc does not show here: hidepid)"
    )]
    HiddenThread(u32),
    /// Pids here are not the host's.
    #[error(
        "process ids are those of the host, and this is a pid namespace of its own; run tcpwatch in the host's (docker run --pid=host, hostPID: true)"
    )]
    Namespace,
    /// What processes there are cannot be read.
    #[error(
        "/proc is not mounted here: tcpwatch reads there what processes and namespaces there are; as root: mount -t proc proc /proc"
    )]
    NoProc,
    /// It has ended already and waits for its parent.
    #[error("process {0} has ended (it is a zombie)")]
    Zombie(u32),
}

/// Whether the pids that the kernel program reports are the pids of this process's own `/proc`.
/// The initial namespace's inode is fixed (`include/linux/proc_ns.h`: `PROC_PID_INIT_INO`).
pub fn sees_all_pids() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const PROC_PID_INIT_INO: u64 = 0xefff_fffc;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|file| file.ino() == PROC_PID_INIT_INO)
}

/// Fails where `/proc` does not have the pids that the kernel program reports.
pub fn require_all_pids() -> Result<(), PidError> {
    require_proc()?;
    if sees_all_pids() { Ok(()) } else { Err(PidError::Namespace) }
}

/// Fails where `/proc` is not mounted.
pub fn require_proc() -> Result<(), PidError> {
    let mounted = fs::exists("/proc/self/ns").unwrap_or(false);
    if mounted { Ok(()) } else { Err(PidError::NoProc) }
}

/// Says so where a pid namespace hides processes: the iterator over files walks only the reader's
/// own (`kernel/bpf/task_iter.c`: `task_seq_get_next`).
pub fn warn_if_blind() {
    if !sees_all_pids() {
        log::warn!("this is a pid namespace of its own; not seen are {}", Unseen::Processes);
    }
}

/// Checks that a pid names a live process of this pid namespace. A pidfd tells that also where
/// `/proc` is mounted with `hidepid`.
pub fn check(pid: u32) -> Result<(), PidError> {
    require_all_pids()?;
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) {
        // The main thread may have ended while others live on; then this has not.
        Some(Ok(fd)) if is_over(&fd) => Err(PidError::Zombie(pid)),
        // A thread's id is refused with EINVAL, since 6.13 with ENOENT (`kernel/pid.c`:
        // `pidfd_prepare`).
        Some(Err(Errno::INVAL | Errno::NOENT)) => match process_of(pid) {
            Some(of) if of != pid => Err(PidError::Thread { tid: pid, pid: of }),
            _ => Err(PidError::HiddenThread(pid)),
        },
        Some(Err(Errno::SRCH)) | None => Err(PidError::NoProcess(pid)),
        Some(_) => Ok(()),
    }
}

/// The process that a thread belongs to, if `/proc` shows it.
fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let of = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    of.trim().parse().ok()
}

/// Whether a pidfd is readable: also a zombie has ended.
fn is_over(fd: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Whether no process has this id any more, or only a zombie that waits for its parent.
pub fn has_ended(pid: u32) -> bool {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) {
        Some(Ok(fd)) => is_over(&fd),
        Some(Err(error)) => error == Errno::SRCH,
        None => true,
    }
}

/// When a process was forked, if `/proc` says it.
fn started(pid: u32) -> Option<Timestamp> {
    let mark = clock::mark();
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    Some(start_time(&mark, process.stat().ok()?.starttime))
}

/// The start is told in ticks of the clock that goes on in suspend.
pub(super) fn start_time(mark: &ClockMark, ticks: u64) -> Timestamp {
    const NS: u64 = 1_000_000_000;
    let boot_ns = ticks.saturating_mul(NS / procfs::ticks_per_second().max(1));
    let slept = mark.boot.since(mark.mono).0;
    Timestamp(boot_ns.saturating_sub(slept))
}

/// Has a command begin with nothing blocked of what is blocked here.
pub fn unblock_in(command: &mut Command, blocked: SigSet) {
    sys::unblock_in(command, blocked);
}

/// Takes as many descriptors as this process may have.
pub fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it may not, what there is must do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Descriptors of processes, which become readable when the process ends. An entry leaves with its
/// process.
#[derive(Default)]
pub struct Watch {
    alive: HashMap<u32, OwnedFd>,
    /// Those for which there was no descriptor left; they are asked for again each time.
    without: BTreeSet<u32>,
}

impl Watch {
    /// Watches the process that had this id at that time. False if it has ended already: whoever has
    /// its id now may be somebody else.
    pub fn add(&mut self, pid: u32, named: Timestamp) -> bool {
        if self.alive.contains_key(&pid) || self.without.contains(&pid) || !sees_all_pids() {
            return true;
        }
        let lives = self.open(pid);
        // Its descriptor is open: whose start this is does not change any more.
        let is_other = lives && started(pid).is_some_and(|started| started > named);
        if is_other {
            self.alive.remove(&pid);
            self.without.remove(&pid);
        }
        lives && !is_other
    }

    /// Opens a descriptor, unless there is none left. False if the process has ended.
    fn open(&mut self, pid: u32) -> bool {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match raw.map(|raw| pidfd_open(raw, PidfdFlags::empty())) {
            Some(Ok(fd)) => {
                let lives = !is_over(&fd);
                if lives {
                    self.alive.insert(pid, fd);
                }
                lives
            }
            Some(Err(Errno::SRCH)) | None => false,
            Some(Err(_)) => {
                self.without.insert(pid);
                true
            }
        }
    }

    /// Whether any is watched and alive.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Whether this one is watched and alive.
    pub fn contains(&self, pid: u32) -> bool {
        self.alive.contains_key(&pid)
    }

    /// Those that have ended since the last call.
    pub fn ended(&mut self) -> Vec<u32> {
        let mut ended: Vec<u32> = std::mem::take(&mut self.without).into_iter().collect();
        ended.retain(|&pid| !self.open(pid));
        if self.alive.is_empty() {
            return ended;
        }
        let pids: Vec<u32> = self.alive.keys().copied().collect();
        let mut fds: Vec<_> =
            self.alive.values().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&at_once)).is_err() {
            return ended;
        }
        let ready = pids.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        ended.extend(ready.map(|(pid, _)| pid));
        drop(fds);
        ended.sort_unstable();
        for pid in &ended {
            self.alive.remove(pid);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its id was named before it was forked: that was another process.
    #[test]
    fn who_is_younger_than_the_word_of_it_is_somebody_else() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut watch = Watch::default();
        let forked = started(child.id()).unwrap();
        assert!(forked <= clock::now());
        if sees_all_pids() {
            assert!(!watch.add(child.id(), Timestamp(forked.0 - 1_000_000)));
            assert!(watch.is_empty());
        }
        assert!(watch.add(child.id(), clock::now()));
        child.kill().unwrap();
        child.wait().unwrap();
        if sees_all_pids() {
            assert!(!Watch::default().add(child.id(), clock::now()));
            assert_eq!(watch.ended(), [child.id()]);
        }
    }
}
