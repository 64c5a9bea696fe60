//! The process that runs commands. It is started before tcpwatch gives its privileges up, and is by then
//! who the commands run as, without any privilege: so nobody keeps one for them.
//!
//! It is this program again, called by another name. It runs what it is told to and says how that
//! ended; when tcpwatch is gone, it ends what still runs, and itself.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Builder, task::JoinSet};

use super::{
    command::{KEPT, Template},
    link::{Link, line},
};
use crate::kernel::child;

/// What it is called by.
const NAME: &str = "tcpwatch-exec";
/// The name that `ps` shows.
const COMM: &std::ffi::CStr = c"tcpwatch-exec";
/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command to run for a finding.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Request {
    /// What is in its environment.
    pub(super) variables: Vec<(String, String)>,
    /// What is on its standard input.
    pub(super) input: String,
}

/// How one ended.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Ended {
    /// By itself, with this status as `wait` has it.
    By(i32),
    /// It took too long.
    Killed,
    /// It could not be started.
    NotStarted(String),
}

/// Whether it is ready, or why not.
type Ready = Result<(), String>;

/// That process, as tcpwatch has it.
pub(super) struct Helper {
    process: Child,
    socket: UnixStream,
    link: Option<Link>,
}

impl Helper {
    /// Starts it, and waits until it has no privilege any more.
    pub(super) fn start(template: &Template) -> Result<Self> {
        let (socket, its) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        // It has signals blocked that end tcpwatch, as that has, and hears nothing of ^C.
        command.arg0(NAME).current_dir("/").process_group(0).env_clear();
        command.envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.stdin(OwnedFd::from(its)).stdout(Stdio::null());
        child::without_descriptors(&mut command);
        let process = command.spawn().context("start a process to run commands")?;
        // Not its end any more, or it would not be told when the other one is gone.
        drop(command);
        let helper = Self { process, socket, link: None };
        helper.greet(template).context("start a process to run commands")?;
        Ok(helper)
    }

    fn greet(&self, template: &Template) -> Result<()> {
        let mut socket = &self.socket;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&line(template)?)?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        match serde_json::from_str(&answer).context("it has ended")? {
            Ready::Ok(()) => Ok(()),
            Ready::Err(why) => bail!(why),
        }
    }

    fn link(&mut self) -> io::Result<&mut Link> {
        let link = match self.link.take() {
            Some(link) => link,
            None => Link::new(self.socket.try_clone()?)?,
        };
        Ok(self.link.insert(link))
    }

    /// Has it run a command.
    pub(super) async fn run(&mut self, request: &Request) -> io::Result<()> {
        self.link()?.send(request).await.map_err(|_| gone())
    }

    /// How the next one ended; an error if it is gone with all that it ran.
    pub(super) async fn next(&mut self) -> io::Result<Ended> {
        let ended = self.link()?.next().await?;
        ended.ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("the process that runs commands has ended")
}

impl Drop for Helper {
    /// It ends what it runs, and then itself.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Whether this process was started to be one.
pub(crate) fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Is one, until nobody needs it any more.
pub(crate) fn be() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        // Who has started it says why.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let _ = rustix::thread::set_name(COMM);
    let mut template = String::new();
    BufReader::new(&socket).read_line(&mut template)?;
    let template: Template = serde_json::from_str(&template)?;
    let ready: Ready = child::give_up(template.identity)
        .map_err(|error| format!("run as {}: {error}", template.name));
    socket.write_all(&line(&ready)?)?;
    if ready.is_err() {
        return Ok(());
    }
    Builder::new_current_thread().enable_all().build()?.block_on(work(&template, socket))
}

async fn work(template: &Template, socket: UnixStream) -> Result<()> {
    let mut link = Link::new(socket)?;
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            request = link.next::<Request>() => match request? {
                Some(request) => drop(running.spawn(template.clone().run(request))),
                None => break,
            },
            Some(ended) = running.join_next() => link.send(&ended?).await?,
        }
    }
    running.shutdown().await;
    Ok(())
}
