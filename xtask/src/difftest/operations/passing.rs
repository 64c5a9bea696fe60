//! Descriptors that get other numbers, other processes and other programs.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix,
};

use super::{Agent, Done, Kind, MARK, sys};

impl Agent {
    pub(super) fn dup(&mut self) -> Done {
        let wanted = [Kind::Connection, Kind::Listener];
        let Some(fd) = self.pick(&wanted).filter(|_| !self.is_full()) else { return Ok(None) };
        let kind = self.sockets.get(&fd).context("no such socket")?.1;
        let copy = rustix::io::dup(self.get(fd)?)?;
        Ok(Some(format!("fd {fd} as {}", self.keep(copy, kind))))
    }

    pub(super) fn dup2(&mut self) -> Done {
        let (Some(from), Some(to)) =
            (self.pick(&[Kind::Connection, Kind::Listener]), self.pick(&[Kind::Connection]))
        else {
            return Ok(None);
        };
        if from == to {
            return Ok(None);
        }
        let (mut target, _) = self.sockets.remove(&to).context("no such socket")?;
        let kind = self.sockets.get(&from).context("no such socket")?.1;
        rustix::io::dup2(self.get(from)?, &mut target)?;
        self.keep(target, kind);
        Ok(Some(format!("fd {from} over {to}")))
    }

    pub(super) fn fork(&mut self) -> Done {
        if self.agents >= self.config.most_agents || !self.threads.is_empty() {
            return Ok(None);
        }
        self.agents += 3;
        match sys::fork_alone()? {
            Some(child) => Ok(Some(format!("pid {child} there"))),
            None => self.reborn().map(|()| None),
        }
    }

    /// A program that holds what it inherits.
    pub(super) fn spawn(&mut self) -> Done {
        if self.config.helpers == 0 {
            return Ok(None);
        }
        self.config.helpers -= 1;
        let child = Command::new("sleep")
            .arg("300")
            .env(MARK, &self.config.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Some(format!("pid {} there", child.id())))
    }

    /// Sends a descriptor to another process, and often closes it.
    pub(super) fn give(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection, Kind::Listener]) else { return Ok(None) };
        let Some(to) = self.random.pick(&self.mailboxes).cloned() else { return Ok(None) };
        let (socket, kind) = self.sockets.get(&fd).context("no such socket")?;
        let word = if *kind == Kind::Listener { b"l" } else { b"c" };
        let fds = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)), "no room for a descriptor");
        rustix::net::sendmsg_addr(
            &self.mailbox,
            &SocketAddrUnix::new(&to)?,
            &[IoSlice::new(word)],
            &mut control,
            SendFlags::DONTWAIT,
        )?;
        let name = to.file_name().unwrap_or_default().display().to_string();
        if self.random.percent(60) {
            drop(self.sockets.remove(&fd));
            return Ok(Some(format!("fd {fd} to {name} and closed it")));
        }
        Ok(Some(format!("fd {fd} to {name}")))
    }

    pub(super) fn take(&mut self) -> Done {
        if self.is_full() {
            return Ok(None);
        }
        let mut word = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &self.mailbox,
            &mut [IoSliceMut::new(&mut word)],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        )?;
        let kind = if word == *b"l" { Kind::Listener } else { Kind::Connection };
        let mut taken = String::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    taken += &self.keep(fd, kind);
                }
            }
        }
        Ok(Some(taken))
    }
}
