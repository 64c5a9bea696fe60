//! What the agent holds: reading the kernel's types takes tens of megabytes, once.

use super::sys;

/// Gives memory that is not needed any more back to the host. Worth its millisecond after much was
/// freed.
pub fn give_back() {
    sys::trim();
}
