//! What tcpwatch needs to be allowed, said before the kernel says `EPERM`.

use anyhow::{Result, bail};
use rustix::thread::{CapabilitySet, capabilities};

use super::{clock, processes};
use crate::core::comm::shown;

/// A capability and what it is for.
pub struct Needed {
    /// Which.
    pub capability: CapabilitySet,
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub purpose: &'static str,
}

/// Without these nothing works.
pub const NEEDED: [Needed; 2] = [
    Needed { capability: CapabilitySet::BPF, name: "CAP_BPF", purpose: "load the kernel program" },
    Needed {
        capability: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "attach it to a tracepoint",
    },
];

/// Without these something stays unknown, and nothing is wrong.
pub const USEFUL: [Needed; 3] = [
    Needed {
        capability: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        purpose: "see what threads of other users' processes wait in, and which network namespace is the host's",
    },
    Needed {
        capability: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "count descriptors of other users' processes before Linux 6.2",
    },
    Needed {
        capability: CapabilitySet::SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        purpose: "find TIME_WAIT, orphans and long accept queues in other network namespaces",
    },
];

/// Whether this thread has a capability; `CAP_SYS_ADMIN` stands for those that BPF takes.
pub fn has(capability: CapabilitySet) -> bool {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let stands_for = CapabilitySet::BPF | CapabilitySet::PERFMON;
    effective.contains(capability)
        || stands_for.contains(capability) && effective.contains(CapabilitySet::SYS_ADMIN)
}

/// Fails if something is missing, and says what cannot be seen from here.
pub fn require() -> Result<()> {
    if let Some(missing) = missing() {
        bail!(missing);
    }
    processes::require_proc()?;
    if clock::is_shifted() {
        bail!(
            "this is a time namespace of its own: its clocks are not the kernel's; run tcpwatch in the host's"
        );
    }
    processes::warn_if_blind();
    Ok(())
}

/// What is missing, as one message, or `None`.
pub fn missing() -> Option<String> {
    let missing: Vec<_> = NEEDED.iter().filter(|needed| !has(needed.capability)).collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<_> = missing.iter().map(|needed| needed.name).collect();
    let purposes: Vec<_> = missing.iter().map(|needed| needed.purpose).collect();
    let program =
        std::env::current_exe().map_or_else(|_| "tcpwatch".to_owned(), |path| shown(&path));
    Some(format!(
        "missing {} (to {})\nhint: run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon=ep {program}",
        names.join(" and "),
        purposes.join(" and to "),
    ))
}
