//! What random processes do: legal things with sockets, chosen by the seed.

mod odd;
mod passing;

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt,
    },
    pipe::{SpliceFlags, splice},
    thread::{LinkNameSpaceType, move_into_link_name_space},
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

    fn close_one(&mut self, wanted: &[Kind]) -> Option<String> {
        let fd = self.pick(wanted)?;
        drop(self.sockets.remove(&fd));
        Some(format!("fd {fd}"))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as of all operations")]
    fn close(&mut self) -> Done {
        Ok(self.close_one(&[Kind::Connection, Kind::Fresh]))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as of all operations")]
    fn close_listener(&mut self) -> Done {
        Ok(self.close_one(&[Kind::Listener]))
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

    fn change_net(&mut self) -> Done {
        let net = usize::try_from(self.random.below(self.config.nets.len() as u64))?;
        let file = File::open(&self.config.nets[net].path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        self.net = net;
        Ok(Some(net.to_string()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as of all operations")]
    fn nap(&mut self) -> Done {
        thread::sleep(Duration::from_micros(self.random.below(20_000)));
        // Nothing that anybody would look for before a deviation.
        Ok(None)
    }
}
