//! What programs do to a connection beside connecting and closing.

use std::{
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    event::{PollFd, PollFlags, epoll, poll},
    net::{AddressFamily, Shutdown, ipproto, sockopt},
    thread::set_name,
};

use super::{Agent, Done, Kind, sys};

impl Agent {
    pub(super) fn disconnect(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        rustix::net::connect_unspec(self.get(fd)?)?;
        if let Some((_, kind)) = self.sockets.get_mut(&fd) {
            *kind = Kind::Fresh;
        }
        Ok(Some(format!("fd {fd}")))
    }

    pub(super) fn reconnect(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Fresh]) else { return Ok(None) };
        let (socket, _) = self.sockets.remove(&fd).context("no such socket")?;
        let v6 = sockopt::socket_domain(&socket)? == AddressFamily::INET6;
        let (result, kind) = if self.random.percent(20) {
            (rustix::net::listen(&socket, 4).map_err(Into::into), Kind::Listener)
        } else {
            let to = self.target(v6);
            (self.go(&socket, to), Kind::Connection)
        };
        let kind = if result.is_ok() { kind } else { Kind::Fresh };
        let text = self.keep(socket, kind);
        result.map(|()| Some(text))
    }

    pub(super) fn relisten(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Listener]) else { return Ok(None) };
        rustix::net::shutdown(self.get(fd)?, Shutdown::Read)?;
        rustix::net::listen(self.get(fd)?, 4)?;
        Ok(Some(format!("fd {fd}")))
    }

    pub(super) fn keep_alive(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let socket = self.get(fd)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(socket, 2)?;
        Ok(Some(format!("fd {fd}")))
    }

    pub(super) fn user_timeout(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let millis = self.random.pick(&[200, 2_000]).copied().unwrap_or(200);
        sockopt::set_tcp_user_timeout(self.get(fd)?, millis)?;
        Ok(Some(format!("fd {fd} {millis} ms")))
    }

    pub(super) fn repair(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let socket = self.get(fd)?;
        if sockopt::socket_protocol(socket)? == Some(ipproto::MPTCP) {
            return Ok(None);
        }
        sys::repair(socket, true)?;
        if self.random.percent(50) {
            sys::repair(self.get(fd)?, false)?;
            return Ok(Some(format!("fd {fd} for a moment")));
        }
        drop(self.sockets.remove(&fd));
        Ok(Some(format!("fd {fd} and closed it")))
    }

    pub(super) fn rename(&mut self) -> Done {
        let name = std::ffi::CString::new(format!("a{} \"\\é", self.random.below(99)))?;
        set_name(&name)?;
        Ok(Some(String::new()))
    }

    /// A thread that waits for data, and then for the next orders.
    pub(super) fn wait(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]).filter(|_| self.threads.len() < 3) else {
            return Ok(None);
        };
        let copy = rustix::io::fcntl_dupfd_cloexec(self.get(fd)?, 0)?;
        let number = copy.as_raw_fd();
        self.thread(move |told| {
            let mut fds = [PollFd::new(&copy, PollFlags::IN), PollFd::new(&told, PollFlags::IN)];
            if poll(&mut fds, None).is_ok() && fds[1].revents().is_empty() {
                let _ = poll(&mut fds[1..], None);
            }
        })?;
        Ok(Some(format!("fd {fd} as fd {number}")))
    }

    /// A thread with a descriptor table of its own, in which one socket stays open until the next orders.
    pub(super) fn own_files(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]).filter(|_| self.threads.len() < 3) else {
            return Ok(None);
        };
        let (apart, ready) = std::sync::mpsc::channel();
        self.thread(move |told| {
            let own = unshare(CloneFlags::CLONE_FILES).is_ok();
            let _ = apart.send(());
            if own {
                let kept = told.as_raw_fd();
                for other in (3..256).filter(|other| ![fd, kept].contains(other)) {
                    let _ = nix::unistd::close(other);
                }
                let _ = poll(&mut [PollFd::new(&told, PollFlags::IN)], None);
            }
        })?;
        ready.recv()?;
        Ok(Some(format!("fd {fd} in a thread's own table")))
    }

    /// Starts a thread that lasts until the next orders: nothing ends by itself while all is quiet.
    pub(super) fn thread(&mut self, work: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
        let (ours, told) = UnixStream::pair()?;
        self.threads.push((ours, thread::spawn(move || work(told))));
        Ok(())
    }

    /// Ends all threads.
    pub(in crate::difftest) fn end_threads(&mut self) {
        for (tell, thread) in self.threads.drain(..) {
            drop(tell);
            let _ = thread.join();
        }
    }

    pub(super) fn epoll(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection, Kind::Listener]) else { return Ok(None) };
        if self.epolls.len() < 2 {
            self.epolls.push(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        }
        let (input, output) = (epoll::EventFlags::IN, epoll::EventFlags::OUT);
        let (edge, once) = (epoll::EventFlags::ET, epoll::EventFlags::ONESHOT);
        let masks = [input, input | epoll::EventFlags::RDHUP, output, input | edge, input | once];
        let mask = self.random.pick(&masks).copied().unwrap_or(input);
        let at = usize::try_from(self.random.below(self.epolls.len() as u64))?;
        epoll::add(&self.epolls[at], self.get(fd)?, epoll::EventData::new_u64(0), mask)?;
        Ok(Some(format!("fd {fd} {mask:?}")))
    }
}
