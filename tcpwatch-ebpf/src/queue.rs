//! Connections that nobody has accepted: they have no descriptor, and the only way to them, and to
//! the listener they wait at, is the listener's queue.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use tcpwatch_common::{Field, MOST_QUEUED, Setting, flag};

use crate::{
    kernel::{Ptr, address, has, load, read, setting},
    maps::{Remembered, remembered},
    socket, waiters,
};

/// Where a walk along a queue stands, and what it does with each connection that it finds.
struct Walk<F> {
    request: Ptr,
    port: u16,
    listener: u64,
    found: F,
}

/// Notes of each of the first connections in the queue of a listener where it waits, and hands it to `found`:
/// of at most so many, and of fewer where they are found in another way. The
/// queue is read without its lock; a request that leaves it meanwhile may lead astray, so a connection
/// counts only while it is on the listener's port and nobody has it.
#[inline(always)]
pub fn mark<F: Fn(Ptr, &Remembered)>(listener: &Remembered, tcp: Ptr, most: u32, found: F) {
    if !waiters::readable()
        || !has(Field::AcceptQueue)
        || !has(Field::RequestSock)
        || !has(Field::RequestNext)
    {
        return;
    }
    let port = load(tcp, Field::LocalPort);
    let request = load(tcp, Field::AcceptQueue);
    let mut walk = Walk { request, port, listener: listener.id, found };
    if setting(Setting::EmitQueued) != 0 {
        // Unrolled, the verifier would take a million instructions for it. This helper is younger (5.17) than
        // the oldest kernel, but older than those that need it.
        let most = if setting(Setting::LookOnly) != 0 { most.min(MOST_QUEUED) } else { most };
        unsafe { bpf_loop(most, place::<F> as *mut c_void, (&raw mut walk).cast(), 0) };
        return;
    }
    for place in 0..MOST_QUEUED {
        if place >= most || step(&mut walk) {
            break;
        }
    }
}

/// [`step`] for `bpf_loop`.
unsafe extern "C" fn place<F: Fn(Ptr, &Remembered)>(_place: u32, walk: *mut Walk<F>) -> i64 {
    i64::from(step(unsafe { &mut *walk }))
}

/// Goes one place on; says whether the queue has ended.
#[inline(always)]
fn step<F: Fn(Ptr, &Remembered)>(walk: &mut Walk<F>) -> bool {
    let request = walk.request;
    if request.is_null() {
        return true;
    }
    let child: Ptr = load(request, Field::RequestSock);
    walk.request = load(request, Field::RequestNext);
    if !child.is_null()
        && read::<u16>(address(child, Field::LocalPort) as u64) == walk.port
        && read::<u64>(address(child, Field::SocketOfSock) as u64) == 0
        && let Some(known) = remembered(child)
    {
        if setting(Setting::LookOnly) != 0 {
            known.id = socket::cookie(child);
        } else {
            known.identify(child);
        }
        known.listener = walk.listener;
        known.flags |= flag::PASSIVE;
        (walk.found)(child, known);
    }
    false
}
