//! The evidence behind a finding, in a line for people.

use super::{
    advice::count,
    finding::{Finding, Verdict},
    process::ProcessFacts,
    waiters::{Waiters, Waiting},
};

/// What was seen, beyond what the summary says.
pub fn line(finding: &Finding) -> String {
    let evidence = &finding.evidence;
    let listening = finding.listener.as_ref();
    let waiters = listening.map_or(evidence.waiters, |listener| listener.waiters);
    let process = evidence.process.as_deref();
    let parts = [
        waiters.map(|waiters| waiting(&waiters)),
        process.map(threads),
        times(finding),
        bytes(finding),
        process.and_then(descriptors),
        process.and_then(|process| process.container.as_ref()).map(ToString::to_string),
        finding.netns_name.as_ref().map(|name| format!("netns {name}")),
    ];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The same of a finding that may be about a later moment than its evidence: then it says so.
pub fn dated_line(finding: &Finding) -> String {
    match line(finding) {
        line if line.is_empty() || finding.is_fresh() => line,
        line => format!("{line}; looked at {} ago", finding.stale_by()),
    }
}

fn waiting(waiters: &Waiters) -> String {
    let events = || waiters.event_names().join(",");
    match waiters.waiting() {
        Waiting::Nobody => "nobody waits for it".to_owned(),
        Waiting::Disarmed => "in epoll, one-shot, not armed".to_owned(),
        Waiting::Several => format!("{} times in epoll for {}", waiters.epoll, events()),
        Waiting::Level | Waiting::Edge | Waiting::NotForReading => {
            format!("in epoll for {}", events())
        }
        Waiting::Blocked => {
            let pid = waiters.blocked_pid.map_or_else(String::new, |pid| format!(" of pid {pid}"));
            format!("{} blocked in a call on it{pid}", count(waiters.blocked.into(), "thread"))
        }
        Waiting::Polled => {
            format!("{} by poll, select or io_uring", count(waiters.polled.into(), "wait"))
        }
    }
}

fn threads(process: &ProcessFacts) -> String {
    match process.describe_threads() {
        none if none.is_empty() => "its threads may not be read (hidepid?)".to_owned(),
        threads => threads,
    }
}

fn times(finding: &Finding) -> Option<String> {
    let activity = finding.activity()?;
    (finding.verdict != Some(Verdict::DeadFd)).then(|| {
        format!(
            "last ack {} ago, data in {} ago, out {} ago",
            activity.ack_received, activity.data_received, activity.data_sent
        )
    })
}

fn bytes(finding: &Finding) -> Option<String> {
    let tcp = finding.socket.tcp?;
    Some(format!("{} in, {} out", count(tcp.bytes_received, "byte"), tcp.bytes_acked))
}

fn descriptors(process: &ProcessFacts) -> Option<String> {
    let (fds, limit) = (process.fds?, process.fd_limit?);
    Some(format!("{fds} of {limit} fds in use"))
}
