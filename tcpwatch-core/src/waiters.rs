//! Who waits for a socket: the difference between a forgotten connection and a stuck loop.

const EPOLLIN: u32 = 0x1;
const EPOLLRDNORM: u32 = 0x40;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLEXCLUSIVE: u32 = 1 << 28;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLET: u32 = 1 << 31;
/// Bits that an epoll registration keeps after a one-shot event (`fs/eventpoll.c`:
/// `EP_PRIVATE_BITS`).
const PRIVATE: u32 = 1 << 29 | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

const NAMES: [(u32, &str); 10] = [
    (EPOLLIN, "IN"),
    (0x2, "PRI"),
    (0x4, "OUT"),
    (EPOLLRDNORM, "RDNORM"),
    (0x80, "RDBAND"),
    (0x100, "WRNORM"),
    (EPOLLRDHUP, "RDHUP"),
    (EPOLLEXCLUSIVE, "EXCLUSIVE"),
    (EPOLLONESHOT, "ONESHOT"),
    (EPOLLET, "ET"),
];

/// The wait queue of a socket at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Waiters {
    /// Epoll registrations of its file.
    pub epoll: u8,
    /// Their events, all together, without `ERR` and `HUP`, which are always on.
    pub epoll_events: u32,
    /// Threads blocked in a call on it.
    pub blocked: u8,
    /// The process of the only one.
    pub blocked_pid: Option<u32>,
    /// Others: `poll`, `select`, `io_uring`, epoll of another file.
    pub polled: u8,
}

/// What the queue means for a socket whose peer has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody waits for it.
    Nobody,
    /// In epoll for reading, level-triggered: the loop is told at every turn.
    Level,
    /// In epoll edge-triggered: it was told once.
    Edge,
    /// Its one-shot registration has fired and was not armed again.
    Disarmed,
    /// In epoll, but not for reading.
    NotForReading,
    /// Registered with epoll several times; which events belong to which is not known.
    Several,
    /// A thread is blocked in a call on it.
    Blocked,
    /// Somebody polls it, for what is not known.
    Polled,
}

impl Waiters {
    /// What it means.
    pub fn waiting(&self) -> Waiting {
        let reads = self.epoll_events & (EPOLLIN | EPOLLRDNORM | EPOLLRDHUP) != 0;
        match self {
            Self { blocked: 1.., .. } => Waiting::Blocked,
            Self { epoll: 0, polled: 0, .. } => Waiting::Nobody,
            Self { epoll: 0, .. } => Waiting::Polled,
            _ if self.epoll_events & EPOLLONESHOT != 0 && self.epoll_events & !PRIVATE == 0 => {
                Waiting::Disarmed
            }
            _ if !reads => Waiting::NotForReading,
            Self { epoll: 2.., .. } => Waiting::Several,
            _ if self.epoll_events & EPOLLET != 0 => Waiting::Edge,
            _ => Waiting::Level,
        }
    }

    /// Names of the epoll events, as in `EPOLLIN` without `EPOLL`.
    pub fn event_names(&self) -> Vec<&'static str> {
        NAMES
            .iter()
            .filter(|(bit, _)| self.epoll_events & bit != 0)
            .map(|&(_, name)| name)
            .collect()
    }
}

impl Waiting {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Level => "epoll-level",
            Self::Edge => "epoll-edge",
            Self::Disarmed => "epoll-disarmed",
            Self::NotForReading => "epoll-not-reading",
            Self::Several => "epoll-several",
            Self::Blocked => "blocked",
            Self::Polled => "polled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_told_apart() {
        let epoll = |events| Waiters { epoll: 1, epoll_events: events, ..Waiters::default() };
        assert_eq!(Waiters::default().waiting(), Waiting::Nobody);
        assert_eq!(epoll(0x1).waiting(), Waiting::Level);
        assert_eq!(epoll(0x8000_2001).waiting(), Waiting::Edge);
        assert_eq!(epoll(0x4).waiting(), Waiting::NotForReading);
        assert_eq!(epoll(0x4000_0000).waiting(), Waiting::Disarmed);
        assert_eq!(epoll(0x4000_0001).waiting(), Waiting::Level);
        let blocked = Waiters { blocked: 1, ..epoll(1) };
        assert_eq!(blocked.waiting(), Waiting::Blocked);
        assert_eq!(Waiters { polled: 2, ..Waiters::default() }.waiting(), Waiting::Polled);
        assert_eq!(epoll(0x8000_2005).event_names(), ["IN", "OUT", "RDHUP", "ET"]);
    }
}
