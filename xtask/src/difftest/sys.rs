//! The system calls of the random processes that no safe library offers, and all `unsafe` of this crate.

#![expect(unsafe_code, reason = "the one place for it; every use says why it is sound")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use nix::unistd::{ForkResult, fork};

/// What `TCP_INFO` says of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpInfo {
    /// The state, as the kernel numbers it.
    pub(super) state: u8,
    /// The round-trip time in microseconds; 0 if it never was connected.
    pub(super) rtt_us: u32,
}

/// `TCP_INFO` of a socket; of an MPTCP socket the kernel has none.
pub(super) fn tcp_info(fd: impl AsFd) -> io::Result<TcpInfo> {
    /// Where `tcpi_rtt` stands in `struct tcp_info` (include/uapi/linux/tcp.h).
    const RTT: usize = 68;
    let mut info = [0_u8; 104];
    let mut length = libc::socklen_t::try_from(info.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into a live buffer that is as long.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let rtt = info[RTT..].first_chunk().copied().unwrap_or_default();
    Ok(TcpInfo { state: info[0], rtt_us: u32::from_ne_bytes(rtt) })
}

/// Switches `TCP_REPAIR` on or off: a socket in repair closes without a word to its peer.
pub(super) fn repair(fd: impl AsFd, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes of a live integer.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forks a process that has no other thread; the child goes on with a copy of everything. Returns
/// the child's id, and in the child nothing.
pub(super) fn fork_alone() -> io::Result<Option<i32>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("it has other threads"));
    }
    // SAFETY: with one thread no lock can be held by another, so the child may do whatever the
    // parent may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        ForkResult::Child => Ok(None),
    }
}
