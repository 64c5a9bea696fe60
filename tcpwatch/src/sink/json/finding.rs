//! A finding and its evidence as JSON; `sink/json.rs` says what the fields mean.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Endpoint, Identity, ProcessField};
use crate::{
    core::{
        advice,
        detail::TcpDetails,
        finding::{Ending, Finding, Listener},
        process::{ProcessFacts, Threads},
        socket::Holder,
        time::ClockMark,
        waiters::Waiters,
    },
    sink::rfc3339,
};

#[derive(Serialize)]
struct HolderField {
    pid: u32,
    comm: String,
    fd: u32,
}

impl From<&Holder> for HolderField {
    fn from(holder: &Holder) -> Self {
        Self { pid: holder.process.pid, comm: holder.process.comm.to_string(), fd: holder.fd }
    }
}

#[derive(Serialize)]
pub(super) struct FindingLine {
    r#type: &'static str,
    ts: String,
    mono_ns: u64,
    #[serde(flatten)]
    identity: Identity,
    verdict: Option<&'static str>,
    status: &'static str,
    state: &'static str,
    linger_ns: u64,
    linger_at_least: bool,
    linger_at_most_ns: Option<u64>,
    uncertain: bool,
    unread: Option<u32>,
    unsent: Option<u32>,
    holders: Vec<HolderField>,
    listener: Option<ListenerField>,
    ended: Option<EndedField>,
    same_owner: usize,
    netns_name: Option<String>,
    inode: Option<u64>,
    evidence: EvidenceField,
    process: Option<ProcessFactsField>,
    summary: String,
}

#[derive(Serialize)]
struct ListenerField {
    local: Endpoint,
    holders: Vec<HolderField>,
    accepting: usize,
    queue_len: u32,
    queue_limit: u32,
    waiters: Option<WaitersField>,
}

impl From<&Listener> for ListenerField {
    fn from(listener: &Listener) -> Self {
        Self {
            local: listener.local.into(),
            holders: listener.holders.iter().map(HolderField::from).collect(),
            accepting: listener.accepting,
            queue_len: listener.queue_len,
            queue_limit: listener.queue_limit,
            waiters: listener.waiters.map(WaitersField::from),
        }
    }
}

#[derive(Serialize)]
struct EndedField {
    how: &'static str,
    by: Option<ProcessField>,
}

impl From<Ending> for EndedField {
    fn from(ending: Ending) -> Self {
        Self { how: ending.cause.word(), by: ending.by.map(ProcessField::from) }
    }
}

impl FindingLine {
    pub(super) fn new(clock: &ClockMark, finding: &Finding) -> Self {
        Self {
            r#type: "finding",
            ts: rfc3339(clock, finding.at),
            mono_ns: finding.at.0,
            identity: Identity::new(&finding.socket),
            verdict: finding.verdict.map(crate::core::finding::Verdict::word),
            status: finding.status.word(),
            state: finding.state.name(),
            linger_ns: finding.linger.0,
            linger_at_least: finding.at_least,
            linger_at_most_ns: finding.at_most.map(|span| span.0),
            uncertain: finding.socket.uncertain,
            unread: finding.socket.tcp.map(|tcp| tcp.unread),
            unsent: finding.socket.tcp.map(|tcp| tcp.unsent),
            holders: finding.holders.iter().map(HolderField::from).collect(),
            listener: finding.listener.as_ref().map(ListenerField::from),
            ended: finding.ending.map(EndedField::from),
            same_owner: finding.same_owner,
            netns_name: finding.netns_name.as_deref().map(str::to_owned),
            inode: finding.socket.inode,
            evidence: EvidenceField::new(finding),
            process: finding.evidence.process.as_deref().map(ProcessFactsField::from),
            summary: advice::summary(finding),
        }
    }
}

#[derive(Serialize)]
struct EvidenceField {
    waiters: Option<WaitersField>,
    opener: Option<ProcessField>,
    server: Option<ProcessField>,
    last_ack_received_ns: Option<u64>,
    last_data_received_ns: Option<u64>,
    last_data_sent_ns: Option<u64>,
    keepalive: Option<bool>,
    send_window: Option<u32>,
    bytes_received: Option<u64>,
    bytes_acked: Option<u64>,
    srtt_us: Option<u32>,
    retransmits: Option<u32>,
    error: u32,
    tcp: Option<DetailsField>,
}

impl EvidenceField {
    fn new(finding: &Finding) -> Self {
        let evidence = &finding.evidence;
        let (activity, tcp) = (finding.activity(), finding.socket.tcp);
        Self {
            waiters: evidence.waiters.map(WaitersField::from),
            opener: evidence.opener.map(ProcessField::from),
            server: evidence.server.map(ProcessField::from),
            last_ack_received_ns: activity.map(|activity| activity.ack_received.0),
            last_data_received_ns: activity.map(|activity| activity.data_received.0),
            last_data_sent_ns: activity.map(|activity| activity.data_sent.0),
            keepalive: activity.map(|activity| activity.keepalive),
            send_window: evidence.send_window,
            bytes_received: tcp.map(|tcp| tcp.bytes_received),
            bytes_acked: tcp.map(|tcp| tcp.bytes_acked),
            srtt_us: tcp.map(|tcp| tcp.srtt_us),
            retransmits: tcp.map(|tcp| tcp.retransmits),
            error: finding.socket.error,
            tcp: evidence.details.as_deref().map(DetailsField::from),
        }
    }
}

#[derive(Serialize)]
struct DetailsField {
    congestion: String,
    timer: Option<TimerField>,
    #[serde(flatten)]
    numbers: BTreeMap<&'static str, Option<u64>>,
}

#[derive(Serialize)]
struct TimerField {
    kind: &'static str,
    expires_ms: u64,
    retries: u64,
}

impl From<&TcpDetails> for DetailsField {
    fn from(details: &TcpDetails) -> Self {
        Self {
            congestion: details.congestion.to_string(),
            timer: details.timer.map(|timer| TimerField {
                kind: timer.kind,
                expires_ms: timer.expires_in.0 / 1_000_000,
                retries: timer.retries,
            }),
            numbers: details.numbers.iter().copied().collect(),
        }
    }
}

#[derive(Serialize)]
struct WaitersField {
    waiting: &'static str,
    epoll: u8,
    epoll_events: Vec<&'static str>,
    blocked: u8,
    blocked_pid: Option<u32>,
    polled: u8,
}

impl From<Waiters> for WaitersField {
    fn from(waiters: Waiters) -> Self {
        Self {
            waiting: waiters.waiting().word(),
            epoll: waiters.epoll,
            epoll_events: waiters.event_names(),
            blocked: waiters.blocked,
            blocked_pid: waiters.blocked_pid,
            polled: waiters.polled,
        }
    }
}

#[derive(Serialize)]
struct ProcessFactsField {
    pid: u32,
    cgroup_path: Option<String>,
    container: Option<ContainerField>,
    fds: Option<u64>,
    fd_limit: Option<u64>,
    stopped: bool,
    frozen: bool,
    threads: Vec<ThreadsField>,
    threads_unseen: u64,
}

#[derive(Serialize)]
struct ContainerField {
    id: String,
    runtime: Option<&'static str>,
    pod_uid: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    name: Option<String>,
}

#[derive(Serialize)]
struct ThreadsField {
    count: u64,
    state: char,
    wait: Option<String>,
}

impl From<&Threads> for ThreadsField {
    fn from(threads: &Threads) -> Self {
        Self { count: threads.count, state: threads.state, wait: threads.wait.clone() }
    }
}

impl From<&ProcessFacts> for ProcessFactsField {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            pid: facts.pid,
            cgroup_path: facts.cgroup.clone(),
            container: facts.container.as_ref().map(|container| ContainerField {
                id: container.id.clone(),
                runtime: container.runtime,
                pod_uid: container.pod_uid.clone(),
                namespace: container.names.as_ref().map(|names| names.namespace.clone()),
                pod: container.names.as_ref().map(|names| names.pod.clone()),
                name: container.names.as_ref().and_then(|names| names.container.clone()),
            }),
            fds: facts.fds,
            fd_limit: facts.fd_limit,
            stopped: facts.is_stopped(),
            frozen: facts.frozen,
            threads: facts.threads.iter().map(ThreadsField::from).collect(),
            threads_unseen: facts.threads_unseen,
        }
    }
}
