//! What no program of a tracer sees: transitions in a softirq on top of a thread of process 1, where this kernel
//! runs no BPF program on some machines. The kernel's own trace counts them.

use anyhow::{Result, ensure};

use crate::difftest::trace::{Trace, threads_of_init};

/// Counts them while it is there.
pub(super) struct Hidden(Trace);

impl Hidden {
    pub(super) fn start() -> Result<Self> {
        let threads: Vec<String> =
            threads_of_init().into_iter().map(|tid| format!("common_pid=={tid}")).collect();
        ensure!(!threads.is_empty(), "process 1 has no threads");
        // Loads are on loopback; what process 1 does with the world is its own affair.
        Ok(Self(Trace::start(&threads.join("||"), |event| event.remote.is_loopback())?))
    }

    /// How many there were.
    pub(super) fn stop(self) -> Result<u64> {
        let (events, dropped) = self.0.stop()?;
        ensure!(dropped == 0, "the kernel's trace has dropped {dropped} events");
        Ok(events.len() as u64)
    }
}
