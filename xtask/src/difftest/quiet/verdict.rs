//! Why a connection lingers, and in whose queue.

use std::{collections::HashSet, fs};

use super::{Moment, Voice, is_of};
use crate::difftest::{
    run::Run,
    said::{Finding, Line},
    state::State,
    truth::{Holders, Socket},
};

impl Moment<'_> {
    pub(super) fn verdict(
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
        } else if pids.is_empty() && said == "unheld" {
            true
        } else if pids.is_empty() && voice == Voice::Leaks {
            false
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
        let Some(there) = self.listeners.get(&place) else { return };
        run.report.compared("listeners", 1);
        // A listener in flight has no holder.
        let right = there.iter().any(|holders| {
            if said.is_empty() { holders.is_empty() } else { said.is_subset(holders) }
        });
        if !right {
            let kind = voice.kind("leaks-listener", "live-listener");
            let detail = format!("held by {there:?}: {}", line.text);
            run.report.deviation(kind, self.begin, &detail);
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

/// When a process began, ns of `CLOCK_MONOTONIC`, to a tick.
fn born(pid: i32) -> Option<u64> {
    const TICK: u64 = 10_000_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some((ticks + 2) * TICK)
}
