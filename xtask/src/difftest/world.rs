//! The world of a seed: network namespaces, the random processes in them, and what befalls these.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    ops::Range,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    net::sockopt::socket_peercred,
    process::{Pid, Signal, kill_process},
};

use super::{
    agent::{Config, Held, Net, Order},
    netns::Netns,
    operations::{MARK, Operation},
    random::Random,
};
use crate::{
    hold::monotonic,
    tool::{PATIENCE, now},
};

/// The first port of the first namespace; each has a part of its own of those that follow.
pub(super) const FIRST_PORT: u16 = 12_000;
pub(super) const PORTS_PER_NET: u16 = 2_000;
const NETS: u16 = 3;
/// All of them.
pub(super) const PORTS: Range<u16> = FIRST_PORT..FIRST_PORT + NETS * PORTS_PER_NET;
const AGENTS: usize = 3;
const MOST_AGENTS: usize = 7;
const HELPERS: u32 = 2;

/// Something that was done, as the log has it.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Who did it; 0 is the test.
    pub(super) pid: i32,
    pub(super) what: String,
}

impl Deed {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        Some(Self {
            begin: words.next()?.parse().ok()?,
            end: words.next()?.parse().ok()?,
            pid: words.next()?.parse().ok()?,
            what: words.next()?.to_owned(),
        })
    }
}

/// A random process that can be asked.
struct Agent {
    control: BufReader<UnixStream>,
    mailbox: PathBuf,
    held: Vec<Held>,
}

pub(super) struct World {
    dir: PathBuf,
    pub(super) uid: u32,
    pub(super) nets: Vec<Netns>,
    listener: UnixListener,
    agents: BTreeMap<i32, Agent>,
    /// Processes that were started here, or by those.
    children: Vec<Child>,
    /// Programs that only hold what they inherited.
    pub(super) helpers: HashSet<i32>,
    /// Everybody who ever was an agent.
    pub(super) known: HashSet<i32>,
    /// Who was killed, and when.
    pub(super) killed: HashMap<i32, u64>,
    config: Config,
}

impl World {
    pub(super) fn new(dir: &Path, mptcp: bool, without: &[String]) -> Result<Self> {
        let uid = 3_000_000 + id();
        let nets = (0..NETS).map(Netns::new).collect::<Result<Vec<_>>>()?;
        let listener = UnixListener::bind(dir.join("control"))?;
        listener.set_nonblocking(true)?;
        // Others than root have to get in.
        rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o777))?;
        rustix::fs::chmod(dir.join("control"), rustix::fs::Mode::from_raw_mode(0o777))?;
        let net = |(at, net): (u16, &Netns)| Net {
            path: net.path(),
            low: FIRST_PORT + at * PORTS_PER_NET,
        };
        let config = Config {
            dir: dir.to_owned(),
            nets: (0..).zip(&nets).map(net).collect(),
            net: 0,
            uid,
            pid_namespace: false,
            most_agents: MOST_AGENTS,
            helpers: HELPERS,
            mptcp,
            without: without.to_vec(),
        };
        Ok(Self {
            dir: dir.to_owned(),
            uid,
            nets,
            listener,
            agents: BTreeMap::new(),
            children: Vec::new(),
            helpers: HashSet::new(),
            known: HashSet::new(),
            killed: HashMap::new(),
            config,
        })
    }

    /// Starts the first processes; the second lives in a pid namespace of its own.
    pub(super) fn populate(&mut self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for number in 0..AGENTS {
            let net = number % self.nets.len();
            let config = Config { net, pid_namespace: number == 1, ..self.config.clone() };
            let child = Command::new(std::env::current_exe()?)
                .args(["difftest-agent", &serde_json::to_string(&config)?])
                .stdin(Stdio::null())
                .spawn()
                .context("start a random process")?;
            self.children.push(child);
            pids.push(self.expect_one()?);
        }
        Ok(pids)
    }

    /// Waits for a process that has just been started.
    pub(super) fn expect_one(&mut self) -> Result<i32> {
        let start = now();
        loop {
            if let Some(pid) = self.admit()? {
                return Ok(pid);
            }
            if start.elapsed() > PATIENCE {
                bail!("a random process did not come");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes in a process that wants to be told what to do, if there is one.
    fn admit(&mut self) -> Result<Option<i32>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("take in a random process"),
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let pid = socket_peercred(&stream)?.pid.as_raw_nonzero().get();
        let mut control = BufReader::new(stream);
        let mut line = String::new();
        // It may have been killed before it said anything.
        if !matches!(control.read_line(&mut line), Ok(length) if length > 0) {
            return Ok(None);
        }
        let mailbox = line.trim_end().into();
        self.known.insert(pid);
        self.agents.insert(pid, Agent { control, mailbox, held: Vec::new() });
        self.tell(pid, &Order::Name(pid));
        Ok(Some(pid))
    }

    /// Flags that leave other work on this host out.
    pub(super) fn filter(&self, linger: &str) -> Vec<String> {
        let nets: Vec<_> = self.nets.iter().map(|net| net.inode.to_string()).collect();
        let flags = ["--linger", linger, "-u", &self.uid.to_string(), "-N", &nets.join(",")];
        flags.map(ToOwned::to_owned).to_vec()
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        self.agents.keys().copied().collect()
    }

    /// What the processes hold that can be asked, as they said it last.
    pub(super) fn held(&self) -> impl Iterator<Item = (i32, &Held)> {
        self.agents.iter().flat_map(|(pid, agent)| agent.held.iter().map(|held| (*pid, held)))
    }

    fn tell(&mut self, pid: i32, order: &Order) {
        let Some(agent) = self.agents.get_mut(&pid) else { return };
        let line = serde_json::to_string(order).unwrap_or_default() + "\n";
        if agent.control.get_mut().write_all(line.as_bytes()).is_err() {
            self.gone(pid);
        }
    }

    fn gone(&mut self, pid: i32) {
        self.agents.remove(&pid);
        self.killed.entry(pid).or_insert_with(monotonic);
    }

    /// Waits until these have done what they were told; who does not answer is gone.
    fn gather(&mut self, pids: &[i32]) -> Result<()> {
        for pid in pids {
            let Some(agent) = self.agents.get_mut(pid) else { continue };
            let mut line = String::new();
            match agent.control.read_line(&mut line) {
                Ok(_) if line.ends_with('\n') => agent.held = serde_json::from_str(&line)?,
                // It was killed, perhaps in the middle of a line.
                _ => self.gone(*pid),
            }
        }
        while self.admit()?.is_some() {}
        self.find_helpers();
        Ok(())
    }

    pub(super) fn perform(&mut self, pid: i32, seed: u64, operations: &[Operation]) -> Result<()> {
        self.tell(pid, &Order::Do { seed, operations: operations.to_vec() });
        self.gather(&[pid])
    }

    pub(super) fn ask(&mut self) -> Result<()> {
        let pids = self.pids();
        for pid in &pids {
            self.tell(*pid, &Order::Report);
        }
        self.gather(&pids)
    }

    /// Everybody does random things for a while, and something befalls somebody.
    pub(super) fn burst(&mut self, random: &mut Random, millis: u64) -> Result<()> {
        const OPERATIONS: u32 = 500;
        let pids = self.pids();
        let mailboxes: Vec<_> = self.agents.values().map(|agent| agent.mailbox.clone()).collect();
        for pid in &pids {
            let seed = random.next();
            let (mailboxes, agents) = (mailboxes.clone(), pids.len());
            let burst = Order::Burst { seed, operations: OPERATIONS, millis, mailboxes, agents };
            self.tell(*pid, &burst);
        }
        let what = random.below(100);
        thread::sleep(Duration::from_millis(random.below(millis / 2)));
        match what {
            0..30 if pids.len() > 2 => {
                let victim = random.pick(&pids).copied().context("nobody is there")?;
                self.kill(victim);
            }
            30..50 => self.destroy(random)?,
            50..60 => {
                let mut helpers: Vec<i32> = self.helpers.iter().copied().collect();
                helpers.sort_unstable();
                if let Some(helper) = random.pick(&helpers).copied() {
                    self.kill(helper);
                }
            }
            60..70 => self.delete_namespace()?,
            _ => {}
        }
        self.gather(&pids)
    }

    /// What was done so far, by everybody who wrote it down.
    pub(super) fn operations(&self) -> Vec<Deed> {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        text.lines().filter_map(Deed::parse).collect()
    }

    fn deed<T>(&mut self, what: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let begin = monotonic();
        let result = work(self);
        let line = format!("{begin} {} 0 {what}\n", monotonic());
        let log = File::options().append(true).create(true).open(self.dir.join("log"));
        // Only who reads a deviation misses a line that could not be written.
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
        result
    }

    fn kill(&mut self, pid: i32) {
        self.killed.insert(pid, monotonic());
        self.deed(&format!("kill {pid}"), |_| signal(pid, Signal::KILL));
    }

    /// Has the kernel end all connections of a port, as an administrator may.
    fn destroy(&mut self, random: &mut Random) -> Result<()> {
        let net = usize::try_from(random.below(self.nets.len() as u64))?;
        let port = self.config.nets[net].low + u16::try_from(random.below(5))?;
        self.deed(&format!("ss -K of port {port}"), |world| {
            let filter = format!(":{port}");
            world.nets[net].run("ss", &["-K", "-t", "sport", "=", &filter])
        })?;
        Ok(())
    }

    /// Takes its name from the last namespace: it lives as long as its sockets and processes.
    fn delete_namespace(&mut self) -> Result<()> {
        if self.nets.last().is_none_or(|net| net.deleted) {
            return Ok(());
        }
        self.deed("take the name of the last namespace away", |world| {
            world.nets.last_mut().map_or(Ok(()), Netns::delete)
        })
    }

    /// Programs that an agent has started, by their environment: their parents may be gone.
    fn find_helpers(&mut self) {
        let mark = format!("{MARK}={}", self.dir.display());
        for pid in processes() {
            if self.known.contains(&pid) || self.helpers.contains(&pid) {
                continue;
            }
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
                self.helpers.insert(pid);
            }
        }
    }

    /// Everybody ends: half of them by themselves.
    pub(super) fn end(&mut self, random: &mut Random) -> Result<()> {
        for pid in self.pids() {
            if random.percent(50) {
                self.kill(pid);
            } else {
                self.tell(pid, &Order::Exit);
            }
        }
        for agent in self.agents.values_mut() {
            // It closes its end when it is gone.
            let _ = agent.control.read_line(&mut String::new());
        }
        self.agents.clear();
        while self.admit()?.is_some() {}
        self.clear();
        Ok(())
    }

    /// Ends whoever is left.
    fn clear(&mut self) {
        for pid in std::mem::take(&mut self.agents).into_keys() {
            signal(pid, Signal::KILL);
        }
        self.find_helpers();
        for pid in &self.helpers {
            signal(*pid, Signal::KILL);
        }
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The names of the namespaces go, too.
    pub(super) fn close(&mut self) -> Result<()> {
        for net in self.nets.iter_mut().filter(|net| !net.deleted) {
            net.delete()?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.clear();
        let _ = self.close();
    }
}

/// The processes of the host.
pub(super) fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn signal(pid: i32, signal: Signal) {
    // Whoever is gone needs no signal.
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
