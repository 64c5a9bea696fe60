//! What `/proc` says of a process and of namespaces: evidence for findings.
//!
//! Only what is due is asked, and what may not be read stays unknown.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use procfs::process::{LimitValue, Process, Task};

use super::{
    clock,
    pods::Pods,
    processes::{has_ended, sees_all_pids, start_time},
};
use crate::core::{
    comm::escape,
    container::Container,
    process::{ProcessFacts, Threads},
    time::Nanos,
};

/// Threads looked at; more are counted only. A look takes about 20 us.
const MOST_THREADS: usize = 512;

/// What came of asking a process.
#[derive(Debug)]
pub enum Answer {
    /// The process lives.
    Said(Arc<ProcessFacts>),
    /// The process with this id has ended.
    Gone(u32),
}

/// Asks one process; `None` if it may not be read, or if `/proc` has other pids than the kernel
/// program.
fn ask(pid: u32, kubernetes: &Pods) -> Option<Answer> {
    if !sees_all_pids() {
        return None;
    }
    let facts = process(pid, kubernetes);
    // Afterwards: a process that has ended may have been read half.
    if has_ended(pid) {
        Some(Answer::Gone(pid))
    } else {
        facts.map(|facts| Answer::Said(facts.into()))
    }
}

/// One look at a process; `None` if it cannot be read.
fn process(pid: u32, kubernetes: &Pods) -> Option<ProcessFacts> {
    let at = clock::mark();
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let (raw_cgroup, stat) = (cgroup(pid), process.stat().ok());
    let (threads, threads_unseen) = threads(&process);
    Some(ProcessFacts {
        pid,
        at: at.mono,
        started: stat.as_ref().map(|stat| start_time(&at, stat.starttime)),
        cgroup: raw_cgroup.as_deref().map(|path| escape(path.as_bytes())),
        container: raw_cgroup
            .as_deref()
            .and_then(Container::from_cgroup)
            .map(|container| kubernetes.named(container)),
        // A main thread that has ended shows none, though others may have some.
        fds: fds(pid).filter(|_| stat.as_ref().is_none_or(|stat| stat.state != 'Z')),
        fd_limit: limit(&process),
        frozen: raw_cgroup.as_deref().is_some_and(is_frozen),
        threads,
        threads_unseen,
    })
}

/// Asks as many of these as there is time for, the first ones first. A process without an answer was
/// not asked, or may not be read.
pub fn processes(pids: &[u32]) -> Vec<Answer> {
    const PATIENCE: Nanos = Nanos(250_000_000);
    let (began, kubernetes) = (clock::now(), Pods::here());
    pids.iter()
        .take_while(|_| clock::now().since(began) < PATIENCE)
        .filter_map(|&pid| ask(pid, &kubernetes))
        .collect()
}

/// Open descriptors. Since 6.2 the size of the directory says it (`fs/proc/fd.c`:
/// `proc_fd_getattr`); before, it is 0.
fn fds(pid: u32) -> Option<u64> {
    let dir = format!("/proc/{pid}/fd");
    match fs::metadata(&dir).ok()?.len() {
        0 => fs::read_dir(&dir).ok()?.count().try_into().ok(),
        size => Some(size),
    }
}

fn limit(process: &Process) -> Option<u64> {
    match process.limits().ok()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => Some(limit),
        LimitValue::Unlimited => None,
    }
}

/// The path in the unified hierarchy; where there is none, in systemd's.
fn cgroup(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let path = |prefix: &str| text.lines().find_map(|line| Some(line.split_once(prefix)?.1));
    let unified = path("0::").filter(|path| *path != "/");
    unified.or_else(|| path(":name=systemd:")).or_else(|| path("0::")).map(str::to_owned)
}

/// Whether a cgroup of the unified hierarchy is frozen; that is mounted in one of two places.
fn is_frozen(path: &str) -> bool {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().any(|root| {
        fs::read_to_string(format!("{root}{path}/cgroup.events"))
            .is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
    })
}

/// Threads grouped by what they do, the most common first, and how many were not looked at.
fn threads(process: &Process) -> (Vec<Threads>, u64) {
    let Ok(tasks) = process.tasks() else { return (Vec::new(), 0) };
    let mut groups: BTreeMap<(char, Option<String>), u64> = BTreeMap::new();
    let mut unseen = 0;
    for (number, task) in tasks.flatten().enumerate() {
        if number >= MOST_THREADS {
            unseen += 1;
        } else if let Ok(stat) = task.stat() {
            let wait = wait(&task).filter(|_| stat.state != 'R');
            *groups.entry((stat.state, wait)).or_default() += 1;
        }
    }
    let mut threads: Vec<_> =
        groups.into_iter().map(|((state, wait), count)| Threads { count, state, wait }).collect();
    threads.sort_by_key(|threads| std::cmp::Reverse(threads.count));
    (threads, unseen)
}

/// The kernel function a thread waits in; `0` means that we may not know, or that there is none.
fn wait(task: &Task) -> Option<String> {
    let path = format!("/proc/{}/task/{}/wchan", task.pid, task.tid);
    let text = fs::read_to_string(path).ok()?;
    (!text.is_empty() && text != "0").then_some(text)
}

/// The inode of the first network namespace since Linux 6.18 (`include/uapi/linux/nsfs.h`:
/// `NET_NS_INIT_INO`). Others begin above it (`fs/proc/generic.c`: `PROC_DYNAMIC_FIRST`).
const FIRST_NAMESPACE: u32 = 0xefff_fff9;

/// What names network namespaces and keeps them.
pub(super) fn namespace_files() -> impl Iterator<Item = PathBuf> {
    let dirs = ["/run/docker/netns", "/run/netns"].into_iter().flat_map(fs::read_dir);
    dirs.flatten().flatten().map(|entry| entry.path())
}

/// Network namespaces that have a name: the host's, and those of `ip netns` and Docker. One may have
/// several; the last is the one to show.
pub fn namespaces() -> Vec<(u32, Arc<str>)> {
    let inode = |path: &Path| u32::try_from(fs::metadata(path).ok()?.ino()).ok();
    let mut named = Vec::new();
    for path in namespace_files() {
        if let (Some(inode), Some(name)) = (inode(&path), path.file_name()) {
            named.push((inode, Arc::from(escape(name.as_encoded_bytes()))));
        }
    }
    // Without CAP_SYS_PTRACE the link of another user's process cannot be followed.
    let of_init = sees_all_pids().then(|| inode(Path::new("/proc/1/ns/net"))).flatten();
    named.push((of_init.unwrap_or(FIRST_NAMESPACE), Arc::from("host")));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Namespaces that are not the first get inodes from this on (`fs/proc/generic.c`).
    const PROC_DYNAMIC_FIRST: u64 = 0xf000_0000;

    #[test]
    fn the_first_namespace_has_a_number_of_its_own() {
        let Ok(of_init) = fs::metadata("/proc/1/ns/net").map(|file| file.ino()) else { return };
        // Before Linux 6.18 it has one like any other.
        assert!(
            of_init == u64::from(FIRST_NAMESPACE) || of_init >= PROC_DYNAMIC_FIRST,
            "{of_init}"
        );
        assert!(namespaces().iter().any(|(_, name)| &**name == "host"));
    }
}
