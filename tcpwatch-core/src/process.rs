//! What a process says of itself beyond its sockets: evidence, never a verdict of its own.

use std::sync::Arc;

use super::{advice::count, container::Container, time::Timestamp};

/// One look at a process. What could not be read is `None`, never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its id.
    pub pid: u32,
    /// When it was looked at.
    pub at: Timestamp,
    /// When it was forked.
    pub started: Option<Timestamp>,
    /// Its cgroup, as a path below the root of the hierarchy.
    pub cgroup: Option<String>,
    /// The container that the path names.
    pub container: Option<Container>,
    /// Descriptors it has open, of any kind.
    pub fds: Option<u64>,
    /// How many it may have (`RLIMIT_NOFILE`, soft).
    pub fd_limit: Option<u64>,
    /// What its threads do, the most common first.
    pub threads: Vec<Threads>,
    /// Its cgroup is frozen, as by `docker pause`.
    pub frozen: bool,
    /// Threads that were not looked at, because there are so many.
    pub threads_unseen: u64,
}

/// What is known of a process at the end of one scan. A process that could not be asked may live: only
/// one that is known to be gone may be left out of a conclusion.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// The process lives, and these are its facts.
    Known(&'a Arc<ProcessFacts>),
    /// The process ended before it could be asked.
    Gone,
    /// There was no time to ask it, or it may not be read.
    NotAsked,
}

impl Standing<'_> {
    /// When the process was forked; `None` if that is not known.
    pub fn started(&self) -> Option<Timestamp> {
        match self {
            Self::Known(facts) => facts.started,
            Self::Gone | Self::NotAsked => None,
        }
    }
}

/// Threads that do the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threads {
    /// How many.
    pub count: u64,
    /// State letter of `/proc/PID/stat`: `R`, `S`, `D`, `T`, …
    pub state: char,
    /// Kernel function they wait in; `None` if they run, or if it may not be read.
    pub wait: Option<String>,
}

impl ProcessFacts {
    /// Every thread is stopped, by a signal or a debugger.
    pub fn is_stopped(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|t| matches!(t.state, 'T' | 't'))
    }

    /// Why it does not run at all; `None` if it may.
    pub fn halted(&self) -> Option<&'static str> {
        if self.frozen {
            Some("frozen, as by docker pause")
        } else if self.is_stopped() {
            Some("stopped, by a signal or a debugger")
        } else {
            None
        }
    }

    /// Whether a thread sleeps in `epoll_wait` (`fs/eventpoll.c`). `None` if no thread is known to, but
    /// what some wait in is not known.
    pub fn waits_in_epoll(&self) -> Option<bool> {
        let in_epoll = |wait: &String| wait.starts_with("ep_poll") || wait.contains("epoll_wait");
        if self.threads.iter().any(|threads| threads.wait.as_ref().is_some_and(in_epoll)) {
            return Some(true);
        }
        let hidden = |threads: &Threads| threads.wait.is_none() && threads.state == 'S';
        let known = self.threads_unseen == 0
            && !self.threads.is_empty()
            && !self.threads.iter().any(hidden);
        known.then_some(false)
    }

    /// `17 threads: 12 S in futex_do_wait, 5 R`; empty if none were seen.
    pub fn describe_threads(&self) -> String {
        const NAMED: usize = 3;
        let all: u64 =
            self.threads.iter().fold(self.threads_unseen, |all, t| all.saturating_add(t.count));
        let of_one = |t: &Threads| {
            let wait = t.wait.as_ref().map_or_else(String::new, |wait| format!(" in {wait}"));
            format!("{}{wait}", t.state)
        };
        match &self.threads[..] {
            [] => String::new(),
            [only] if all == 1 => format!("its only thread: {}", of_one(only)),
            groups => {
                let mut parts: Vec<_> = groups
                    .iter()
                    .take(NAMED)
                    .map(|t| format!("{} {}", t.count, of_one(t)))
                    .collect();
                let named: u64 =
                    groups.iter().take(NAMED).fold(0, |all: u64, t| all.saturating_add(t.count));
                if named < all {
                    parts.push(count(all - named, "other"));
                }
                format!("{all} threads: {}", parts.join(", "))
            }
        }
    }
}
