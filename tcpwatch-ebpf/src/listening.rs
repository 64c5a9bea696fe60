//! MPTCP listeners.
//!
//! A connection comes in through a path's listener, which the application never sees and which is not shown;
//! the application's own socket listens on top of it (net/mptcp/protocol.c: mptcp_listen). What leads from
//! one to the other in the kernel has no type that the verifier knows. But the same thread makes them listen
//! one after the other, so the path's listener gets the id of the application's, and its children name that.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tcpwatch_common::state::{CLOSE, LISTEN};

use crate::{
    kernel::Ptr,
    maps::{LISTENING, Remembered},
    socket,
};

/// Notes that a listener comes, goes or stays.
#[inline(never)]
pub fn note(sk: Ptr, known: &mut Remembered, old: u32, new: u32) {
    let tcp = socket::tcp_sock(sk);
    let thread = bpf_get_current_pid_tgid();
    if tcp.is_null() {
        if old == CLOSE && new == LISTEN {
            // Without room the path's listener keeps an id of its own.
            let _ = LISTENING.insert(thread, known.id, 0);
        } else {
            let _ = LISTENING.remove(thread);
        }
    } else if old == CLOSE
        && new == LISTEN
        && socket::is_subflow(tcp)
        && let Some(id) = LISTENING.get_ptr(thread)
    {
        known.id = unsafe { *id };
    }
}
