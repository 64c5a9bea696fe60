//! tcpwatch's kernel program.
//!
//! It has no opinions: it filters, copies facts, counts what it left out or lost, and stamps
//! when a socket was born and entered its state. Thresholds and conclusions are the agent's.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod accept;
mod change;
mod detail;
mod empty;
mod filter;
mod follow;
mod kernel;
mod listening;
mod maps;
mod pass;
mod queue;
mod socket;
mod tally;
mod transition;
mod waiters;

/// The kernel lends helpers such as `bpf_ktime_get_ns` to GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
