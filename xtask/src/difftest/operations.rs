//! What random processes do: legal things with sockets, chosen by the seed.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
        ipproto, sockopt,
    },
    pipe::{SpliceFlags, splice},
    thread::{LinkNameSpaceType, move_into_link_name_space, set_name},
};
use serde::{Deserialize, Serialize};

use super::{
    agent::{Agent, Kind},
    sys,
};

/// Descriptors of sockets that a process has at most.
const MOST: usize = 40;
/// `MSG_FASTOPEN` (include/linux/socket.h).
const FAST_OPEN: u32 = 0x2000_0000;
/// The variable that tells the helpers of a run from other programs.
pub(super) const MARK: &str = "TCPWATCH_DIFFTEST";

macro_rules! operations {
    ($($variant:ident $word:literal $weight:literal $method:ident,)*) => {
        /// Something that a process does.
        #[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
        pub(super) enum Operation { $($variant,)* }

        /// All of them, and how often each is chosen.
        pub(super) const OPERATIONS: [(Operation, u64); [$($weight,)*].len()] =
            [$((Operation::$variant, $weight),)*];

        impl std::fmt::Display for Operation {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }

        impl Agent {
            /// Does one; says what it did, or `None` if there was nothing to do it with.
            pub(super) fn operate(&mut self, operation: Operation) -> Done {
                match operation { $(Operation::$variant => self.$method(),)* }
            }
        }
    };
}

type Done = Result<Option<String>>;

operations! {
    Listen "listen" 5 listen,
    Connect "connect" 16 connect,
    Accept "accept" 16 accept,
    Send "send" 10 send,
    Receive "receive" 10 receive,
    ReceiveAll "receive-all" 6 receive_all,
    Peek "peek" 3 peek,
    Splice "splice" 3 splice,
    Shutdown "shutdown" 7 shutdown,
    Close "close" 12 close,
    Reset "reset" 3 reset,
    Dup "dup" 3 dup,
    Dup2 "dup2" 2 dup2,
    Fork "fork" 1 fork,
    Spawn "spawn" 1 spawn,
    Give "give" 3 give,
    Take "take" 5 take,
    Disconnect "disconnect" 2 disconnect,
    Reconnect "reconnect" 2 reconnect,
    Relisten "relisten" 1 relisten,
    CloseListener "close-listener" 1 close_listener,
    KeepAlive "keep-alive" 3 keep_alive,
    UserTimeout "user-timeout" 2 user_timeout,
    Repair "repair" 1 repair,
    Rename "rename" 1 rename,
    Wait "wait" 2 wait,
    OwnFiles "own-files" 1 own_files,
    Epoll "epoll" 3 epoll,
    ChangeNet "change-net" 1 change_net,
    SelfConnect "self-connect" 1 self_connect,
    Nap "nap" 8 nap,
}

impl Agent {
    fn pick(&mut self, wanted: &[Kind]) -> Option<RawFd> {
        let fits =
            |(fd, (_, kind)): (&RawFd, &(OwnedFd, Kind))| wanted.contains(kind).then_some(*fd);
        let fds: Vec<RawFd> = self.sockets.iter().filter_map(fits).collect();
        self.random.pick(&fds).copied()
    }

    fn get(&self, fd: RawFd) -> Result<&OwnedFd> {
        Ok(&self.sockets.get(&fd).context("no such socket")?.0)
    }

    fn keep(&mut self, socket: OwnedFd, kind: Kind) -> String {
        let fd = socket.as_raw_fd();
        self.sockets.insert(fd, (socket, kind));
        format!("fd {fd}")
    }

    fn is_full(&self) -> bool {
        self.sockets.len() > MOST
    }

    fn port(&mut self) -> u16 {
        let offset = u16::try_from(self.random.below(5)).unwrap_or(0);
        self.config.nets[self.net].low + offset
    }

    /// A socket that does not block; now and then one of MPTCP, or one that survives exec.
    fn socket(&mut self) -> Result<(OwnedFd, bool)> {
        let protocol = (self.random.percent(10) && self.config.mptcp).then_some(ipproto::MPTCP);
        let v6 = self.random.percent(33);
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let cloexec =
            if self.random.percent(30) { SocketFlags::empty() } else { SocketFlags::CLOEXEC };
        let flags = cloexec | SocketFlags::NONBLOCK;
        Ok((rustix::net::socket_with(family, SocketType::STREAM, flags, protocol)?, v6))
    }

    fn listen(&mut self) -> Done {
        let listeners = self.sockets.values().filter(|(_, kind)| *kind == Kind::Listener).count();
        if listeners >= 4 || self.is_full() {
            return Ok(None);
        }
        let (socket, v6) = self.socket()?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if self.random.percent(50) {
            sockopt::set_socket_reuseport(&socket, true)?;
        }
        if v6 {
            sockopt::set_ipv6_v6only(&socket, self.random.percent(30))?;
        }
        let address: IpAddr = match (v6, self.random.percent(50)) {
            (true, _) => Ipv6Addr::UNSPECIFIED.into(),
            (false, true) => Ipv4Addr::UNSPECIFIED.into(),
            (false, false) => Ipv4Addr::LOCALHOST.into(),
        };
        if self.random.percent(95) {
            rustix::net::bind(&socket, &SocketAddr::new(address, self.port()))?;
        }
        let backlog = self.random.pick(&[0, 1, 2, 8]).copied().unwrap_or(0);
        rustix::net::listen(&socket, backlog)?;
        Ok(Some(self.keep(socket, Kind::Listener)))
    }

    fn target(&mut self, v6: bool) -> SocketAddr {
        let address: IpAddr = match (v6, self.random.percent(50)) {
            (true, true) => Ipv6Addr::LOCALHOST.into(),
            (true, false) => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            (false, true) => Ipv4Addr::LOCALHOST.into(),
            (false, false) => Ipv4Addr::new(127, 0, 0, 2).into(),
        };
        SocketAddr::new(address, self.port())
    }

    fn go(&mut self, socket: &OwnedFd, to: SocketAddr) -> Result<()> {
        let how = self.random.below(100);
        let result = if how < 10 {
            let data = vec![b'x'; usize::try_from(1 + self.random.below(900))?];
            let flags = SendFlags::from_bits_retain(FAST_OPEN) | SendFlags::NOSIGNAL;
            rustix::net::sendto(socket, &data, flags, &to).map(|_| ())
        } else {
            rustix::net::connect(socket, &to)
        };
        match result {
            Err(Errno::INPROGRESS | Errno::AGAIN) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        if how > 40 {
            let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&pause))?;
        }
        Ok(())
    }

    fn connect(&mut self) -> Done {
        if self.is_full() {
            return Ok(None);
        }
        let (socket, v6) = self.socket()?;
        if self.random.percent(10) {
            let any =
                if v6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
            rustix::net::bind(&socket, &SocketAddr::new(any, 0))?;
        }
        let to = self.target(v6);
        let result = self.go(&socket, to);
        // A socket that could not connect is closed at once, or kept.
        if result.is_err() && self.random.percent(50) {
            return result.map(|()| None);
        }
        Ok(Some(format!("{} to {to}", self.keep(socket, Kind::Connection))))
    }

    fn self_connect(&mut self) -> Done {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let offset = u16::try_from(100 + self.random.below(40))?;
        let port = self.config.nets[self.net].low + offset;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::connect(&socket, &address)?;
        Ok(Some(self.keep(socket, Kind::Connection)))
    }

    fn accept(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Listener]).filter(|_| !self.is_full()) else {
            return Ok(None);
        };
        let cloexec =
            if self.random.percent(30) { SocketFlags::empty() } else { SocketFlags::CLOEXEC };
        let socket = rustix::net::accept_with(self.get(fd)?, cloexec | SocketFlags::NONBLOCK)?;
        Ok(Some(format!("{} of listener {fd}", self.keep(socket, Kind::Connection))))
    }

    fn send(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let length = self.random.pick(&[1, 10, 1_000, 30_000, 200_000]).copied().unwrap_or(1);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::net::send(self.get(fd)?, &vec![b'y'; length], flags)?;
        Ok(Some(format!("fd {fd} {sent}")))
    }

    fn receive_with(&mut self, most: usize, flags: RecvFlags) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let mut buffer = vec![0; most];
        let (_, read) =
            rustix::net::recv(self.get(fd)?, &mut buffer[..], flags | RecvFlags::DONTWAIT)?;
        Ok(Some(format!("fd {fd} {read}")))
    }

    fn receive(&mut self) -> Done {
        let most = self.random.pick(&[1, 5, 100, 100_000]).copied().unwrap_or(1);
        self.receive_with(most, RecvFlags::empty())
    }

    fn peek(&mut self) -> Done {
        self.receive_with(100, RecvFlags::PEEK)
    }

    fn receive_all(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let mut buffer = vec![0; 1 << 16];
        let mut sum = 0;
        loop {
            let (_, read) = rustix::net::recv(self.get(fd)?, &mut buffer[..], RecvFlags::DONTWAIT)?;
            sum += read;
            if read == 0 {
                return Ok(Some(format!("fd {fd} {sum} and the end")));
            }
        }
    }

    fn splice(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(self.get(fd)?, None, &self.pipe.1, None, 4096, flags)?;
        if moved > 0 {
            rustix::io::read(&self.pipe.0, &mut vec![0; moved][..])?;
        }
        Ok(Some(format!("fd {fd} {moved}")))
    }

    fn shutdown(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let ways = [Shutdown::Read, Shutdown::Write, Shutdown::Write, Shutdown::Both];
        let how = self.random.pick(&ways).copied().unwrap_or(Shutdown::Both);
        rustix::net::shutdown(self.get(fd)?, how)?;
        Ok(Some(format!("fd {fd} {how:?}")))
    }

    fn close_one(&mut self, wanted: &[Kind]) -> Done {
        let Some(fd) = self.pick(wanted) else { return Ok(None) };
        drop(self.sockets.remove(&fd));
        Ok(Some(format!("fd {fd}")))
    }

    fn close(&mut self) -> Done {
        self.close_one(&[Kind::Connection, Kind::Fresh])
    }

    fn close_listener(&mut self) -> Done {
        self.close_one(&[Kind::Listener])
    }

    fn reset(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        sockopt::set_socket_linger(self.get(fd)?, Some(Duration::ZERO))?;
        if self.random.percent(30) {
            return Ok(Some(format!("fd {fd} later")));
        }
        drop(self.sockets.remove(&fd));
        Ok(Some(format!("fd {fd}")))
    }

    fn dup(&mut self) -> Done {
        let wanted = [Kind::Connection, Kind::Listener];
        let Some(fd) = self.pick(&wanted).filter(|_| !self.is_full()) else { return Ok(None) };
        let kind = self.sockets.get(&fd).context("no such socket")?.1;
        let copy = rustix::io::dup(self.get(fd)?)?;
        Ok(Some(format!("fd {fd} as {}", self.keep(copy, kind))))
    }

    fn dup2(&mut self) -> Done {
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

    fn fork(&mut self) -> Done {
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
    fn spawn(&mut self) -> Done {
        if self.config.helpers == 0 {
            return Ok(None);
        }
        self.config.helpers -= 1;
        let child = Command::new("sleep")
            .arg("1000")
            .env(MARK, &self.config.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Some(format!("pid {} there", child.id())))
    }

    /// Sends a descriptor to another process, and often closes it.
    fn give(&mut self) -> Done {
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

    fn take(&mut self) -> Done {
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

    fn disconnect(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        rustix::net::connect_unspec(self.get(fd)?)?;
        if let Some((_, kind)) = self.sockets.get_mut(&fd) {
            *kind = Kind::Fresh;
        }
        Ok(Some(format!("fd {fd}")))
    }

    fn reconnect(&mut self) -> Done {
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

    fn relisten(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Listener]) else { return Ok(None) };
        rustix::net::shutdown(self.get(fd)?, Shutdown::Read)?;
        rustix::net::listen(self.get(fd)?, 4)?;
        Ok(Some(format!("fd {fd}")))
    }

    fn keep_alive(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let socket = self.get(fd)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(socket, 2)?;
        Ok(Some(format!("fd {fd}")))
    }

    fn user_timeout(&mut self) -> Done {
        let Some(fd) = self.pick(&[Kind::Connection]) else { return Ok(None) };
        let millis = self.random.pick(&[200, 2_000]).copied().unwrap_or(200);
        sockopt::set_tcp_user_timeout(self.get(fd)?, millis)?;
        Ok(Some(format!("fd {fd} {millis} ms")))
    }

    fn repair(&mut self) -> Done {
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

    fn rename(&mut self) -> Done {
        let name = std::ffi::CString::new(format!("a{} \"\\é", self.random.below(99)))?;
        set_name(&name)?;
        Ok(Some(String::new()))
    }

    /// A thread that waits for data, and then for the next orders.
    fn wait(&mut self) -> Done {
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
    fn own_files(&mut self) -> Done {
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
    fn thread(&mut self, work: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
        let (ours, told) = UnixStream::pair()?;
        self.threads.push((ours, thread::spawn(move || work(told))));
        Ok(())
    }

    /// Ends all threads.
    pub(super) fn end_threads(&mut self) {
        for (tell, thread) in self.threads.drain(..) {
            drop(tell);
            let _ = thread.join();
        }
    }

    fn epoll(&mut self) -> Done {
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

    fn change_net(&mut self) -> Done {
        let net = usize::try_from(self.random.below(self.config.nets.len() as u64))?;
        let file = File::open(&self.config.nets[net].path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        self.net = net;
        Ok(Some(net.to_string()))
    }

    fn nap(&mut self) -> Done {
        thread::sleep(Duration::from_micros(self.random.below(20_000)));
        // Nothing that anybody would look for before a deviation.
        Ok(None)
    }
}
