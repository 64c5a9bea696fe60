//! What deviates, what is compared, and what is left out on purpose; deviations with what was done before.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{seconds, world::Deed};

/// Operations that are shown before a deviation.
const BEFORE: usize = 10;
/// Deviations of a kind that are shown of a seed.
const MOST_SHOWN: u64 = 5;

/// What the comparison cannot or must not hold against tcpwatch, each with its reason. All of them are
/// counted, so nothing is hidden by growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LeftOut {
    /// The tracepoint takes a port from `inet_sport`, which is stale after a disconnect: the socket has none.
    StalePort,
    /// Nobody told the local port of an MPTCP socket before its end: its subflow had it.
    MptcpPort,
    /// At an MPTCP listener a birth is told when the next transition shows that it is no subflow.
    LateBirth,
    /// In a softirq on top of a thread of process 1 this machine runs no BPF program. The next line of
    /// the socket must say `uncertain`.
    OnInit,
    /// A closed socket whose only holders cannot be asked: nobody knows whether it was ever connected.
    Unaskable,
    /// Its program disconnects a socket that is closed already: no transition says that, and its descriptor is
    /// as dead as it was.
    Disconnected,
    /// A subflow of MPTCP: tcpwatch shows the connection.
    Subflow,
    /// It has changed so lately that tcpwatch need not have said it yet.
    TooYoung,
    /// A half-close in use is no finding.
    InUse,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StalePort => "stale ports",
            Self::MptcpPort => "MPTCP ports at the end",
            Self::LateBirth => "births told late",
            Self::OnInit => "on top of process 1",
            Self::Unaskable => "unaskable descriptors",
            Self::Disconnected => "disconnected when closed",
            Self::Subflow => "subflows",
            Self::TooYoung => "too young",
            Self::InUse => "in use",
        })
    }
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) seed: u64,
    /// What the processes of this seed write down.
    pub(super) log: PathBuf,
    shown: BTreeMap<&'static str, u64>,
    pub(super) deviations: BTreeMap<&'static str, u64>,
    pub(super) compared: BTreeMap<&'static str, u64>,
    pub(super) left_out: BTreeMap<LeftOut, u64>,
}

impl Report {
    /// Goes on with another seed.
    pub(super) fn begin(&mut self, seed: u64, log: PathBuf) {
        (self.seed, self.log) = (seed, log);
        self.shown.clear();
    }

    pub(super) fn compared(&mut self, what: &'static str, count: usize) {
        *self.compared.entry(what).or_default() += count as u64;
    }

    pub(super) fn leave_out(&mut self, what: LeftOut) {
        *self.left_out.entry(what).or_default() += 1;
    }

    /// Something deviates, and did so at this time.
    pub(super) fn deviation(&mut self, kind: &'static str, at: u64, detail: &str) {
        *self.deviations.entry(kind).or_default() += 1;
        let shown = self.shown.entry(kind).or_default();
        *shown += 1;
        if *shown > MOST_SHOWN {
            return;
        }
        println!("{kind} seed {} at {}: {detail}", self.seed, seconds(at));
        for line in self.before(at) {
            println!("    {line}");
        }
    }

    /// The last operations that began before.
    fn before(&self, at: u64) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut operations: Vec<_> = text
            .lines()
            .filter_map(Deed::parse)
            .filter(|deed| deed.begin <= at)
            .map(|Deed { begin, end, pid, what }| {
                let micros = end.saturating_sub(begin) / 1_000;
                (begin, format!("{} {micros:>6} us  pid {pid:<7} {what}", seconds(begin)))
            })
            .collect();
        operations.sort();
        let skip = operations.len().saturating_sub(BEFORE);
        operations.into_iter().skip(skip).map(|(_, line)| line).collect()
    }

    /// The last lines.
    pub(super) fn sum(&self) -> String {
        let list = |counts: &mut dyn Iterator<Item = (String, u64)>| {
            let words: Vec<_> = counts.map(|(name, count)| format!("{name} {count}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let named = |(name, count): (&&'static str, &u64)| ((*name).to_owned(), *count);
        let reason = |(name, count): (&LeftOut, &u64)| (name.to_string(), *count);
        format!(
            "compared: {}\ndeviations: {}\nleft out on purpose: {}",
            list(&mut self.compared.iter().map(named)),
            list(&mut self.deviations.iter().map(named)),
            list(&mut self.left_out.iter().map(reason)),
        )
    }
}
