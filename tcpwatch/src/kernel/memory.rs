//! What the agent holds: reading the kernel's types takes tens of megabytes, once.

use super::sys;

/// Gives memory that is not needed any more back to the host. Worth its millisecond after much was
/// freed.
pub fn give_back() {
    sys::trim();
}

/// Bytes of memory that this process has; `None` where `/proc` does not say.
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}
