//! The system calls that no safe library offers, and all `unsafe` of the agent.
//!
//! aya creates iterators only without a target map and only once per link; tokio's registration
//! of a foreign descriptor is `unsafe`, and so is whatever runs between fork and exec.

#![expect(unsafe_code, reason = "the one place for it; every use says why it is sound")]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::sys::signal::SigSet;
use tokio::io::{Interest, unix::AsyncFd};

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr`, its `link_create` member with `iter_info` (include/uapi/linux/bpf.h).
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// `union bpf_attr`, its `iter_create` member.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a live `#[repr(C)]` struct and its exact size is passed; the kernel only
    // reads it. Pointers inside it are those of the callers below, who keep the target alive.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Links an iterator program, to a map if its kind iterates over one.
pub(super) fn link_iterator(program: impl AsFd, map: Option<u32>) -> io::Result<OwnedFd> {
    let target = map.unwrap_or(0);
    let info = map.map_or(0, |_| std::ptr::from_ref(&target) as u64);
    let attr = LinkCreate {
        prog_fd: raw(program),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: info,
        iter_info_len: if map.is_some() { 4 } else { 0 },
        reserved: 0,
    };
    bpf(BPF_LINK_CREATE, &attr)
}

/// Starts one iteration: reading the file runs the program.
pub(super) fn start_iterator(link: impl AsFd) -> io::Result<File> {
    bpf(BPF_ITER_CREATE, &IterCreate { link_fd: raw(link), flags: 0 }).map(File::from)
}

/// Registers a descriptor with tokio.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns its descriptor for its whole life and `as_raw_fd` always returns
    // that one, so tokio never polls a descriptor that was closed or reused.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Has a command begin with nothing blocked of what is blocked here.
pub(super) fn unblock_in(command: &mut Command, blocked: SigSet) {
    // SAFETY: what runs between fork and exec is one system call on a copied set: it takes no lock and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(blocked.thread_unblock()?));
    }
}

/// Gives memory that is free back to the kernel, in all of the allocator's arenas.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches only memory that the allocator holds as free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has a command's process take a step between fork and exec.
pub(super) fn in_child(
    command: &mut Command,
    step: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the steps that there are (`child.rs`) make one system call each: they allocate nothing and
    // take no lock, so they may run in a copy of one thread of many.
    unsafe {
        command.pre_exec(step);
    }
}

/// Marks every descriptor but the first three to be closed by exec, also those of libraries that forgot.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: it takes numbers and closes nothing now, so no owner of a descriptor is deceived.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
