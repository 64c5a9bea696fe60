//! Processes that the run is about: those named by `--pid`, the descendants of a command, and others whose
//! end matters.

use anyhow::Result;
use rustc_hash::FxHashSet;

use crate::{
    core::{filter::Filter, time::Timestamp, tracker::LAST_WORDS},
    exit::say,
    kernel::{clock, load::Kernel, processes::Watch},
};

pub(super) struct Watched {
    /// Those named by `--pid` that still live.
    targets: Vec<u32>,
    had_targets: bool,
    /// Targets that have ended of late.
    ended: Vec<(Timestamp, u32)>,
    /// Descendants of the command that is run; `None` if none are followed.
    followed: Option<FxHashSet<u32>>,
    processes: Watch,
}

impl Watched {
    pub(super) fn new(filter: &Filter) -> Self {
        let targets: Vec<u32> = filter.pids.iter().copied().collect();
        Self {
            had_targets: !targets.is_empty(),
            targets,
            ended: Vec::new(),
            followed: filter.follow.then(FxHashSet::default),
            processes: Watch::default(),
        }
    }

    /// Waits for the end of the targets from here on.
    pub(super) fn begin(&mut self) {
        self.targets.retain(|&pid| {
            let alive = self.processes.add(pid, clock::now());
            if !alive {
                tell_end(pid);
            }
            alive
        });
    }

    /// Waits for the end of this one, too, which was named at that time; `false` if it has ended.
    pub(super) fn add(&mut self, pid: u32, named: Timestamp) -> bool {
        self.processes.add(pid, named)
    }

    /// There were targets, and none lives.
    pub(super) fn have_ended(&self) -> bool {
        self.had_targets && self.targets.is_empty()
    }

    /// Who has ended since this was last asked.
    pub(super) fn ended(&mut self, now: Timestamp, kernel: &mut Kernel) -> Vec<u32> {
        let ended = self.processes.ended();
        for &pid in &ended {
            if self.targets.contains(&pid) {
                self.targets.retain(|&target| target != pid);
                self.ended.push((now, pid));
                tell_end(pid);
            }
            if let Some(followed) = &mut self.followed {
                followed.remove(&pid);
                kernel.forget(pid);
            }
        }
        // Somebody else may get the id of a process that has ended; the last steps of its sockets come a
        // round trip after its end.
        self.ended.retain(|&(at, pid)| {
            let recent = now.since(at) < LAST_WORDS;
            if !recent {
                kernel.forget(pid);
            }
            recent
        });
        ended
    }

    /// Learns of new descendants; each with whether it still lives.
    pub(super) fn follow(&mut self, kernel: &mut Kernel) -> Result<Vec<(u32, bool)>> {
        let Some(followed) = &mut self.followed else { return Ok(Vec::new()) };
        let mut new = kernel.followed()?;
        new.retain(|&pid| followed.insert(pid));
        let with_life = |pid| {
            let lives = self.processes.add(pid, clock::now());
            if !lives {
                followed.remove(&pid);
                kernel.forget(pid);
            }
            (pid, lives)
        };
        Ok(new.into_iter().map(with_life).collect())
    }

    /// Descendants that live.
    pub(super) fn followed(&self) -> impl Iterator<Item = u32> {
        self.followed.iter().flatten().copied()
    }
}

fn tell_end(pid: u32) {
    say(&format!("tcpwatch: process {pid} has ended"));
}
