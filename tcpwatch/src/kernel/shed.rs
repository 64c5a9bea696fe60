//! Gives privileges up: what the rest of a run does not need, nobody can misuse.
//!
//! Every verb keeps this order: load and attach, look once, shed, and only then open what the user
//! named, start threads and read what others wrote. Capabilities are those of a thread, which hands
//! them to threads that it starts, so there must be no other by then (but see
//! [`crate::launch::Launcher`]).

use std::{fs, io};

use anyhow::{Context as _, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::privilege::has;

/// For a look: entering network namespaces, and loading what only some looks need.
pub const LOOKING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// For evidence about processes, for as long as a run lasts.
pub fn evidence() -> CapabilitySet {
    // Since 6.2 the size of a process's directory of descriptors says how many there are, to all.
    let told = fs::metadata("/proc/self/fd").is_ok_and(|directory| directory.len() > 0);
    let count = if told { CapabilitySet::empty() } else { CapabilitySet::DAC_READ_SEARCH };
    CapabilitySet::SYS_PTRACE | count
}

/// Gives up everything, for good.
pub fn all() -> Result<()> {
    all_but(CapabilitySet::empty())
}

/// Gives up everything but these, as far as they are there, for good: nothing that is started from
/// here can get more either.
pub fn all_but(kept: CapabilitySet) -> Result<()> {
    shed(kept).context("give privileges up")
}

fn shed(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    if has(CapabilitySet::SETPCAP) {
        for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            match capability_is_in_bounding_set(capability) {
                Ok(true) => remove_capability_from_bounding_set(capability)?,
                Ok(false) => {}
                // This kernel has no more.
                Err(_) => break,
            }
        }
    }
    let had = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: had.effective & kept,
            permitted: had.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Gives up everything but these and what the kernel program's descriptors take: before 5.19 the
/// kernel refuses `bpf` to the unprivileged even on descriptors that they have
/// (`kernel.unprivileged_bpf_disabled`). `works` tries that.
pub fn all_but_working(kept: CapabilitySet, works: impl FnOnce() -> Result<()>) -> Result<()> {
    let had = capabilities(None).context("read capabilities")?;
    let lowered = CapabilitySets { effective: had.effective & kept, ..had };
    set_capabilities(None, lowered).context("give privileges up")?;
    let refused = works().is_err();
    set_capabilities(None, had).context("take privileges back")?;
    let bpf = if had.effective.contains(CapabilitySet::BPF) {
        CapabilitySet::BPF
    } else {
        CapabilitySet::SYS_ADMIN
    };
    all_but(if refused { kept | bpf } else { kept })
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use anyhow::bail;

    use super::*;

    /// What `/proc` says of this thread.
    fn status(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }

    fn in_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(body).join().unwrap()
    }

    #[test]
    fn nothing_is_left() {
        in_thread(|| {
            let bounded = has(CapabilitySet::SETPCAP);
            all().unwrap();
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(status(set), "0000000000000000", "{set}");
            }
            if bounded {
                assert_eq!(status("CapBnd"), "0000000000000000");
            }
            assert_eq!(status("NoNewPrivs"), "1");
        });
    }

    #[test]
    fn only_what_was_there_is_kept() {
        in_thread(|| {
            let there = capabilities(None).unwrap().effective;
            let wanted = CapabilitySet::SYS_PTRACE | CapabilitySet::from_bits_retain(1 << 63);
            all_but(wanted).unwrap();
            let left = capabilities(None).unwrap();
            assert_eq!((left.effective, left.permitted), (there & wanted, there & wanted));
        });
    }

    #[test]
    fn a_kernel_that_refuses_bpf_to_the_unprivileged_leaves_it_to_us() {
        in_thread(|| {
            let there = capabilities(None).unwrap().effective;
            all_but_working(CapabilitySet::SYS_PTRACE, || bail!("EPERM")).unwrap();
            let left = capabilities(None).unwrap().effective;
            let bpf = if there.contains(CapabilitySet::BPF) {
                CapabilitySet::BPF
            } else {
                CapabilitySet::SYS_ADMIN
            };
            assert_eq!(left, there & (CapabilitySet::SYS_PTRACE | bpf));
            all_but_working(CapabilitySet::SYS_PTRACE, || Ok(())).unwrap();
            let left = capabilities(None).unwrap().effective;
            assert_eq!(left, there & CapabilitySet::SYS_PTRACE);
        });
    }
}
