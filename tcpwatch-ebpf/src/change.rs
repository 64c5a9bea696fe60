//! The kinds of changes, where the kernel program finds them.

use tcpwatch_common::change;

use crate::kernel::masked;

/// The table, in this object.
static KINDS: [u8; change::KINDS.len()] = change::KINDS;

/// The bits of a change (`tcpwatch_common::change`).
#[inline(always)]
pub fn kind(old: u32, new: u32) -> u8 {
    let at = masked::<255>(((old & 15) << 4 | new & 15) as usize);
    // Volatile: the compiler would turn the table back into branches.
    unsafe { core::ptr::read_volatile((&raw const KINDS).cast::<u8>().add(at)) }
}
