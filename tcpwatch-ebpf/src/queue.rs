//! Connections that nobody has accepted: they have no descriptor, and the only way to them, and to
//! the listener they wait at, is the listener's queue.

use tcpwatch_common::{Field, MOST_EMITTED, MOST_QUEUED, Setting, flag};

use crate::{
    kernel::{Ptr, address, has, load, read, setting},
    maps::{Remembered, remembered},
    socket, waiters,
};

/// Notes of each of the first connections in the queue of a listener where it waits, and hands it to `found`:
/// of at most so many, and of fewer where they are found in another way. The
/// queue is read without its lock; a request that leaves it meanwhile may lead astray, so a connection
/// counts only while it is on the listener's port and nobody has it.
#[inline(always)]
pub fn mark(listener: &Remembered, tcp: Ptr, most: u32, found: impl Fn(Ptr, &Remembered)) {
    if !waiters::readable()
        || !has(Field::AcceptQueue)
        || !has(Field::RequestSock)
        || !has(Field::RequestNext)
    {
        return;
    }
    let port: u16 = load(tcp, Field::LocalPort);
    let mut request: Ptr = load(tcp, Field::AcceptQueue);
    let emits = setting(Setting::EmitQueued) != 0 && setting(Setting::LookOnly) == 0;
    for place in 0..if emits { MOST_EMITTED } else { MOST_QUEUED } {
        if request.is_null() || place >= most {
            break;
        }
        let child: Ptr = load(request, Field::RequestSock);
        request = load(request, Field::RequestNext);
        if !child.is_null()
            && read::<u16>(address(child, Field::LocalPort) as u64) == port
            && read::<u64>(address(child, Field::SocketOfSock) as u64) == 0
            && let Some(known) = remembered(child)
        {
            if setting(Setting::LookOnly) != 0 {
                known.id = socket::cookie(child);
            } else {
                known.identify(child);
            }
            known.listener = listener.id;
            known.flags |= flag::PASSIVE;
            found(child, known);
        }
    }
}
