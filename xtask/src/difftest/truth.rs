//! What lingers in truth: what `ss` shows in each namespace, `/proc` of each process, and what the processes
//! say of their own descriptors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv6Addr},
    process::id,
};

use anyhow::{Context as _, Result};

use super::{
    agent::Held,
    netns::Netns,
    said::{End, Key},
    state::State,
    world::{World, processes},
};

/// Who holds a socket: process and descriptor.
pub(super) type Holders = BTreeSet<(i32, i32)>;

/// A socket that lingers.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    /// `CLOSE_WAIT`, or `CLOSE` with an open descriptor.
    pub(super) state: State,
    pub(super) unread: u32,
    pub(super) unsent: u32,
    pub(super) local: End,
    pub(super) remote: End,
    pub(super) inode: u64,
    pub(super) netns: u64,
    pub(super) mptcp: bool,
    pub(super) holders: Holders,
}

#[derive(Default)]
pub(super) struct Truth {
    pub(super) lingering: BTreeMap<Key, Socket>,
    pub(super) dead: BTreeMap<Key, Socket>,
    /// Who holds each listener at a port of a namespace.
    pub(super) listeners: HashMap<(u64, u16), Vec<Holders>>,
    /// Closed sockets of which nobody knows whether they were ever connected.
    pub(super) unknown: HashSet<Key>,
}

/// What was learnt of sockets before, for when nobody can be asked.
#[derive(Default)]
pub(super) struct Memory {
    keys: HashMap<u64, Key>,
    dead: HashMap<u64, Held>,
}

impl Truth {
    pub(super) fn find(world: &World, memory: &mut Memory) -> Result<Self> {
        let holders = holders();
        let mut truth = Self::default();
        let mut shown = HashSet::new();
        for net in &world.nets {
            for flag in ["-t", "-M"] {
                truth.add_shown(net, flag, &holders, &mut shown)?;
            }
        }
        truth.add_dead(world, memory, &holders, &shown);
        Ok(truth)
    }

    fn add_shown(
        &mut self,
        net: &Netns,
        flag: &str,
        holders: &HashMap<u64, Holders>,
        shown: &mut HashSet<u64>,
    ) -> Result<()> {
        for line in net.run("ss", &["-HOanei", flag])?.lines() {
            let mptcp = flag == "-M";
            // A subflow is shown as what it is part of.
            if !mptcp && line.contains("ulp-mptcp") {
                continue;
            }
            let (name, cookie, socket) =
                row(line, net.inode, mptcp, holders).with_context(|| format!("ss says {line}"))?;
            shown.insert(socket.inode);
            match name {
                "LISTEN" => {
                    let key = (net.inode, socket.local.port);
                    self.listeners.entry(key).or_default().push(socket.holders);
                }
                "CLOSE-WAIT" => {
                    let key = match socket.inode {
                        0 if mptcp => Key::Ends(socket.local, socket.remote),
                        inode if mptcp => Key::Inode(inode),
                        _ => Key::Cookie(cookie),
                    };
                    self.lingering.insert(key, socket);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sockets that were connected, are closed and still have a descriptor: `ss` shows none of them.
    fn add_dead(
        &mut self,
        world: &World,
        memory: &mut Memory,
        holders: &HashMap<u64, Holders>,
        shown: &HashSet<u64>,
    ) {
        let mut sure = HashSet::new();
        for (_, held) in world.held() {
            sure.insert(held.inode);
            let key = if held.mptcp { Key::Inode(held.inode) } else { Key::Cookie(held.cookie) };
            memory.keys.insert(held.inode, key);
            if held.is_dead() && !shown.contains(&held.inode) {
                memory.dead.insert(held.inode, held.clone());
            } else {
                memory.dead.remove(&held.inode);
            }
        }
        let hidden = |inode: &u64| holders.contains_key(inode) && !shown.contains(inode);
        for (inode, key) in memory.keys.iter().filter(|(inode, _)| hidden(inode)) {
            if !sure.contains(inode) {
                self.unknown.insert(*key);
            }
        }
        for (inode, held) in memory.dead.iter().filter(|(inode, _)| hidden(inode)) {
            if sure.contains(inode) {
                let nowhere = End { addr: Ipv6Addr::UNSPECIFIED.into(), port: 0 };
                let socket = Socket {
                    state: State::CLOSE,
                    unread: 0,
                    unsent: 0,
                    local: End { port: held.port, ..nowhere },
                    remote: nowhere,
                    inode: *inode,
                    netns: 0,
                    mptcp: false,
                    holders: holders[inode].clone(),
                };
                self.dead.insert(Key::Cookie(held.cookie), socket);
            }
        }
    }

    /// All that lingers.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Socket)> {
        self.lingering.iter().chain(&self.dead)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Socket> {
        self.lingering.get(&key).or_else(|| self.dead.get(&key))
    }
}

/// Its state in the words of `ss`, its cookie, and the rest.
fn row<'a>(
    line: &'a str,
    netns: u64,
    mptcp: bool,
    holders: &HashMap<u64, Holders>,
) -> Option<(&'a str, u64, Socket)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let (unread, unsent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (local, remote) = (end(words.next()?)?, end(words.next()?)?);
    let (mut inode, mut cookie) = (0, 0);
    for word in words {
        if let Some(number) = word.strip_prefix("ino:") {
            inode = number.parse().ok()?;
        } else if let Some(number) = word.strip_prefix("sk:") {
            cookie = u64::from_str_radix(number, 16).ok()?;
        }
    }
    let holders = holders.get(&inode).filter(|_| inode > 0).cloned().unwrap_or_default();
    let state = State::CLOSE_WAIT;
    let socket = Socket { state, unread, unsent, local, remote, inode, netns, mptcp, holders };
    Some((name, cookie, socket))
}

fn end(word: &str) -> Option<End> {
    let (addr, port) = word.rsplit_once(':')?;
    let addr = addr.split('%').next()?.trim_matches(['[', ']']);
    let addr: IpAddr =
        if addr == "*" { Ipv6Addr::UNSPECIFIED.into() } else { addr.parse().ok()? };
    let port = if port == "*" { 0 } else { port.parse().ok()? };
    Some(End { addr: addr.to_canonical(), port })
}

/// Who holds each socket, by inode. Threads may have descriptor tables of their own.
fn holders() -> HashMap<u64, Holders> {
    let mut holders: HashMap<u64, Holders> = HashMap::new();
    for pid in processes() {
        if u32::try_from(pid) == Ok(id()) {
            continue;
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let fds = fs::read_dir(task.path().join("fd")).into_iter().flatten().flatten();
            for fd in fds {
                let Some(number) = fd.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                if let Some(inode) = fs::read_link(fd.path()).ok().as_deref().and_then(inode) {
                    holders.entry(inode).or_default().insert((pid, number));
                }
            }
        }
    }
    holders
}

fn inode(link: &std::path::Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ss_shows_is_understood() {
        let line = "CLOSE-WAIT 5 0 [::ffff:127.0.0.1]:12000 [::ffff:127.0.0.1]:13007 uid:7 ino:42 sk:1f cgroup:/ <-> rtt:0.04";
        let (name, cookie, socket) = row(line, 1, false, &HashMap::new()).unwrap();
        assert_eq!((name, cookie, socket.inode, socket.unread), ("CLOSE-WAIT", 31, 42, 5));
        assert_eq!(socket.local, End { addr: "127.0.0.1".parse().unwrap(), port: 12_000 });
        let listener = "LISTEN 0 8 *:12001 *:* ino:1 sk:2";
        assert_eq!(row(listener, 1, false, &HashMap::new()).unwrap().2.remote.port, 0);
    }
}
