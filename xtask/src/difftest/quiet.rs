//! At quiet moments: what `tcpwatch leaks` and the open findings of the live run say, against the truth.

mod verdict;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    agent::Held,
    report::LeftOut,
    run::Run,
    said::{Finding, Key, Line},
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
    let findings = lines.iter().filter_map(|line| Some((line, line.finding()?))).enumerate();
    let latest: HashMap<_, _> = findings.map(|(at, said)| (said.1.id(), (at, said))).collect();
    let latest: BTreeMap<_, _> = latest.into_values().collect();
    latest.into_values().map(|said| (said.1.key(), said)).collect()
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
    listeners: HashMap<(u64, u16), Vec<Holders>>,
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
            listeners.entry(*place).or_default().extend(holders.iter().cloned());
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
            // One scan cannot see an MPTCP connection that no descriptor leads to (docs/leaks.md).
            if socket.mptcp && socket.holders.is_empty() {
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
                None if self.is_young(socket, self.begin) => {
                    run.report.leave_out(LeftOut::TooYoung);
                }
                None if [&first, &second]
                    .iter()
                    .any(|said| said.get(key).is_some_and(|(_, f)| f.how() == "in-use")) =>
                {
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
        if self.waits_in_mptcp(finding) {
            run.report.compared("MPTCP connections that nobody accepted", 1);
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

    /// An MPTCP connection that nobody accepted, which `ss` does not show: the kernel's own trace does.
    fn waits_in_mptcp(&self, finding: &Finding) -> bool {
        let ends = (finding.local, finding.remote);
        let last = self.events.iter().rev().find(|event| {
            event.protocol == MPTCP && (event.local_end(), event.remote_end()) == ends
        });
        finding.holders.is_empty() && last.is_some_and(|event| event.new == finding.state)
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
            if voice == Voice::Live && !right && self.is_young(socket, finding.mono_ns) {
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

    /// It began to linger so lately before this time that the live run need not have said it then.
    fn is_young(&self, socket: &Socket, at: u64) -> bool {
        let since = if socket.state == State::CLOSE {
            let port =
                |event: &&Event| event.sport == socket.local.port && event.new == State::CLOSE;
            self.events.iter().rev().find(port)
        } else {
            self.entered(socket)
        };
        match since {
            Some(event) => at.saturating_sub(event.ns) < YOUNG,
            // A closed socket has often lost its port, and with it its time.
            None => socket.state == State::CLOSE,
        }
    }
}

fn is_of(event: &Event, socket: &Socket) -> bool {
    let ends = (event.local_end(), event.remote_end());
    ends == (socket.local, socket.remote) && (event.protocol == MPTCP) == socket.mptcp
}
