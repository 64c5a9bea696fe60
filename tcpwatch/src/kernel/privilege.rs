//! What tcpwatch needs to be allowed, said before the kernel says `EPERM`.

use anyhow::{Result, bail};
use caps::{CapSet, Capability};

use super::{clock, processes};

/// A capability and what it is for.
pub struct Needed {
    /// Which.
    pub capability: Capability,
    /// What for.
    pub purpose: &'static str,
}

/// Without these nothing works.
pub const NEEDED: [Needed; 2] = [
    Needed { capability: Capability::CAP_BPF, purpose: "load the kernel program" },
    Needed { capability: Capability::CAP_PERFMON, purpose: "attach it to a tracepoint" },
];

/// Without these something stays unknown, and nothing is wrong.
pub const USEFUL: [Needed; 2] = [
    Needed {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "see what threads of other users' processes wait in, and their descriptors",
    },
    Needed {
        capability: Capability::CAP_SYS_ADMIN,
        purpose: "count TIME_WAIT and orphans in other network namespaces",
    },
];

/// Whether this process has a capability; `CAP_SYS_ADMIN` stands for those that BPF takes.
pub fn has(capability: Capability) -> bool {
    let effective = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    let stands_for = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
    effective(capability) || stands_for && effective(Capability::CAP_SYS_ADMIN)
}

/// Fails if something is missing, and says what cannot be seen from here.
pub fn require() -> Result<()> {
    if let Some(missing) = missing() {
        bail!(missing);
    }
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
    let names: Vec<_> = missing.iter().map(|needed| needed.capability.to_string()).collect();
    let purposes: Vec<_> = missing.iter().map(|needed| needed.purpose).collect();
    let program = std::env::current_exe()
        .map_or_else(|_| "tcpwatch".to_owned(), |path| path.display().to_string());
    Some(format!(
        "missing {} (to {})\nhint: run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon+ep {program}",
        names.join(" and "),
        purposes.join(" and to "),
    ))
}
