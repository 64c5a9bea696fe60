//! Pages of recordings that nobody has: with hostile names, and with very many findings.

use std::sync::Arc;

use tcpwatch::{
    core::{
        finding::{Cause, Ending, Evidence, Finding, Status, Verdict},
        input::{Input, Transition},
        process::{ProcessFacts, Threads},
        record::{Lost, Place, Record, Summary},
        socket::{Holder, How, Owner, Process, SocketId},
        state::State,
        time::{Nanos, Timestamp},
        waiters::Waiters,
    },
    report::{
        Collector, Report,
        html::{self, Part, Source},
    },
    sink::Sink as _,
};

use crate::notation;

const LINGER: Nanos = Nanos(30_000_000_000);
/// As long as the name of a process may be.
pub(crate) const HOSTILE_COMM: &str = "<svg/onload=x()";
pub(crate) const HOSTILE_HOST: &str = "</script><img src=x onerror=\"window.hacked=1\">";
pub(crate) const HOSTILE_NETNS: &str = "<img src=x onerror=window.hacked=2>";

/// A page, and the report that it is of.
pub(crate) struct Made {
    pub(crate) report: Report,
    pub(crate) page: Vec<u8>,
}

/// A recording that is made of records.
struct Crowd {
    collector: Collector,
    summary: Summary,
    /// Those of [`hostile`], as they were found.
    told: Vec<Finding>,
}

impl Crowd {
    fn new() -> Self {
        let mut collector = Collector::for_page(LINGER);
        collector.begin(seconds(0.0));
        Self { collector, summary: Summary::default(), told: Vec::new() }
    }

    fn say(&mut self, record: &Record<'_>) {
        self.collector.record(&notation::clock(Timestamp(0)), record).unwrap();
    }

    /// A connection from its first packet until it lingers, and its finding; it ends if it is told how.
    fn leak(&mut self, one: &Leak) {
        let line = format!(
            "0 tcp #{} CLOSE>SYN_SENT 10.0.0.{}:{} {} role={} born={}",
            one.id,
            one.id % 200 + 1,
            1024 + one.id % 60_000,
            one.remote,
            if one.client { "client" } else { "server" },
            one.born,
        );
        let Input::Transition(mut transition) = notation::input(&line) else { panic!("{line}") };
        let owner = Process { pid: one.pid, comm: one.comm.into() };
        transition.socket.id = Some(SocketId(one.id));
        transition.socket.owner = Some(Owner { process: owner, how: How::Fd });
        let steps = [
            (one.born, State::Close, State::SynSent),
            (one.born + 0.001, State::SynSent, State::Established),
            (one.since, State::Established, State::CloseWait),
        ];
        for (at, old, new) in steps {
            transition.at = seconds(at);
            (transition.old, transition.new) = (old, new);
            self.transition(&transition);
        }
        let mut finding = finding(one, &transition, owner);
        self.say(&Record::Finding(&finding));
        if self.told.len() < 5 {
            self.told.push(finding.clone());
        }
        *self.summary.verdicts.entry(one.verdict).or_default() += 1;
        let Some((until, cause)) = one.ends else { return };
        finding.status = Status::Ended;
        finding.at = seconds(until);
        finding.linger = finding.at.since(seconds(one.since));
        finding.ending = Some(Ending { cause, by: Some(owner) });
        transition.entered = Some(transition.at);
        transition.at = finding.at;
        (transition.old, transition.new) = (State::CloseWait, State::LastAck);
        self.transition(&transition);
        (transition.old, transition.new) = (State::LastAck, State::Close);
        self.transition(&transition);
        self.say(&Record::Finding(&finding));
        self.summary.ended += 1;
    }

    /// The connection of one that leaks is gone since a moment, and its fd is still open.
    fn dies(&mut self, id: u64, at: f64) {
        let mut finding = self.told[usize::try_from(id).unwrap()].clone();
        finding.at = seconds(at) + Nanos::SECOND;
        finding.linger = Nanos::SECOND;
        (finding.status, finding.state) = (Status::Still, State::Close);
        finding.verdict = Some(Verdict::DeadFd);
        self.say(&Record::Finding(&finding));
    }

    fn transition(&mut self, transition: &Transition) {
        *self.summary.entered.entry(transition.new).or_default() += 1;
        self.summary.transitions += 1;
        self.say(&Record::Transition(transition));
    }

    fn finish(mut self, host: &str, end: f64, open: u64) -> Made {
        self.summary.at = seconds(end);
        self.summary.duration = Nanos(self.summary.at.0);
        self.summary.now = [(State::CloseWait, open)].into();
        let summary = self.summary.clone();
        self.say(&Record::Summary(&summary));
        let source = Source {
            host: host.to_owned(),
            kernel: "6.12.95".to_owned(),
            machine: "x86_64".to_owned(),
            recorded_by: "0.1.0".to_owned(),
            reported_by: "0.1.0".to_owned(),
            recording: "f00dcafe".to_owned(),
            files: vec![Part { name: format!("{HOSTILE_NETNS}.tcpw"), bytes: 1_000_000 }],
            asked: "--linger 30s".to_owned(),
            ..Source::default()
        };
        let report = self.collector.report();
        let mut page = Vec::new();
        html::write(&mut page, &source, &report, &self.collector.listed()).unwrap();
        Made { report, page }
    }
}

fn finding(one: &Leak, transition: &Transition, owner: Process) -> Finding {
    let threads = Threads { count: 12, state: 'S', wait: Some("futex_do_wait".to_owned()) };
    let facts = ProcessFacts {
        pid: one.pid,
        fds: Some(800),
        fd_limit: Some(4096),
        threads: vec![threads],
        ..ProcessFacts::default()
    };
    Finding {
        at: seconds(one.since) + LINGER,
        status: Status::Open,
        verdict: Some(one.verdict),
        state: State::CloseWait,
        linger: LINGER,
        at_least: false,
        at_most: None,
        socket: transition.socket,
        holders: vec![Holder { process: owner, fd: u32::try_from(one.id % 4096).unwrap() }],
        listener: None,
        evidence: Evidence {
            waiters: Some(Waiters::default()),
            process: Some(Arc::new(facts)),
            ..Evidence::default()
        },
        netns_name: one.netns.map(Into::into),
        ending: None,
        same_owner: 1,
    }
}

/// One that leaks, in seconds.
struct Leak {
    id: u64,
    pid: u32,
    comm: &'static str,
    client: bool,
    remote: String,
    verdict: Verdict,
    born: f64,
    since: f64,
    ends: Option<(f64, Cause)>,
    netns: Option<&'static str>,
}

fn seconds(number: f64) -> Timestamp {
    notation::time(&number.to_string())
}

/// Names that would be markup, everywhere where others choose them.
pub(crate) fn hostile() -> Made {
    let mut crowd = Crowd::new();
    for id in 0..5 {
        crowd.leak(&Leak {
            id,
            pid: 7,
            comm: HOSTILE_COMM,
            client: true,
            remote: "[2001:db8::1]:443".to_owned(),
            verdict: Verdict::NotReading,
            born: 10.0,
            since: 20.0 + f64::from(u32::try_from(id).unwrap()),
            ends: (id == 0).then_some((90.0, Cause::Closed)),
            netns: Some(HOSTILE_NETNS),
        });
    }
    crowd.dies(4, 80.0);
    crowd.say(&Record::Lost(Lost { at: seconds(50.0), place: Place::Ring, count: 17, total: 17 }));
    crowd.collector.note(HOSTILE_HOST);
    crowd.finish(HOSTILE_HOST, 120.0, 4)
}

/// So many findings, of 150 culprits, most of them of a few; some are open at the end.
pub(crate) fn many(findings: u64) -> Made {
    const HOURS: f64 = 6.0 * 3600.0;
    const WELL: [&str; 5] = ["api", "worker", "java", "nginx: worker", "a longer name"];
    let mut crowd = Crowd::new();
    let mut open = 0;
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    for id in 0..findings {
        let chance = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let who = if chance % 3 == 0 { chance % 150 } else { chance % 7 };
        let since = 5.0 + id as f64 / findings as f64 * (HOURS - 100.0);
        let lingers = 31.0 + (chance % 4096) as f64;
        let ends = since + lingers < HOURS;
        open += u64::from(!ends);
        let verdicts = [Verdict::NotReading, Verdict::NotClosed, Verdict::Inherited];
        let causes = [Cause::Closed, Cause::Exited, Cause::Aborted];
        crowd.leak(&Leak {
            id,
            pid: 4000 + u32::try_from(who).unwrap(),
            comm: WELL[usize::try_from(who % 5).unwrap()],
            client: who % 2 == 0,
            remote: format!("10.2.{}.{}:5432", who / 16, who % 16 + 1),
            verdict: verdicts[usize::try_from(who % 3).unwrap()],
            born: since - 4.0,
            since,
            ends: ends.then(|| (since + lingers, causes[usize::try_from(chance % 3).unwrap()])),
            netns: None,
        });
    }
    for at in [4000.0, 4010.0, 15_000.0] {
        crowd.say(&Record::Lost(Lost {
            at: seconds(at),
            place: Place::Recording,
            count: 1204,
            total: 0,
        }));
    }
    crowd.finish("db-2.example", HOURS, open)
}
