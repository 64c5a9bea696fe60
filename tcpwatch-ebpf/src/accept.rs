//! The exact acceptor, where the kernel allows trampolines.
//!
//! `inet_csk_accept` runs in the accepting task and returns the child. Its parameters changed in
//! 6.10 (net/ipv4/inet_connection_sock.c), and the return value sits behind them, so there are
//! two programs of which the agent loads the one that fits.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use tcpwatch_common::how;

use crate::{
    kernel::{Ptr, current},
    maps::remembered,
};

#[fexit(function = "inet_csk_accept")]
pub fn accept2(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(2))
}

#[fexit(function = "inet_csk_accept")]
pub fn accept4(ctx: FExitContext) -> i32 {
    accepted(ctx.arg(4))
}

#[inline(always)]
fn accepted(child: Ptr) -> i32 {
    if child.is_null() {
        return 0;
    }
    if let (Some(known), Some(process)) = (remembered(child), current()) {
        known.identify(child);
        known.owner_how = how::ACCEPT;
        known.owner_pid = process.pid;
        known.owner_comm = process.comm;
    }
    0
}
