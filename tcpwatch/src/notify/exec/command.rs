//! One run of the user's command, in the process that is there for that.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::User;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, geteuid, kill_process_group},
};
use serde::{Deserialize, Serialize};
use tokio::{process::Child, time::timeout};

use super::helper::{Ended, Request};
use crate::kernel::child::{self, Identity};

const SHELL: &str = "/bin/sh";
/// What a command sees of our environment: no token that was meant for us.
pub(super) const KEPT: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Nobody's home.
const NOWHERE: &str = "/";

/// What all runs share.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Template {
    line: String,
    /// Whom to run as, if root is to run as somebody else.
    pub(super) identity: Option<Identity>,
    home: String,
    /// The user's.
    pub(super) name: String,
    /// How long one may take.
    limit: Duration,
}

impl Template {
    /// `user` matters to root only.
    pub(super) fn new(line: &str, user: &str, limit: Duration) -> Result<Self> {
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
        let home = account.dir.to_str().filter(|_| account.dir.is_dir()).unwrap_or(NOWHERE);
        Ok(Self {
            line: line.to_owned(),
            identity: ours.is_root().then_some(identity),
            home: home.to_owned(),
            name: account.name,
            limit,
        })
    }

    /// Runs it for one finding.
    pub(super) async fn run(self, request: Request) -> Ended {
        match self.start(&request) {
            Err(error) => Ended::NotStarted(format!("{error:#}")),
            Ok(command) => match command.wait(self.limit).await {
                Some(status) => Ended::By(status.into_raw()),
                None => Ended::Killed,
            },
        }
    }

    fn start(&self, request: &Request) -> Result<Running> {
        let mut command = Command::new(SHELL);
        command.arg("-c").arg(&self.line).current_dir(NOWHERE).process_group(0);
        command.env_clear().env("PATH", PATH);
        command.envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        command.envs(request.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(input(&request.input).context("give the command its input")?);
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        child::without_blocked_signals(&mut command);
        child::without_descriptors(&mut command);
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
fn input(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("finding", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A command that runs.
struct Running {
    child: Child,
    group: Group,
}

impl Running {
    /// Waits for its end; `None` if it took too long and was killed, with all that it started.
    async fn wait(mut self, limit: Duration) -> Option<ExitStatus> {
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
