//! Processes that are started without any privilege, whatever this process may do.
//!
//! tcpwatch may load programs into the kernel and read other users' files; a command that it runs for
//! its user may not. It has no capability and can get none, runs as somebody else if we are root, and
//! has no descriptor of ours but the three that it is given.

use std::{io, process::Command};

use nix::sys::signal::SigSet;
use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};
use serde::{Deserialize, Serialize};

use super::sys;

/// Capabilities that the kernel could ever have.
const CAPABILITIES: u32 = 64;

/// Somebody to run as.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id; there are no others.
    pub gid: u32,
}

/// Gives up everything, for good, and goes on as somebody else. Only this thread does, and those that it
/// starts. The order matters: each step needs what a later one takes away.
pub fn give_up(identity: Option<Identity>) -> io::Result<()> {
    for number in 0..CAPABILITIES {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // Not ours to limit, and what is left does without; or the kernel has no more.
            Err(Errno::PERM | Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    if let Some(Identity { uid, gid }) = identity {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    let nothing = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, nothing)?;
    Ok(set_no_new_privs(true)?)
}

/// Has a command begin without our descriptors but the first three.
pub fn without_descriptors(command: &mut Command) {
    sys::in_child(command, sys::close_others_on_exec);
}

/// Has a command begin with no signal blocked: our threads leave signals to one of them.
pub fn without_blocked_signals(command: &mut Command) {
    sys::in_child(command, || Ok(SigSet::empty().thread_set_mask()?));
}
