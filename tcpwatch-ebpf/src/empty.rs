//! A program that does nothing: what the kernel takes for calling anything at all. `cargo xtask bench`
//! attaches it, the agent never does.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty(ctx: BtfTracePointContext) -> i32 {
    let _ = ctx;
    0
}
