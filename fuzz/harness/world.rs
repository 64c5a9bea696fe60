//! A world small enough for its parts to meet: six sockets, four processes, two listeners.

use std::net::{Ipv4Addr, SocketAddr};

use tcpwatch::core::{
    comm::Comm,
    input::{Activity, Input, Observation, Scope, Transition},
    process::{ProcessFacts, Threads},
    socket::{Holder, How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
    state::State,
    time::{Nanos, Timestamp},
    unseen::Unseen,
};

const HOWS: [How; 5] = [How::Connect, How::Listen, How::Accept, How::Fd, How::Listener];
const SCOPES: [Scope; 4] = [Scope::Everything, Scope::Lingering, Scope::Watched, Scope::Changes];
/// What a connection usually does.
const STEPS: [(State, State); 8] = [
    (State::SynRecv, State::Established),
    (State::Established, State::CloseWait),
    (State::CloseWait, State::LastAck),
    (State::CloseWait, State::Close),
    (State::LastAck, State::Close),
    (State::Close, State::Listen),
    (State::Listen, State::Close),
    (State::Close, State::SynSent),
];

/// Bytes as choices; 0 when there are none left.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn are_made(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u8) -> u64 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(first % end)
    }

    fn of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        let end = u8::try_from(N).expect("a byte chooses");
        all[usize::try_from(self.below(end)).expect("a byte")]
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.yes().then(|| make(self))
    }

    fn small(&mut self, end: u8) -> u32 {
        u32::try_from(self.below(end)).expect("a byte")
    }

    fn process(&mut self) -> Process {
        let pid = 6 + self.small(4);
        Process { pid, comm: Comm::from(["web", "app", "\x1b[2J", ""][(pid - 6) as usize]) }
    }
}

/// The next input.
pub(crate) fn input(choices: &mut Choices<'_>, at: Timestamp) -> Input {
    match choices.below(16) {
        0..=5 => transition(choices, at),
        6..=8 => observation(choices, at),
        9 => Input::PassBegin { at, scope: choices.of(SCOPES) },
        10 | 11 => Input::PassEnd { at },
        12 => Input::Exited { at, pid: choices.process().pid },
        13 => Input::Lost { at, count: choices.below(9) },
        14 => Input::Process(facts(choices, at).into()),
        _ => rare(choices, at),
    }
}

fn rare(choices: &mut Choices<'_>, at: Timestamp) -> Input {
    match choices.below(7) {
        0 => Input::PassFailed { at },
        6 => Input::Unseen { at, what: Unseen::Processes },
        4 => Input::Gone { at, id: SocketId(1 + choices.below(6)) },
        1 => Input::Gap { at, count: choices.below(9) },
        2 => Input::Running { at, pid: choices.process().pid },
        3 => Input::Followed { at, pid: choices.process().pid },
        _ => Input::Namespace {
            at,
            inode: 1 + choices.small(2),
            name: choices.maybe(|_| "blue".into()),
        },
    }
}

fn transition(choices: &mut Choices<'_>, at: Timestamp) -> Input {
    let (old, new) =
        if choices.below(4) == 0 { (state(choices), state(choices)) } else { choices.of(STEPS) };
    Input::Transition(Transition {
        at,
        old,
        new,
        entered: earlier(choices, at),
        actor: choices.maybe(Choices::process),
        exiting: choices.below(8) == 0,
        disconnects: choices.below(8) == 0,
        socket: socket(choices, at),
    })
}

fn observation(choices: &mut Choices<'_>, at: Timestamp) -> Input {
    Input::Observed(Observation {
        at,
        state: if choices.yes() { State::CloseWait } else { state(choices) },
        entered: earlier(choices, at),
        holder: choices.maybe(|it| Holder { process: it.process(), fd: it.small(8) }),
        queue: (choices.small(3), choices.small(3)),
        activity: choices.maybe(|it| Activity {
            ack_received: span(it),
            data_received: span(it),
            data_sent: span(it),
            keepalive: it.yes(),
            quiet_since_fin: it.yes(),
        }),
        waiters: None,
        send_window: choices.maybe(|it| it.small(2)),
        details: None,
        socket: socket(choices, at),
    })
}

fn facts(choices: &mut Choices<'_>, at: Timestamp) -> ProcessFacts {
    ProcessFacts {
        pid: choices.process().pid,
        at,
        started: earlier(choices, at),
        cgroup: None,
        container: None,
        fds: choices.maybe(|it| it.below(20)),
        fd_limit: choices.maybe(|it| it.below(20)),
        threads: vec![Threads { count: 1, state: choices.of(['S', 'R', 'T', 'D']), wait: None }],
        frozen: choices.below(8) == 0,
        threads_unseen: choices.below(2),
    }
}

fn socket(choices: &mut Choices<'_>, at: Timestamp) -> Socket {
    let number = choices.below(7);
    let port = 5000 + u16::try_from(number).expect("a byte");
    Socket {
        id: (number > 0).then_some(SocketId(number)),
        cookie: None,
        listener: choices.maybe(|it| SocketId(1 + it.below(2))),
        born: earlier(choices, at),
        netns: 1 + choices.small(2),
        protocol: if choices.below(8) == 0 { Protocol::Mptcp } else { Protocol::Tcp },
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        remote: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 9), port)),
        uid: 0,
        cgroup: None,
        inode: choices.maybe(|_| 100 + number),
        owner: choices.maybe(|it| Owner { process: it.process(), how: it.of(HOWS) }),
        role: choices.maybe(|it| it.of([Role::Client, Role::Server])),
        has_file: choices.yes(),
        watched: choices.below(8) == 0,
        tcp: choices.maybe(|it| TcpInfo {
            bytes_received: it.below(3),
            bytes_acked: it.below(3),
            unread: it.small(3),
            unsent: it.small(3),
            srtt_us: 40,
            retransmits: 0,
        }),
        error: if choices.below(8) == 0 { 104 } else { 0 },
        uncertain: false,
    }
}

fn state(choices: &mut Choices<'_>) -> State {
    let number = u8::try_from(1 + choices.below(12)).expect("a byte");
    State::from_number(number).unwrap_or(State::CloseWait)
}

fn span(choices: &mut Choices<'_>) -> Nanos {
    Nanos(choices.below(8) * 1_000_000_000)
}

fn earlier(choices: &mut Choices<'_>, at: Timestamp) -> Option<Timestamp> {
    choices.maybe(|it| Timestamp(at.0.saturating_sub(span(it).0)))
}
