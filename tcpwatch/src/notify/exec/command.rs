//! One run of the user's command.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::User;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, geteuid, kill_process_group},
};
use tokio::{process::Child, time::timeout};

use crate::{
    kernel::child::{Identity, without_privileges},
    notify::notice::Notice,
};

const SHELL: &str = "/bin/sh";
/// What a command sees of our environment: no token that was meant for us.
const KEPT: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Nobody's home.
const NOWHERE: &str = "/";

/// What all runs share.
pub(super) struct Template {
    line: String,
    identity: Option<Identity>,
    home: PathBuf,
    name: String,
}

impl Template {
    /// `user` matters to root only.
    pub(super) fn new(line: &str, user: &str) -> Result<Self> {
        if line.trim().is_empty() {
            bail!("--exec-on-finding: there is no command");
        }
        let account = account(user)?;
        let ours = geteuid();
        if !ours.is_root() && user != "nobody" && account.uid.as_raw() != ours.as_raw() {
            bail!("--exec-user {user}: only root can run a command as somebody else");
        }
        let identity = Identity { uid: account.uid.as_raw(), gid: account.gid.as_raw() };
        let account = if ours.is_root() {
            account
        } else {
            User::from_uid(ours.as_raw().into())?.unwrap_or(account)
        };
        Ok(Self {
            line: line.to_owned(),
            identity: ours.is_root().then_some(identity),
            home: if account.dir.is_dir() { account.dir } else { NOWHERE.into() },
            name: account.name,
        })
    }

    /// Starts it for one finding.
    pub(super) fn start(&self, notice: &Notice, held_back: u64) -> Result<Running> {
        let mut command = Command::new(SHELL);
        command.arg("-c").arg(&self.line).current_dir(NOWHERE).process_group(0);
        command.env_clear().env("PATH", PATH);
        command.envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        command.envs(notice.fields()).env("TCPWATCH_HELD_BACK", held_back.to_string());
        command.stdin(File::from(input(notice).context("give the command its input")?));
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        without_privileges(&mut command, self.identity);
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("cannot start {SHELL}"))?;
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(Running { child, group: Group(group) })
    }
}

fn account(user: &str) -> Result<User> {
    let found = match user.parse::<u32>() {
        Ok(uid) => User::from_uid(uid.into()),
        Err(_) => User::from_name(user),
    };
    found?.with_context(|| format!("--exec-user: there is no user '{user}'"))
}

/// The finding as a file that is nowhere: a command that does not read it holds up nobody.
fn input(notice: &Notice) -> io::Result<std::os::fd::OwnedFd> {
    let mut file = File::from(memfd_create("finding", MemfdFlags::CLOEXEC)?);
    file.write_all(&notice.json()?)?;
    file.rewind()?;
    Ok(file.into())
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    group: Group,
}

impl Running {
    /// Waits for its end; `None` if it took too long and was killed, with all that it started.
    pub(super) async fn wait(mut self, limit: Duration) -> Option<ExitStatus> {
        let in_time = timeout(limit, self.child.wait()).await;
        if let Ok(Ok(status)) = in_time {
            // What it left behind in the background may stay.
            self.group.0 = None;
            return Some(status);
        }
        drop(self.group);
        let _ = self.child.wait().await;
        None
    }
}

/// Processes that end with us: the command leads them and has not been waited for.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
