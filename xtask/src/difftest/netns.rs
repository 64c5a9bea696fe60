//! The network namespaces of the random processes.

use std::{
    fs::{self, File},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, id},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::world::{FIRST_PORT, PORTS_PER_NET};
use crate::exec;

/// A network namespace, also when it has no name any more.
pub(super) struct Netns {
    name: String,
    file: File,
    pub(super) inode: u64,
    pub(super) deleted: bool,
}

impl Netns {
    pub(super) fn new(number: u16) -> Result<Self> {
        let name = format!("difftest-{}-{number}", id());
        exec(Command::new("ip").args(["netns", "add", &name]))?;
        let file = File::open(Path::new("/run/netns").join(&name))?;
        let inode = file.metadata()?.st_ino();
        let net = Self { name, file, inode, deleted: false };
        exec(Command::new("ip").args(["-n", &net.name, "link", "set", "lo", "up"]))?;
        let low = FIRST_PORT + number * PORTS_PER_NET + PORTS_PER_NET / 2;
        let settings = [
            ("ip_local_port_range", format!("{low} {}", low + PORTS_PER_NET / 2 - 1)),
            ("tcp_fastopen", "519".to_owned()),
            ("tcp_fin_timeout", "2".to_owned()),
            ("tcp_syn_retries", "2".to_owned()),
        ];
        net.inside(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/net/ipv4/{name}");
                fs::write(&path, value).with_context(|| format!("write {path}"))?;
            }
            Ok(())
        })?;
        Ok(net)
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    pub(super) fn delete(&mut self) -> Result<()> {
        self.deleted = true;
        exec(Command::new("ip").args(["netns", "del", &self.name]))
    }

    /// Does something on a thread that is in this namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            inside.join().map_err(|_| anyhow!("a thread panicked"))?
        })
    }

    /// Runs a program in it; what that printed.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.inside(|| crate::output(Command::new(program).args(arguments)))
    }
}
