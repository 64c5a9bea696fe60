//! How findings end: each in order, once, with the transition that ended it and by whom.

use std::collections::{BTreeMap, HashMap};

use super::{
    report::Report,
    said::{Finding, Line},
    state::State,
    transitions::{Pair, show},
    world::{Deed, World},
};

/// Two lines of one moment.
const SAME_NS: u64 = 1_000;
/// How soon after its death a process's sockets are closed.
const DYING_NS: u64 = 100_000_000;

/// Checks all of them; `ended_at` is when the processes were told to end.
pub(super) fn check(
    lines: &[Line],
    paths: &HashMap<u64, Vec<Pair<'_>>>,
    world: &World,
    ended_at: u64,
    report: &mut Report,
) {
    let mut findings: BTreeMap<u64, Vec<(&Line, &Finding)>> = BTreeMap::new();
    for line in lines {
        if let Some(finding) = line.finding() {
            findings.entry(finding.socket.unwrap_or(0)).or_default().push((line, finding));
        }
    }
    for (socket, told) in &findings {
        order(told, report);
        for (line, finding) in told.iter().filter(|(_, finding)| !finding.is_open()) {
            report.compared("endings", 1);
            let ending = Ending { line, finding, path: paths.get(socket).map(Vec::as_slice) };
            ending.check(world, ended_at, report);
        }
    }
}

/// `open`, `still` any number of times, `ended`; and then perhaps `open` again.
fn order(told: &[(&Line, &Finding)], report: &mut Report) {
    let mut before = "ended";
    for (line, finding) in told {
        let status = finding.status.as_str();
        if (before == "ended") != (status == "open") {
            let detail = format!("after {before}: {}", line.text);
            report.deviation("finding-order", finding.mono_ns, &detail);
        }
        before = status;
    }
    if let Some((line, finding)) = told.last().filter(|_| before != "ended") {
        report.deviation("finding-never-ended", finding.mono_ns, &line.text);
    }
}

struct Ending<'a> {
    line: &'a Line,
    finding: &'a Finding,
    path: Option<&'a [Pair<'a>]>,
}

impl Ending<'_> {
    fn check(&self, world: &World, ended_at: u64, report: &mut Report) {
        let (how, at) = (self.finding.how(), self.finding.mono_ns);
        let left = |pair: &&Pair<'_>| {
            pair.said.old == State::CLOSE_WAIT
                && pair.said.new != State::CLOSE_WAIT
                && pair.said.mono_ns.abs_diff(at) < SAME_NS
        };
        let pair = self.path.and_then(|path| path.iter().find(left));
        let Some(pair) = pair else {
            // A dead descriptor's connection ended before, and so did one whose end a loss hid.
            let left = self.finding.state == State::CLOSE_WAIT;
            if left && ["closed", "aborted", "listener-closed", "reset", "timed-out"].contains(&how)
            {
                report.deviation("ending-without-transition", at, &self.line.text);
            }
            return;
        };
        let mut wrong = |kind| {
            report.deviation(kind, at, &format!("{}: {}", self.line.text, show(pair)));
        };
        let new = pair.event.new;
        let by = self.finding.ended.as_ref().and_then(|ended| ended.by.as_ref());
        let by = by.map(|process| process.pid);
        let ours = |pid: i32| world.known.contains(&pid) || world.helpers.contains(&pid);
        let dead = by.and_then(|pid| world.killed.get(&pid));
        match how {
            "closed" | "aborted" | "exited" if by.is_some_and(|pid| !ours(pid)) => {
                wrong("ending-by");
            }
            "closed"
                if new == State::LAST_ACK
                    && dead.is_some_and(|dead| (*dead..dead + DYING_NS).contains(&at)) =>
            {
                wrong("ending-of-a-killed-process");
            }
            "exited"
                if at < ended_at
                    && dead.is_none()
                    && by.is_some_and(|pid| world.known.contains(&pid)) =>
            {
                wrong("ending-of-a-live-process");
            }
            "reset" | "timed-out" if new != State::CLOSE => wrong("ending-how"),
            "destroyed" => {
                let destroying = |deed: &Deed| {
                    deed.what.starts_with("ss -K") && (deed.begin..=deed.end).contains(&at)
                };
                if !world.operations().iter().any(destroying) {
                    wrong("ending-destroyed");
                }
            }
            _ => {}
        }
        self.disconnected(pair, world, report);
    }

    /// What its own program disconnected was reset by nobody else.
    fn disconnected(&self, pair: &Pair<'_>, world: &World, report: &mut Report) {
        if self.finding.how() != "reset" || pair.event.new != State::CLOSE {
            return;
        }
        let at = pair.event.ns;
        let own = world.operations().into_iter().find(|operation| {
            operation.what.starts_with("disconnect fd")
                && operation.pid == pair.event.tid
                && (operation.begin..=operation.end).contains(&at)
        });
        // The peer may have done it at the same time, in the other's process.
        let holds = self.finding.holders.iter().any(|holder| {
            own.as_ref().is_some_and(|own| {
                own.pid == holder.pid && own.what == format!("disconnect fd {}", holder.fd)
            })
        });
        if holds {
            let detail = format!("its program disconnected it: {}", self.line.text);
            report.deviation("ending-disconnected", at, &detail);
        }
    }
}
