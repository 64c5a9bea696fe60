//! Who waits for a socket: its wait queue, read without its lock.
//!
//! The queue holds one entry for each epoll registration, each thread blocked in a call, and each
//! `poll`. Which it is shows in what hangs on the entry: epoll's has no `private`, and its
//! container leads to the `epitem` of one file (fs/eventpoll.c: ep_ptable_queue_proc); a blocked
//! thread's is the `task_struct` (net/core/stream.c: sk_stream_wait_memory).

use tcpwatch_common::{Field, RawObserved, look};

use crate::kernel::{Ptr, address, at, has, read};

/// Entries looked at; a queue is rarely longer than a prefork server has workers.
const MOST: u32 = 16;

/// Fills in who waits for `sk`, whose file is at `file`.
#[inline(always)]
pub fn describe(out: &mut RawObserved, sk: Ptr, file: u64) {
    let wanted = file != 0 && readable();
    let found = if wanted { waiters(at(queue(sk), Field::WaitList), file) } else { 0 };
    let events = found >> EVENTS;
    if wanted {
        out.bits |= look::HAS_WAITERS;
    }
    out.polled = (found >> POLLED) as u8;
    out.epoll = (found >> EPOLL) as u8;
    out.blocked = (found >> BLOCKED) as u8;
    out.epoll_events = (events & LOW_EVENTS | (events & HIGH_EVENTS) << HIGH_SHIFT) as u32;
    // Those of several would be mixed up.
    out.blocked_pid = if out.blocked == 1 { (found >> PID) as u32 } else { 0 };
}

/// Whether this kernel shows its wait queues.
#[inline(always)]
pub fn readable() -> bool {
    has(Field::WaitQueue)
        && has(Field::WaitList)
        && has(Field::WaiterLink)
        && has(Field::WaiterPrivate)
        && has(Field::EpollWaiter)
        && has(Field::EpollItem)
        && has(Field::EpollFile)
        && has(Field::EpollEvents)
}

/// The address of the queue of a socket that has a file, which has a queue, too.
#[inline(always)]
fn queue(sk: Ptr) -> u64 {
    read::<u64>(address(sk, Field::WaitQueue) as u64)
}

// What is found, packed into one word, because a global function returns no more: a count for
// each kind of waiter, epoll's events, and a blocked thread's process (below 2^22:
// include/linux/threads.h, PID_MAX_LIMIT). A kind is where it is counted.
const POLLED: u64 = 0;
const EPOLL: u64 = 8;
const BLOCKED: u64 = 16;
const EVENTS: u64 = 24;
const PID: u64 = 42;
/// The events themselves, and behind them epoll's own four bits from the top of the word.
const LOW_EVENTS: u64 = 0x3fff;
const HIGH_EVENTS: u64 = 0x3c000;
const HIGH_SHIFT: u64 = 28 - 14;

/// Walks a queue. A global function, which the verifier explores once, and not anew for each way
/// that leads to it and out of it; so is the next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn waiters(head: u64, file: u64) -> u64 {
    // Explored even where nothing calls it, so it must be empty where reads are forbidden.
    if !readable() {
        return 0;
    }
    let mut link = read::<u64>(head);
    let mut found = 0u64;
    for _ in 0..MOST {
        if link == head || link == 0 {
            break;
        }
        // Arithmetic instead of branches, each of which would double what there is to explore.
        let waiter = waiter(link.wrapping_sub(at(0, Field::WaiterLink)), file);
        found = found.wrapping_add(1 << (waiter & 31)) | waiter >> EVENTS << EVENTS;
        link = read::<u64>(link);
    }
    found
}

/// What one entry is: its kind, and where `waiters` has them, its events or process.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn waiter(entry: u64, file: u64) -> u64 {
    if !readable() {
        return POLLED;
    }
    let private = read::<u64>(at(entry, Field::WaiterPrivate));
    if private == 0 {
        let registration = entry.wrapping_sub(at(0, Field::EpollWaiter));
        let item = read::<u64>(at(registration, Field::EpollItem));
        if read::<u64>(at(item, Field::EpollFile)) != file {
            return POLLED;
        }
        let events = u64::from(read::<u32>(at(item, Field::EpollEvents)));
        return (events & LOW_EVENTS | events >> HIGH_SHIFT & HIGH_EVENTS) << EVENTS | EPOLL;
    }
    match task_pid(private) {
        Some(pid) => u64::from(pid) << PID | BLOCKED,
        None => POLLED,
    }
}

/// The process id of what may be a `task_struct`, if it behaves like one: its group leader leads
/// itself and says the same id. `poll` puts something else there (fs/select.c: poll_wqueues).
#[inline(always)]
fn task_pid(task: u64) -> Option<u32> {
    let leader = read::<u64>(at(task, Field::TaskLeader));
    if leader == 0 || read::<u64>(at(leader, Field::TaskLeader)) != leader {
        return None;
    }
    let pid = read::<u32>(at(task, Field::TaskTgid));
    (pid != 0 && pid == read::<u32>(at(leader, Field::TaskTgid))).then_some(pid)
}
