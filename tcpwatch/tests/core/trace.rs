//! What is written to a trace is what is read from it.

use std::{net::SocketAddr, sync::Arc};

use proptest::prelude::*;
use tcpwatch::{
    core::{
        comm::Comm,
        container::Container,
        detail::{self, TcpDetails, Timer},
        input::{Activity, Input, Observation, Scope, Transition},
        process::{ProcessFacts, Threads},
        socket::{Holder, How, Owner, Process, Protocol, Role, Socket, SocketId, TcpInfo},
        state::State,
        time::{ClockMark, Nanos, Timestamp},
        unseen::Unseen,
        waiters::Waiters,
    },
    trace::{
        decode::Decoder,
        encode::{Encoder, Sealed},
        pack::{Packer, Unpacker},
    },
};

use crate::properties::story;

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![5 => (0u64..10_000_000_000).prop_map(Timestamp), 1 => any::<u64>().prop_map(Timestamp)]
}

fn state() -> impl Strategy<Value = State> {
    proptest::sample::select(&State::ALL[..])
}

fn process() -> impl Strategy<Value = Process> {
    (1u32..6, "[a-z\\PC]{0,5}")
        .prop_map(|(pid, comm)| Process { pid, comm: Comm::from_bytes(comm.as_bytes()) })
}

fn end() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(
            std::net::Ipv6Addr::from(ip).to_canonical(),
            port
        )),
    ]
}

fn socket() -> impl Strategy<Value = Socket> {
    let how = proptest::sample::select(vec![
        How::Connect,
        How::Listen,
        How::Accept,
        How::Fd,
        How::Listener,
    ]);
    let ids = (
        proptest::option::weighted(0.9, 0u64..5),
        any::<Option<u64>>(),
        proptest::option::of(0u64..5),
        proptest::option::of(time()),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
    );
    let tcp = proptest::option::of(any::<(u64, u64, u32, u32, u32, u32)>());
    (
        ids,
        any::<(u32, u32, u32)>(),
        end(),
        end(),
        proptest::option::of((process(), how)),
        any::<(bool, bool, bool, bool, Option<bool>)>(),
        tcp,
    )
        .prop_map(
            |(
                ids,
                (netns, uid, error),
                local,
                remote,
                owner,
                (mptcp, has_file, watched, uncertain, client),
                tcp,
            )| Socket {
                id: ids.0.map(SocketId),
                cookie: ids.1,
                listener: ids.2.map(SocketId),
                born: ids.3,
                netns,
                protocol: if mptcp { Protocol::Mptcp } else { Protocol::Tcp },
                local,
                remote,
                uid,
                cgroup: ids.4,
                inode: ids.5,
                owner: owner.map(|(process, how)| Owner { process, how }),
                role: client.map(|client| if client { Role::Client } else { Role::Server }),
                has_file,
                watched,
                tcp: tcp.map(|tcp| TcpInfo {
                    bytes_received: tcp.0,
                    bytes_acked: tcp.1,
                    unread: tcp.2,
                    unsent: tcp.3,
                    srtt_us: tcp.4,
                    retransmits: tcp.5,
                }),
                error,
                uncertain,
            },
        )
}

fn transition() -> impl Strategy<Value = Input> {
    let actor = proptest::option::of(process());
    let did = (any::<bool>(), any::<bool>());
    (time(), state(), state(), proptest::option::of(time()), actor, did, socket()).prop_map(
        |(at, old, new, entered, actor, (exiting, disconnects), socket)| {
            let transition =
                Transition { at, old, new, entered, actor, exiting, disconnects, socket };
            Input::Transition(transition)
        },
    )
}

fn details() -> impl Strategy<Value = TcpDetails> {
    let numbers = proptest::collection::vec(proptest::option::of(0..u64::MAX), detail::NAMES.len());
    let timer = proptest::option::of((
        proptest::sample::select(vec!["on", "persist", "keepalive"]),
        any::<u64>(),
        any::<u64>(),
    ));
    (numbers, timer).prop_map(|(numbers, timer)| TcpDetails {
        congestion: Comm::from("cubic"),
        numbers: detail::NAMES.into_iter().zip(numbers).collect(),
        timer: timer.map(|(kind, expires, retries)| Timer {
            kind,
            expires_in: Nanos(expires),
            retries,
        }),
    })
}

fn observation() -> impl Strategy<Value = Input> {
    let activity = any::<Option<(u64, u64, u64, bool, bool)>>();
    let waiters = any::<Option<(u8, u32, u8, Option<u32>, u8)>>();
    let holder = proptest::option::of((process(), any::<u32>()));
    let more = (any::<(u32, u32)>(), any::<Option<u32>>(), proptest::option::of(details()));
    (time(), state(), proptest::option::of(time()), holder, activity, waiters, more, socket())
        .prop_map(
            |(
                at,
                state,
                entered,
                holder,
                activity,
                waiters,
                (queue, send_window, details),
                socket,
            )| {
                Input::Observed(Observation {
                    at,
                    state,
                    entered,
                    holder: holder.map(|(process, fd)| Holder { process, fd }),
                    queue,
                    activity: activity.map(|a| Activity {
                        ack_received: Nanos(a.0),
                        data_received: Nanos(a.1),
                        data_sent: Nanos(a.2),
                        keepalive: a.3,
                        quiet_since_fin: a.4,
                    }),
                    waiters: waiters.map(|w| Waiters {
                        epoll: w.0,
                        epoll_events: w.1,
                        blocked: w.2,
                        blocked_pid: w.3,
                        polled: w.4,
                    }),
                    send_window,
                    details: details.map(Arc::new),
                    socket,
                })
            },
        )
}

fn facts() -> impl Strategy<Value = Input> {
    (
        time(),
        any::<u32>(),
        any::<(Option<u64>, Option<u64>, bool, u64)>(),
        proptest::option::of(time()),
        "[a-z/-]{0,9}",
    )
        .prop_map(|(at, pid, (fds, fd_limit, frozen, threads_unseen), started, cgroup)| {
            Input::Process(Arc::new(ProcessFacts {
                pid,
                at,
                started,
                container: Container::from_cgroup(&format!("/docker/{}", "ab".repeat(32))),
                cgroup: Some(cgroup),
                fds,
                fd_limit,
                threads: vec![Threads { count: 3, state: 'S', wait: Some("ep_poll".to_owned()) }],
                frozen,
                threads_unseen,
            }))
        })
}

pub(crate) fn input() -> impl Strategy<Value = Input> {
    let scope = proptest::sample::select(vec![
        Scope::Everything,
        Scope::Lingering,
        Scope::Watched,
        Scope::Changes,
    ]);
    let clock = (time(), any::<u64>(), any::<u64>()).prop_map(|(mono, boot, real_ns)| {
        Input::Clock(ClockMark { mono, boot: Timestamp(boot), real_ns })
    });
    prop_oneof![
        8 => transition(),
        4 => observation(),
        1 => clock,
        1 => facts(),
        1 => (time(), scope).prop_map(|(at, scope)| Input::PassBegin { at, scope }),
        1 => time().prop_map(|at| Input::PassEnd { at }),
        1 => time().prop_map(|at| Input::PassFailed { at }),
        1 => (time(), any::<u64>()).prop_map(|(at, count)| Input::Lost { at, count }),
        1 => (time(), any::<u32>()).prop_map(|(at, pid)| Input::Running { at, pid }),
        1 => (time(), any::<u32>()).prop_map(|(at, pid)| Input::Exited { at, pid }),
        1 => (time(), any::<u32>()).prop_map(|(at, pid)| Input::Followed { at, pid }),
        1 => (time(), any::<u32>(), "[a-z]{0,9}").prop_map(|(at, inode, name)| Input::Namespace { at, inode, name: Some(name).filter(|name| !name.is_empty()).map(Into::into) }),
        1 => (time(), any::<u64>()).prop_map(|(at, id)| Input::Gone { at, id: SocketId(id) }),
        1 => (time(), any::<bool>()).prop_map(|(at, queues)| Input::Unseen { at, what: Unseen::ALL[usize::from(queues)] }),
        1 => time().prop_map(|at| Input::End { at }),
    ]
}

fn decode(payload: &[u8]) -> Vec<Input> {
    let mut decoder = Decoder::new(payload).unwrap();
    let inputs = std::iter::from_fn(|| decoder.next_input().unwrap()).collect();
    assert_eq!(decoder.unknown, 0);
    inputs
}

fn encode(inputs: &[Input], per_block: usize) -> Vec<Sealed> {
    let mut encoder = Encoder::default();
    let blocks = inputs.chunks(per_block).map(|chunk| {
        for input in chunk {
            encoder.push(input);
        }
        encoder.seal(Vec::new())
    });
    blocks.collect()
}

proptest! {
    #[test]
    fn what_is_recorded_is_replayed(inputs in proptest::collection::vec(input(), 1..60), per_block in 1usize..40) {
        let blocks = encode(&inputs, per_block);
        let read: Vec<_> = blocks.iter().flat_map(|block| decode(&block.payload)).collect();
        prop_assert_eq!(&read, &inputs);
        let transitions = inputs.iter().filter(|input| matches!(input, Input::Transition(_))).count();
        let headers: u64 = blocks.iter().map(|block| u64::from(block.header.transitions.get())).sum();
        prop_assert_eq!(headers, transitions as u64);
        for block in &blocks {
            // Any one is read without those before it.
            prop_assert_eq!(decode(&block.payload).len(), block.header.inputs.get() as usize);
        }
    }

    #[test]
    fn a_story_is_replayed(story in story()) {
        let blocks = encode(&story, 7);
        let read: Vec<_> = blocks.iter().flat_map(|block| decode(&block.payload)).collect();
        prop_assert_eq!(read, story);
    }

    #[test]
    fn packed_is_unpacked(payload: Vec<u8>, flip: (usize, u8)) {
        let mut header = encode(&[Input::End { at: Timestamp(1) }], 1)[0].header;
        let mut packer = Packer::new(3).unwrap();
        let mut stored = packer.pack(&mut header, &payload).to_vec();
        let mut unpacker = Unpacker::new().unwrap();
        let mut restored = Vec::new();
        unpacker.unpack(&header, &stored, &mut restored).unwrap();
        prop_assert_eq!(&restored, &payload);
        if !stored.is_empty() && flip.1 != 0 {
            let at = flip.0 % stored.len();
            stored[at] ^= flip.1;
            prop_assert!(unpacker.unpack(&header, &stored, &mut restored).is_err());
        }
    }

    #[test]
    fn any_bytes_are_inputs_or_refused(payload: Vec<u8>) {
        if let Ok(mut decoder) = Decoder::new(&payload) {
            while let Ok(Some(_)) = decoder.next_input() {}
        }
    }

    #[test]
    fn a_changed_payload_is_inputs_or_refused(
        inputs in proptest::collection::vec(input(), 1..20),
        flips in proptest::collection::vec(any::<(usize, u8)>(), 1..4),
    ) {
        let mut payload = encode(&inputs, usize::MAX)[0].payload.clone();
        for (at, value) in flips {
            let at = at % payload.len();
            payload[at] = value;
        }
        if let Ok(mut decoder) = Decoder::new(&payload) {
            while let Ok(Some(_)) = decoder.next_input() {}
        }
    }
}
