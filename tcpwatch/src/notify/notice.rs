//! A finding on its way out: a copy, with the clock that places it in wall time.

use std::io;

use crate::{
    core::{
        advice,
        culprits::Key,
        finding::{Finding, Status, Verdict},
        record::Record,
        socket::{Process, Role},
        time::{ClockMark, Nanos},
    },
    sink::Sink as _,
    sink::{json::JsonSink, utc},
};

/// From this share of its descriptors on, per cent, a process is about to fail.
const NEARLY_ALL: u64 = 90;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// It is over, or nobody's fault.
    Info,
    /// A leak.
    Warning,
    /// A leak of a process that has nearly all the descriptors it may have.
    Error,
}

impl Severity {
    /// The word users see.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a task gets.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    clock: ClockMark,
    pub(super) finding: Finding,
}

impl Notice {
    pub(super) fn new(clock: &ClockMark, finding: &Finding) -> Self {
        Self { clock: *clock, finding: finding.clone() }
    }

    /// When it was found, ns since 1970.
    pub(super) fn wall_ns(&self) -> u64 {
        self.clock.wall_ns(self.finding.at)
    }

    pub(super) fn summary(&self) -> String {
        advice::summary(&self.finding)
    }

    pub(super) fn verdict(&self) -> &'static str {
        self.finding.verdict.map_or("unconfirmed", Verdict::word)
    }

    /// What it shares with other findings of one culprit.
    pub(super) fn culprit(&self) -> Key {
        Key::of(&self.finding, |_| 0)
    }

    /// Whose it is; for what nobody accepted, whoever holds the listener.
    pub(super) fn process(&self) -> Option<Process> {
        self.culprit().owner
    }

    pub(super) fn severity(&self) -> Severity {
        let finding = &self.finding;
        if finding.status == Status::Ended || finding.verdict == Some(Verdict::HalfOpenInUse) {
            return Severity::Info;
        }
        let process = finding.evidence.process.as_deref();
        let fds = process.and_then(|process| process.fds.zip(process.fd_limit));
        match fds {
            Some((fds, limit)) if fds.saturating_mul(100) >= limit.saturating_mul(NEARLY_ALL) => {
                Severity::Error
            }
            _ => Severity::Warning,
        }
    }

    /// The line that `--json` writes.
    pub(super) fn json(&self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        JsonSink::new(&mut line).record(&self.clock, &Record::Finding(&self.finding))?;
        Ok(line)
    }

    /// Names and values for those who take text. What is not known is left out.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let finding = &self.finding;
        let socket = &finding.socket;
        let process = self.process();
        let facts = finding.evidence.process.as_deref();
        let container = facts.and_then(|facts| facts.container.as_ref());
        let names = container.and_then(|container| container.names.as_ref());
        let known = [
            ("TCPWATCH_TIME", Some(utc(self.wall_ns()))),
            ("TCPWATCH_STATUS", Some(finding.status.word().to_owned())),
            ("TCPWATCH_VERDICT", Some(self.verdict().to_owned())),
            ("TCPWATCH_SEVERITY", Some(self.severity().word().to_owned())),
            ("TCPWATCH_SUMMARY", Some(self.summary())),
            ("TCPWATCH_ADVICE", self.advice()),
            ("TCPWATCH_STATE", Some(finding.state.name().to_owned())),
            ("TCPWATCH_LINGER_SECONDS", Some(seconds(finding.linger))),
            ("TCPWATCH_PID", process.map(|process| process.pid.to_string())),
            ("TCPWATCH_COMM", process.map(|process| process.comm.to_string())),
            ("TCPWATCH_FD", self.fd().map(|fd| fd.to_string())),
            ("TCPWATCH_LOCAL_ADDRESS", Some(socket.local.ip().to_string())),
            ("TCPWATCH_LOCAL_PORT", Some(socket.local.port().to_string())),
            ("TCPWATCH_PEER_ADDRESS", Some(socket.remote.ip().to_string())),
            ("TCPWATCH_PEER_PORT", Some(socket.remote.port().to_string())),
            ("TCPWATCH_ROLE", socket.role.map(Role::word).map(str::to_owned)),
            ("TCPWATCH_UNREAD", socket.tcp.map(|tcp| tcp.unread.to_string())),
            ("TCPWATCH_UNSENT", socket.tcp.map(|tcp| tcp.unsent.to_string())),
            ("TCPWATCH_SAME_OWNER", Some(finding.same_owner.to_string())),
            ("TCPWATCH_SOCKET", socket.id.map(|id| id.0.to_string())),
            ("TCPWATCH_NETNS", Some(socket.netns.to_string())),
            ("TCPWATCH_CONTAINER_ID", container.map(|container| container.id.clone())),
            ("TCPWATCH_POD_UID", container.and_then(|container| container.pod_uid.clone())),
            ("TCPWATCH_POD_NAMESPACE", names.map(|names| names.namespace.clone())),
            ("TCPWATCH_POD_NAME", names.map(|names| names.pod.clone())),
            ("TCPWATCH_CONTAINER_NAME", names.and_then(|names| names.container.clone())),
            ("TCPWATCH_ENDED", finding.ending.map(|ending| ending.cause.word().to_owned())),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The only fd on it, if there is one.
    pub(super) fn fd(&self) -> Option<u32> {
        match self.finding.holders[..] {
            [holder] => Some(holder.fd),
            _ => None,
        }
    }

    fn advice(&self) -> Option<String> {
        (self.finding.status != Status::Ended)
            .then(|| advice::remedy(self.finding.verdict).to_owned())
    }
}

/// With milliseconds.
fn seconds(span: Nanos) -> String {
    format!("{}.{:03}", span.0 / Nanos::SECOND.0, span.0 / 1_000_000 % 1000)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::{
        finding::Evidence,
        process::ProcessFacts,
        socket::{Holder, How, Owner, Protocol, Socket, SocketId},
        state::State,
        time::Timestamp,
    };

    /// A server's connection that was read and not closed.
    pub(in crate::notify) fn notice() -> Notice {
        Notice::new(&ClockMark { real_ns: 1, ..ClockMark::default() }, &finding())
    }

    /// The same, as the run reports it.
    pub(crate) fn finding() -> Finding {
        let process = Process { pid: 42, comm: "api".into() };
        let socket = Socket {
            id: Some(SocketId(7)),
            cookie: None,
            listener: None,
            born: None,
            netns: 1,
            protocol: Protocol::Tcp,
            local: ([127, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 9], 5000).into(),
            uid: 0,
            cgroup: None,
            inode: None,
            owner: Some(Owner { process, how: How::Fd }),
            role: Some(Role::Server),
            has_file: true,
            watched: false,
            tcp: None,
            error: 0,
            uncertain: false,
        };
        Finding {
            at: Timestamp(2 * Nanos::SECOND.0),
            status: Status::Open,
            verdict: Some(Verdict::NotClosed),
            state: State::CloseWait,
            linger: Nanos(1_234_567_890),
            at_least: false,
            at_most: None,
            socket,
            holders: vec![Holder { process, fd: 5 }],
            listener: None,
            evidence: Evidence::default(),
            netns_name: None,
            ending: None,
            same_owner: 1,
        }
    }

    #[test]
    fn a_process_near_its_limit_makes_it_an_error() {
        let mut notice = notice();
        assert_eq!(notice.severity(), Severity::Warning);
        let facts =
            |fds| ProcessFacts { fds: Some(fds), fd_limit: Some(100), ..Default::default() };
        notice.finding.evidence.process = Some(facts(89).into());
        assert_eq!(notice.severity(), Severity::Warning);
        notice.finding.evidence.process = Some(facts(90).into());
        assert_eq!(notice.severity(), Severity::Error);
        notice.finding.status = Status::Ended;
        assert_eq!(notice.severity(), Severity::Info);
    }

    #[test]
    fn what_is_not_known_is_no_field() {
        let notice = notice();
        let fields = notice.fields();
        let get = |name: &str| {
            fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(get("TCPWATCH_LINGER_SECONDS"), Some("1.234"));
        assert_eq!(get("TCPWATCH_TIME"), Some("1970-01-01T00:00:02.000000001Z"));
        assert_eq!((get("TCPWATCH_PID"), get("TCPWATCH_COMM")), (Some("42"), Some("api")));
        assert_eq!((get("TCPWATCH_UNREAD"), get("TCPWATCH_ENDED")), (None, None));
        assert!(fields.iter().all(|(_, value)| !value.contains(['\0', '\n'])));
    }
}
