//! Children of followed processes are followed, from before they run.
//!
//! The tracepoint fires in the parent, before the child is woken (kernel/fork.c: kernel_clone), so
//! no socket of the child can come before it.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcpwatch_common::{Counter, Field, Setting};

use crate::{
    filter::is_watched,
    kernel::{Ptr, load, setting},
    maps::{PIDS, count},
};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(1));
    let from: u32 = load(parent, Field::TaskTgid);
    let pid: u32 = load(child, Field::TaskTgid);
    let is_thread = pid == from;
    if is_thread || from != setting(Setting::FollowFrom) && !is_watched(from) {
        return 0;
    }
    if PIDS.insert(pid, 1, 0).is_err() {
        count(Counter::Unfollowed);
    }
    0
}
