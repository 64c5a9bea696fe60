//! A short notation for inputs, so that a scenario is a text file.
//!
//! ```text
//! rules linger=30s pid=7
//! 0.0  tcp #2 ESTABLISHED>CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 owner=web[7]/accept unread=1 inode=9
//! 30.1 pass lingering
//! 30.1 see #2 CLOSE_WAIT 127.0.0.1:80 10.0.0.9:5000 holder=web[7]:4 unread=0 inode=9
//! 30.1 gone #3
//! 30.2 end
//! 35   failed
//! 40   lost 3
//! 40   gap 3
//! 41   exit 7
//! 42   clock
//! 43   process 7 fds=12 limit=1024 threads=4S:futex_do_wait started=0.5
//! 44   follow 8
//! 45   running 7
//! 46   gap 2
//! 48   tcp - CLOSE>SYN_SENT 127.0.0.1:80 10.0.0.9:5000  (without storage it has no id)
//! 47   name 1 blue         (network namespace 1; without a name it has none any more)
//! ```

use std::{fmt::Debug, str::FromStr, sync::Arc, time::Duration};

use tcpwatch::{
    config,
    core::{
        comm::Comm,
        container::Container,
        filter::Filter,
        input::{Activity, Input, Observation, Scope, Transition},
        process::{ProcessFacts, Threads},
        socket::{Holder, How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
        tracker::Rules,
        waiters::Waiters,
    },
};

pub(crate) fn rules(line: &str) -> Rules {
    let mut rules = Rules {
        linger: Duration::from_secs(30).into(),
        filter: Filter::default(),
        findings_only: false,
        include_half_open: false,
        tell_culprits: true,
    };
    for word in line.split_whitespace().skip(1) {
        match word.split_once('=').unwrap_or((word, "")) {
            ("linger", time) => rules.linger = config::duration(time).unwrap().into(),
            ("follow", _) => rules.filter.follow = true,
            ("pid", pids) => {
                rules.filter.pids = pids.split(',').map(|pid| pid.parse().unwrap()).collect();
            }
            ("remote", port) => rules.filter.remote_ports = [port.parse().unwrap()].into(),
            ("findings", _) => rules.findings_only = true,
            ("hides-holders", _) => rules.filter.hides_holders = true,
            ("half-open", _) => rules.include_half_open = true,
            other => panic!("no rule {other:?}"),
        }
    }
    rules
}

pub(crate) fn input(line: &str) -> Input {
    let words: Vec<_> = line.split_whitespace().collect();
    let at = time(words[0]);
    match words[1] {
        "tcp" => {
            let (old, new) = words[3].split_once('>').unwrap();
            let socket = socket(words[2], &words[4..]);
            let actor = value(&words, "by").map(process);
            let entered = value(&words, "entered").map(time);
            let (old, new) = (state(old), state(new));
            let exiting = words.contains(&"exiting");
            let disconnects = words.contains(&"disconnects");
            let transition =
                Transition { at, old, new, entered, actor, exiting, disconnects, socket };
            Input::Transition(transition)
        }
        "see" => Input::Observed(Observation {
            at,
            state: state(words[3]),
            entered: value(&words, "entered").map(time),
            holder: value(&words, "holder").map(|text| {
                let (who, fd) = text.rsplit_once(':').unwrap();
                Holder { process: process(who), fd: fd.parse().unwrap() }
            }),
            queue: value(&words, "queue").map_or((0, 0), |text| {
                let (len, limit) = text.split_once('/').unwrap();
                (len.parse().unwrap(), limit.parse().unwrap())
            }),
            activity: value(&words, "ages").map(|text| {
                let spans: Vec<_> = text.split('/').map(|span| Nanos(time(span).0)).collect();
                Activity {
                    ack_received: spans[0],
                    data_received: spans[1],
                    data_sent: spans[2],
                    keepalive: words.contains(&"keepalive"),
                    quiet_since_fin: words.contains(&"quiet"),
                }
            }),
            waiters: value(&words, "waiters").map(waiters),
            send_window: number(&words, "window"),
            details: None,
            socket: socket(words[2], &words[4..]),
        }),
        "process" => Input::Process(Arc::new(ProcessFacts {
            pid: words[2].parse().unwrap(),
            at,
            started: value(&words, "started").map(time),
            cgroup: value(&words, "cgroup").map(str::to_owned),
            container: value(&words, "cgroup").and_then(Container::from_cgroup),
            fds: number(&words, "fds"),
            fd_limit: number(&words, "limit"),
            threads: value(&words, "threads").map(threads).into_iter().collect(),
            frozen: false,
            threads_unseen: 0,
        })),
        "follow" => Input::Followed { at, pid: words[2].parse().unwrap() },
        "pass" => {
            let scope = match words[2] {
                "everything" => Scope::Everything,
                "lingering" => Scope::Lingering,
                "watched" => Scope::Watched,
                "changes" => Scope::Changes,
                other => panic!("no scope {other}"),
            };
            Input::PassBegin { at, scope }
        }
        "gone" => Input::Gone { at, id: id(words[2]) },
        "end" => Input::PassEnd { at },
        "failed" => Input::PassFailed { at },
        "lost" => Input::Lost { at, count: words[2].parse().unwrap() },
        "gap" => Input::Gap { at, count: words[2].parse().unwrap() },
        "running" => Input::Running { at, pid: words[2].parse().unwrap() },
        "name" => {
            let name = words.get(3).map(|&name| Arc::from(name));
            Input::Namespace { at, inode: words[2].parse().unwrap(), name }
        }
        "exit" => Input::Exited { at, pid: words[2].parse().unwrap() },
        "clock" => Input::Clock(clock(at)),
        other => panic!("no input {other:?}"),
    }
}

/// `nobody`, `polled`, or `epoll:EVENTS` in hexadecimal.
fn waiters(text: &str) -> Waiters {
    match text.split_once(':') {
        _ if text == "polled" => Waiters { polled: 1, ..Waiters::default() },
        Some(("epoll", events)) => Waiters {
            epoll: 1,
            epoll_events: u32::from_str_radix(events, 16).unwrap(),
            ..Waiters::default()
        },
        _ => Waiters::default(),
    }
}

/// `4S:futex_do_wait`: how many, their state, and where they wait, if that is known.
fn threads(text: &str) -> Threads {
    let (what, wait) = text.split_once(':').map_or((text, None), |(what, wait)| (what, Some(wait)));
    let (count, state) = what.split_at(what.len() - 1);
    Threads {
        count: count.parse().unwrap(),
        state: state.chars().next().unwrap(),
        wait: wait.map(str::to_owned),
    }
}

fn number<T: FromStr<Err: Debug>>(words: &[&str], key: &str) -> Option<T> {
    value(words, key).map(|text| text.parse().unwrap())
}

/// Wall time is monotonic time after the first of January 2026.
pub(crate) fn clock(at: Timestamp) -> ClockMark {
    ClockMark { mono: at, boot: at, real_ns: 1_767_225_600_000_000_000 + at.0 }
}

pub(crate) fn time(text: &str) -> Timestamp {
    let seconds: f64 = text.parse().unwrap();
    Timestamp(u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap())
}

fn state(text: &str) -> State {
    text.parse().unwrap()
}

fn process(text: &str) -> Process {
    let (comm, pid) = text.split_once('[').unwrap();
    Process { pid: pid.trim_end_matches(']').parse().unwrap(), comm: Comm::from(comm) }
}

fn id(text: &str) -> SocketId {
    SocketId(text.trim_start_matches('#').parse().unwrap())
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn socket(name: &str, words: &[&str]) -> Socket {
    let number = |key| value(words, key).map(|text| text.parse::<u64>().unwrap());
    let small = |key| number(key).map_or(0, |number| u32::try_from(number).unwrap());
    let addrs: Vec<_> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let inode = number("inode");
    Socket {
        id: (name != "-").then(|| id(name)),
        cookie: number("cookie"),
        listener: value(words, "listener").map(id),
        born: value(words, "born").map(time),
        netns: 1,
        protocol: if words.contains(&"mptcp") { Protocol::Mptcp } else { Protocol::Tcp },
        local: addrs[0],
        remote: addrs.get(1).copied().unwrap_or("0.0.0.0:0".parse().unwrap()),
        uid: 0,
        cgroup: None,
        inode,
        owner: value(words, "owner").map(|text| {
            let (who, how) = text.split_once('/').unwrap();
            let how = [How::Connect, How::Listen, How::Accept, How::Fd, How::Listener]
                .into_iter()
                .find(|candidate| candidate.word() == how)
                .unwrap();
            Owner { process: process(who), how }
        }),
        role: match value(words, "role") {
            Some("client") => Some(Role::Client),
            Some("server") => Some(Role::Server),
            _ => None,
        },
        has_file: inode.is_some(),
        watched: false,
        tcp: (!words.contains(&"mptcp")).then(|| TcpInfo {
            bytes_received: 0,
            bytes_acked: number("acked").unwrap_or(0),
            unread: small("unread"),
            unsent: small("unsent"),
            srtt_us: 40,
            retransmits: 0,
        }),
        error: small("error"),
        uncertain: words.contains(&"missed"),
    }
}
