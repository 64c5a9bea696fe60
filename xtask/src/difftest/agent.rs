//! A random process: this program, started again. It does what its orders say, and says what it holds.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::PathBuf,
    process::{Command, exit},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    net::sockopt,
    thread::{
        CapabilitiesSecureBits, LinkNameSpaceType, move_into_link_name_space,
        set_capabilities_secure_bits,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    operations::{OPERATIONS, Operation},
    random::Random,
    state::State,
    sys,
};
use crate::{hold::monotonic, tool::now};

/// Flags of a random process.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What it has to know, as JSON
    config: String,
}

/// What a random process has to know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Config {
    /// Where its socket to the test, its mailbox and its log are.
    pub(super) dir: PathBuf,
    /// The network namespaces that it may enter.
    pub(super) nets: Vec<Net>,
    /// The one that it begins in.
    pub(super) net: usize,
    /// Whom its sockets belong to.
    pub(super) uid: u32,
    /// It lives in a pid namespace of its own.
    pub(super) pid_namespace: bool,
    /// Processes there may be in all.
    pub(super) most_agents: usize,
    /// Programs it may start that only hold what they inherit.
    pub(super) helpers: u32,
    pub(super) mptcp: bool,
    /// What it never does.
    pub(super) without: Vec<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Net {
    pub(super) path: PathBuf,
    /// The first of its ports: five for listeners, some for sockets that connect to themselves.
    pub(super) low: u16,
}

/// What a process is told to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Order {
    /// Its first one: what the host calls it.
    Name(i32),
    /// Do so many random things, for so long.
    Burst {
        seed: u64,
        operations: u32,
        millis: u64,
        mailboxes: Vec<PathBuf>,
        agents: usize,
    },
    /// Do these things.
    Do {
        seed: u64,
        operations: Vec<Operation>,
    },
    /// Say what it holds.
    Report,
    Exit,
}

/// A descriptor of a socket, as its process sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Held {
    pub(super) fd: RawFd,
    pub(super) inode: u64,
    pub(super) cookie: u64,
    pub(super) mptcp: bool,
    /// `None` for MPTCP, of which the kernel does not say.
    pub(super) state: Option<u8>,
    /// It was connected once.
    pub(super) connected: bool,
    pub(super) port: u16,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Listener,
    Connection,
    /// Disconnected: it may connect again.
    Fresh,
}

pub(super) struct Agent {
    pub(super) config: Config,
    control: BufReader<UnixStream>,
    pub(super) mailbox: UnixDatagram,
    /// The host's name for it.
    pid: i32,
    log: File,
    pub(super) sockets: BTreeMap<RawFd, (OwnedFd, Kind)>,
    pub(super) epolls: Vec<OwnedFd>,
    pub(super) pipe: (OwnedFd, OwnedFd),
    pub(super) net: usize,
    /// Those that last until the next orders.
    pub(super) threads: Vec<(UnixStream, JoinHandle<()>)>,
    pub(super) random: Random,
    pub(super) mailboxes: Vec<PathBuf>,
    pub(super) agents: usize,
}

/// Runs a random process until it is told to end, or the test has gone.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut config: Config = serde_json::from_str(&args.config)?;
    if config.pid_namespace {
        config.pid_namespace = false;
        unshare(CloneFlags::CLONE_NEWPID)?;
        let again = ["difftest-agent", &serde_json::to_string(&config)?].map(ToOwned::to_owned);
        Command::new(std::env::current_exe()?).args(again).status()?;
        return Ok(());
    }
    let net = File::open(&config.nets[config.net].path)?;
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
    // Its capabilities stay what they are.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let uid = rustix::thread::Uid::from_raw(config.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Agent::new(config)?.obey()
}

impl Agent {
    fn new(config: Config) -> Result<Self> {
        let (control, mailbox) = join(&config)?;
        let log = File::options().append(true).create(true).open(config.dir.join("log"))?;
        let mut agent = Self {
            net: config.net,
            config,
            control,
            mailbox,
            pid: 0,
            log,
            sockets: BTreeMap::new(),
            epolls: Vec::new(),
            pipe: pipe()?,
            threads: Vec::new(),
            random: Random::new(0),
            mailboxes: Vec::new(),
            agents: 0,
        };
        agent.name()?;
        Ok(agent)
    }

    /// Goes on as the child that it has become.
    pub(super) fn reborn(&mut self) -> Result<()> {
        (self.control, self.mailbox) = join(&self.config)?;
        self.epolls.clear();
        self.pipe = pipe()?;
        let keep_all = self.random.percent(50);
        let random = &mut self.random;
        self.sockets.retain(|_, _| keep_all || random.percent(40));
        self.name()?;
        self.obey()
    }

    fn name(&mut self) -> Result<()> {
        let Some(Order::Name(pid)) = self.order()? else { exit_now() };
        self.pid = pid;
        Ok(())
    }

    fn order(&mut self) -> Result<Option<Order>> {
        let mut line = String::new();
        if self.control.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    fn obey(&mut self) -> Result<()> {
        loop {
            match self.order()? {
                Some(Order::Burst { seed, operations, millis, mailboxes, agents }) => {
                    self.end_threads();
                    self.random = Random::new(seed);
                    (self.mailboxes, self.agents) = (mailboxes, agents);
                    let start = now();
                    for _ in 0..operations {
                        if start.elapsed() > Duration::from_millis(millis) {
                            break;
                        }
                        let operation = self.choose();
                        self.perform(operation);
                    }
                }
                Some(Order::Do { seed, operations }) => {
                    self.random = Random::new(seed);
                    self.agents = 0;
                    for operation in operations {
                        self.perform(operation);
                    }
                }
                Some(Order::Report) => {}
                Some(Order::Name(_) | Order::Exit) | None => exit_now(),
            }
            let mut line = serde_json::to_string(&self.report())?;
            line.push('\n');
            if self.control.get_mut().write_all(line.as_bytes()).is_err() {
                exit_now();
            }
        }
    }

    fn choose(&mut self) -> Operation {
        let allowed = |operation: Operation| {
            !self.config.without.iter().any(|word| *word == operation.to_string())
        };
        let allowed: Vec<_> = OPERATIONS.into_iter().filter(|(one, _)| allowed(*one)).collect();
        let mut at = self.random.below(allowed.iter().map(|(_, weight)| weight).sum());
        for (operation, weight) in allowed {
            if at < weight {
                return operation;
            }
            at -= weight;
        }
        Operation::Nap
    }

    /// Does it, and writes down when and what came of it.
    fn perform(&mut self, operation: Operation) {
        let begin = monotonic();
        let (pid, end) = (self.pid, monotonic);
        let line = match self.operate(operation) {
            Ok(None) => return,
            Ok(Some(done)) => format!("{begin} {} {pid} {operation} {done}\n", end()),
            Err(error) => format!("{begin} {} {pid} {operation} error: {error}\n", end()),
        };
        // One write, so that lines of several processes do not mix.
        let _ = self.log.write_all(line.as_bytes());
    }

    fn report(&self) -> Vec<Held> {
        self.sockets.iter().filter_map(|(fd, (socket, _))| held(*fd, socket).ok()).collect()
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn held(fd: RawFd, socket: &OwnedFd) -> Result<Held> {
    let mptcp = sockopt::socket_protocol(socket)? == Some(rustix::net::ipproto::MPTCP);
    let info = if mptcp { None } else { Some(sys::tcp_info(socket)?) };
    let local = rustix::net::getsockname(socket)?;
    let port = std::net::SocketAddr::try_from(local).map_or(0, |local| local.port());
    Ok(Held {
        fd,
        inode: rustix::fs::fstat(socket)?.st_ino,
        cookie: sockopt::socket_cookie(socket)?,
        mptcp,
        state: info.map(|info| info.state),
        connected: info.is_some_and(|info| info.rtt_us > 0),
        port,
    })
}

impl Held {
    /// It was connected and is closed, and its descriptor is still there.
    pub(super) fn is_dead(&self) -> bool {
        self.is_closed() && self.connected
    }

    /// It is closed, and nothing in it says that it ever was connected.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_closed() && !self.connected
    }

    fn is_closed(&self) -> bool {
        let state = self.state.and_then(|state| State::from_kernel(state.into()));
        state == Some(State::CLOSE)
    }
}

fn join(config: &Config) -> Result<(BufReader<UnixStream>, UnixDatagram)> {
    let mut control = UnixStream::connect(config.dir.join("control"))?;
    // A name that no other process has, in whichever pid namespace.
    let name = format!("mailbox-{}-{}", std::process::id(), monotonic());
    let path = config.dir.join(name);
    let mailbox = UnixDatagram::bind(&path).context("bind a mailbox")?;
    mailbox.set_nonblocking(true)?;
    let line = path.to_str().context("a path that is no text")?;
    ensure!(!line.contains('\n'), "a path with a line break");
    control.write_all(format!("{line}\n").as_bytes())?;
    Ok((BufReader::new(control), mailbox))
}

/// Ends this process as `_exit` would: nothing of the parent's is written twice.
#[expect(clippy::exit, reason = "a random process ends wherever it is")]
fn exit_now() -> ! {
    exit(0)
}
