//! At quiet moments: what `tcpwatch leaks` and the open findings of the live run say, against the truth.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    agent::Held,
    report::LeftOut,
    run::Run,
    said::{End, Finding, Key, Line},
    state::State,
    trace::{Event, MPTCP},
    truth::{Holders, Socket, Truth},
};
use crate::{hold::monotonic, tool::now};

/// Longer than `--linger` and the scans that follow.
const QUIET: Duration = Duration::from_millis(2_200);
/// Scans are rationed, so on a busy machine they come late.
const PATIENCE: Duration = Duration::from_secs(15);
const SECOND: u64 = 1_000_000_000;
/// What began to linger this lately need not be told: the threshold is a second.
const YOUNG: u64 = 1_900_000_000;
/// Who began to hold a socket this lately need not be told.
const NEW_HOLDER: u64 = 600_000_000;
/// What TCP's times and a busy machine allow for.
const LATE: u64 = 50_000_000;

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Leaks,
    Live,
}

impl Voice {
    /// The names of its deviations.
    fn kind(self, leaks: &'static str, live: &'static str) -> &'static str {
        if self == Self::Leaks { leaks } else { live }
    }
}

/// Waits for quiet, and compares; `busy_until` is when the last burst ended.
pub(super) fn check(run: &mut Run<'_>, busy_until: u64) -> Result<()> {
    thread::sleep(QUIET);
    let start = now();
    while start.elapsed() < PATIENCE && !is_told(run)? {
        thread::sleep(Duration::from_millis(300));
    }
    let waited = usize::try_from(start.elapsed().as_millis())?;
    run.report.compared("milliseconds waited for", waited);
    run.world.ask()?;
    let live = run.live.lines();
    let before = Truth::find(&run.world, &mut run.memory)?;
    let begin = monotonic();
    let mut arguments = vec!["leaks".to_owned(), "-j".to_owned()];
    arguments.extend(run.world.filter("0s"));
    let leaks = run.binary.lines(&arguments)?;
    let after = Truth::find(&run.world, &mut run.memory)?;
    let later = run.live.lines();
    let events = run.trace.events();
    let moment = Moment::new(run, &events, begin, busy_until, &before, after);
    let leaks: Vec<_> = leaks.iter().filter_map(|line| Some((line, line.finding()?))).collect();
    moment.leaks(run, &leaks);
    moment.live(run, &live, &later);
    run.report.compared("quiet moments", 1);
    Ok(())
}

/// Whether the live run has told all that lingers.
fn is_told(run: &mut Run<'_>) -> Result<bool> {
    run.world.ask()?;
    let truth = Truth::find(&run.world, &mut run.memory)?;
    let lines = run.live.lines();
    let last = last(&lines);
    let told = |key: &Key| last.get(key).is_some_and(|(_, f)| f.is_open() || f.how() == "in-use");
    Ok(truth.all().all(|(key, _)| told(key)))
}

/// The last finding of each socket.
fn last(lines: &[Line]) -> HashMap<Key, (&Line, &Finding)> {
    let findings = lines.iter().filter_map(|line| Some((line, line.finding()?)));
    findings.map(|(line, finding)| (finding.key(), (line, finding))).collect()
}

/// What is known of a moment.
struct Moment<'a> {
    begin: u64,
    busy_until: u64,
    events: &'a [Event],
    /// Ports on which something happened so lately that either answer is right.
    changed: HashSet<(u16, u16)>,
    /// What lingered before and after, unchanged.
    stable: BTreeMap<Key, Socket>,
    /// What may or may not be found.
    unstable: HashSet<Key>,
    listeners: HashMap<(u64, u16), Holders>,
    /// Of whose sockets somebody could be asked.
    asked: HashMap<u64, Held>,
}

impl<'a> Moment<'a> {
    fn new(
        run: &Run<'_>,
        events: &'a [Event],
        begin: u64,
        busy_until: u64,
        before: &Truth,
        after: Truth,
    ) -> Self {
        let recent = events.iter().filter(|event| event.ns + 3 * SECOND / 2 > begin);
        let changed = recent.map(|event| (event.sport, event.dport)).collect();
        let mut unstable: HashSet<Key> = before.unknown.union(&after.unknown).copied().collect();
        let mut stable = BTreeMap::new();
        for (key, socket) in before.all() {
            match after.get(*key) {
                Some(same)
                    if (same.unread, same.unsent, &same.holders, same.state)
                        == (socket.unread, socket.unsent, &socket.holders, socket.state) =>
                {
                    stable.insert(*key, socket.clone());
                }
                _ => drop(unstable.insert(*key)),
            }
        }
        unstable.extend(after.all().map(|(key, _)| *key).filter(|key| !stable.contains_key(key)));
        let mut listeners = after.listeners;
        for (place, holders) in &before.listeners {
            listeners.entry(*place).or_default().extend(holders);
        }
        let asked = run.world.held().map(|(_, held)| (held.inode, held.clone())).collect();
        Self { begin, busy_until, events, changed, stable, unstable, listeners, asked }
    }

    fn leaks(&self, run: &mut Run<'_>, findings: &[(&Line, &Finding)]) {
        let mut found = HashMap::new();
        for (line, finding) in findings {
            if found.insert(finding.key(), (*line, *finding)).is_some() {
                run.report.deviation("leaks-twice", self.begin, &line.text);
            }
        }
        for (key, socket) in &self.stable {
            // One scan cannot see an MPTCP connection that nobody accepted (README).
            if socket.mptcp && socket.inode == 0 {
                continue;
            }
            run.report.compared("sockets of leaks", 1);
            match found.get(key) {
                Some((line, finding)) => self.same(run, Voice::Leaks, line, finding, socket),
                None => run.report.deviation("leaks-missed", self.begin, &format!("{socket:?}")),
            }
        }
        for (key, (line, finding)) in found {
            self.extra(run, Voice::Leaks, key, line, finding);
        }
    }

    fn live(&self, run: &mut Run<'_>, lines: &[Line], later: &[Line]) {
        let (first, second) = (last(lines), last(later));
        let open = |key: &Key| {
            let (line, finding) = first.get(key)?;
            (finding.is_open() && second.get(key).is_some_and(|(_, f)| f.is_open()))
                .then_some((*line, *finding))
        };
        for (key, socket) in &self.stable {
            run.report.compared("sockets of live runs", 1);
            match open(key) {
                Some((line, finding)) => {
                    // Who was forked that lately is no holder yet.
                    if finding.mono_ns > self.busy_until + NEW_HOLDER {
                        self.same(run, Voice::Live, line, finding, socket);
                    } else {
                        run.report.leave_out(LeftOut::TooYoung);
                    }
                }
                None if self.is_young(socket) => run.report.leave_out(LeftOut::TooYoung),
                None if second.get(key).is_some_and(|(_, f)| f.how() == "in-use") => {
                    run.report.leave_out(LeftOut::InUse);
                }
                None => {
                    let said = second.get(key).map_or("nothing", |(line, _)| &line.text);
                    let detail = format!("{socket:?}, said last: {said}");
                    run.report.deviation("live-missed", self.begin, &detail);
                }
            }
        }
        for key in first.keys() {
            if let Some((line, finding)) = open(key) {
                self.extra(run, Voice::Live, *key, line, finding);
            }
        }
    }

    /// Nothing is found that does not linger.
    fn extra(&self, run: &mut Run<'_>, voice: Voice, key: Key, line: &Line, finding: &Finding) {
        let ports = (finding.local.port, finding.remote.port);
        if self.stable.contains_key(&key) || self.changed.contains(&ports) {
            return;
        }
        let held = finding.inode.and_then(|inode| self.asked.get(&inode));
        if self.unstable.contains(&key)
            || (finding.state == State::CLOSE && held.is_none_or(|held| held.mptcp))
        {
            run.report.leave_out(LeftOut::Unaskable);
        } else if voice == Voice::Live && held.is_some_and(Held::is_fresh) {
            run.report.leave_out(LeftOut::Disconnected);
        } else {
            let kind = voice.kind("leaks-extra", "live-extra");
            let detail = format!("its process says {held:?}: {}", line.text);
            run.report.deviation(kind, self.begin, &detail);
        }
    }

    /// The finding says of this socket what is so.
    fn same(
        &self,
        run: &mut Run<'_>,
        voice: Voice,
        line: &Line,
        finding: &Finding,
        socket: &Socket,
    ) {
        let said: Holders = finding.holders.iter().map(|holder| (holder.pid, holder.fd)).collect();
        if said != socket.holders {
            let kind = voice.kind("leaks-holders", "live-holders");
            let detail = format!("held by {:?}: {}", socket.holders, line.text);
            return run.report.deviation(kind, self.begin, &detail);
        }
        run.report.compared("holders", said.len());
        if socket.state == State::CLOSE {
            let right =
                finding.state == State::CLOSE && finding.verdict.as_deref() == Some("dead-fd");
            if voice == Voice::Live && self.is_young(socket) {
                run.report.leave_out(LeftOut::TooYoung);
            } else if !right {
                let kind = voice.kind("leaks-dead", "live-dead");
                run.report.deviation(kind, self.begin, &line.text);
            }
            return;
        }
        if !socket.mptcp
            && (finding.unread, finding.unsent) != (Some(socket.unread), Some(socket.unsent))
        {
            let kind = voice.kind("leaks-bytes", "live-bytes");
            run.report.deviation(kind, self.begin, &format!("{socket:?}: {}", line.text));
        }
        self.verdict(run, voice, line, finding, socket);
        self.age(run, voice, line, finding, socket);
    }

    fn verdict(
        &self,
        run: &mut Run<'_>,
        voice: Voice,
        line: &Line,
        finding: &Finding,
        socket: &Socket,
    ) {
        let said = finding.verdict.as_deref().unwrap_or("none");
        let pids: HashSet<i32> = socket.holders.iter().map(|(pid, _)| *pid).collect();
        // Of MPTCP it is not known what is unread.
        let right = if socket.mptcp {
            pids.len() < 2 || said == "inherited"
        } else if socket.inode == 0 {
            said == "never-accepted"
        } else if socket.unsent > 0 {
            said == "write-blocked"
        } else if pids.len() > 1 {
            said == "inherited"
        } else if said == "inherited" {
            self.may_be_inherited(run, voice, socket, &pids)
        } else {
            // Who holds one that is in flight nobody sees.
            let seen = voice == Voice::Live && !pids.is_empty();
            let connector = self.connector(socket).filter(|_| seen);
            let reading = if socket.unread > 0 { "not-reading" } else { "not-closed" };
            said == reading && connector.is_none_or(|pid| pids.contains(&pid))
        };
        if !right {
            let kind = voice.kind("leaks-verdict", "live-verdict");
            run.report.deviation(kind, self.begin, &format!("{socket:?}: {}", line.text));
        }
        if socket.inode == 0 && !socket.mptcp {
            self.listener(run, voice, line, finding, socket);
        }
    }

    /// Its one holder did not connect it, or is younger than the connection.
    fn may_be_inherited(
        &self,
        run: &Run<'_>,
        voice: Voice,
        socket: &Socket,
        pids: &HashSet<i32>,
    ) -> bool {
        let stranger = self.connector(socket).is_some_and(|pid| !pids.contains(&pid));
        let since = self.entered(socket).map_or(u64::MAX, |event| event.ns);
        let young = pids.iter().all(|pid| born(*pid).is_none_or(|born| born > since));
        // A process that was given an accepted connection has it from another, too.
        let accepted = self.connector(socket).is_none() && run.world.known.iter().len() > 1;
        (voice == Voice::Live && (stranger || accepted)) || young
    }

    /// Who listens where a connection waits that nobody accepted.
    fn listener(
        &self,
        run: &mut Run<'_>,
        voice: Voice,
        line: &Line,
        finding: &Finding,
        socket: &Socket,
    ) {
        let said: Holders = finding
            .listener
            .iter()
            .flat_map(|listener| &listener.holders)
            .map(|holder| (holder.pid, holder.fd))
            .collect();
        let place = (socket.netns, socket.local.port);
        let Some(holders) = self.listeners.get(&place).filter(|holders| !holders.is_empty()) else {
            return;
        };
        run.report.compared("listeners", 1);
        if said.is_empty() || !said.is_subset(holders) {
            let kind = voice.kind("leaks-listener", "live-listener");
            let detail = format!("held by {holders:?}: {}", line.text);
            run.report.deviation(kind, self.begin, &detail);
        }
    }

    fn age(
        &self,
        run: &mut Run<'_>,
        voice: Voice,
        line: &Line,
        finding: &Finding,
        socket: &Socket,
    ) {
        let Some(event) = self.entered(socket) else { return };
        run.report.compared("ages", 1);
        let age = finding.mono_ns.saturating_sub(event.ns);
        let told = finding.linger_ns;
        let right = if finding.linger_at_least {
            let most = finding.linger_at_most_ns.unwrap_or(u64::MAX);
            told <= age + LATE && most.saturating_add(LATE) >= age
        } else {
            told.abs_diff(age) <= if voice == Voice::Live { LATE / 50 } else { LATE }
        };
        if !right {
            let kind = voice.kind("leaks-age", "live-age");
            run.report.deviation(kind, self.begin, &format!("{age} ns: {}", line.text));
        }
    }

    fn entered(&self, socket: &Socket) -> Option<&'a Event> {
        let new = State::CLOSE_WAIT;
        self.events.iter().rev().find(|event| event.new == new && is_of(event, socket))
    }

    /// It began to linger so lately that the live run need not have said it.
    fn is_young(&self, socket: &Socket) -> bool {
        let since = if socket.state == State::CLOSE {
            let port =
                |event: &&Event| event.sport == socket.local.port && event.new == State::CLOSE;
            self.events.iter().rev().find(port)
        } else {
            self.entered(socket)
        };
        match since {
            Some(event) => self.begin.saturating_sub(event.ns) < YOUNG,
            // A closed socket has often lost its port, and with it its time.
            None => socket.state == State::CLOSE,
        }
    }

    /// Who connected it, if it is the client's end.
    fn connector(&self, socket: &Socket) -> Option<i32> {
        let sk = self.events.iter().rev().find(|event| is_of(event, socket))?.sk;
        let birth = self.events.iter().rev().find(|event| {
            event.sk == sk && [State::SYN_SENT, State::SYN_RECV].contains(&event.new)
        })?;
        (birth.new == State::SYN_SENT).then_some(birth.tid)
    }
}

fn is_of(event: &Event, socket: &Socket) -> bool {
    let ends = (
        End { addr: event.local, port: event.sport },
        End { addr: event.remote, port: event.dport },
    );
    ends == (socket.local, socket.remote) && (event.protocol == MPTCP) == socket.mptcp
}

/// When a process began, ns of `CLOCK_MONOTONIC`, to a tick.
fn born(pid: i32) -> Option<u64> {
    const TICK: u64 = 10_000_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some((ticks + 2) * TICK)
}
