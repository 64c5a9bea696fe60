//! Who called sudo: what root without its privileges may not write is written as they.
//!
//! Outputs are opened when privileges are given up, and root without them is nobody in another user's
//! home (see [`super::shed`]). So a run that writes there is one of that user with capabilities, as a
//! program with file capabilities is, and what it writes belongs to who asked for it.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{Access, AtFlags, CWD, Gid, Uid, accessat},
    process::geteuid,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// The user who called sudo, as sudo says in the environment.
struct Caller {
    user: Uid,
    group: Gid,
}

impl Caller {
    fn find() -> Option<Self> {
        let id = |name| env::var(name).ok()?.parse::<u32>().ok();
        let (user, group) = (id("SUDO_UID")?, id("SUDO_GID")?);
        let is_user = user != 0 && user != u32::MAX && group != u32::MAX;
        is_user.then(|| Self { user: Uid::from_raw(user), group: Gid::from_raw(group) })
    }

    /// Goes on as that user, with all capabilities. Only this thread does, and those that it starts.
    fn stand_in(&self) -> io::Result<()> {
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(self.group, self.group, self.group)?;
        set_thread_res_uid(self.user, self.user, self.user)?;
        let had = capabilities(None)?;
        set_capabilities(None, CapabilitySets { effective: had.permitted, ..had })?;
        Ok(set_keep_capabilities(false)?)
    }
}

/// Goes on as whoever called sudo, if root without its privileges may not write one of these files.
pub fn stand_in(outputs: &[&Path]) -> Result<()> {
    let Some(caller) = Caller::find() else { return Ok(()) };
    let had = capabilities(None).context("read capabilities")?;
    let change = CapabilitySet::SETUID | CapabilitySet::SETGID;
    if !geteuid().is_root() || outputs.is_empty() || !had.effective.contains(change) {
        return Ok(());
    }
    let lowered = CapabilitySets { effective: CapabilitySet::empty(), ..had };
    set_capabilities(None, lowered).context("give privileges up")?;
    let refused = outputs.iter().any(|path| is_refused(path));
    set_capabilities(None, had).context("take privileges back")?;
    if refused {
        caller.stand_in().context("go on as the user who called sudo")?;
    }
    Ok(())
}

/// Whether this thread may not write this file, or make it.
fn is_refused(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let writable = |path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
    // What is not there yet is made where the nearest directory above it is.
    let answers = path.ancestors().map(writable);
    answers.map(Result::err).find(|error| *error != Some(rustix::io::Errno::NOENT)).flatten()
        == Some(rustix::io::Errno::ACCESS)
}
