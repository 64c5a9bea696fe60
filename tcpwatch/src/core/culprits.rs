//! Findings grouped by what they have in common: culprits, not lists.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    finding::{Finding, Verdict},
    socket::{Process, Role},
    time::Nanos,
};

/// What the findings of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Whose sockets they are; for `never-accepted` whoever holds the listener.
    pub owner: Option<Process>,
    /// Why they linger.
    pub verdict: Option<Verdict>,
    /// True if this side connected.
    pub client: Option<bool>,
    /// The remote end of clients; for servers the local end, as it is the same for all.
    pub end: SocketAddr,
}

/// A group of findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// What they share.
    pub key: Key,
    /// How many.
    pub count: usize,
    /// Of all findings, per thousand.
    pub share: u32,
    /// Ages: the oldest, and those that 50 and 99 of 100 do not exceed.
    pub oldest: Nanos,
    /// Half are younger.
    pub p50: Nanos,
    /// One in a hundred is older.
    pub p99: Nanos,
    /// An age among them is a lower bound.
    pub at_least: bool,
    /// The oldest, as an example.
    pub example: Finding,
}

/// Groups findings; what hurts most comes first: the largest group, then the oldest.
pub fn group(findings: &[Finding]) -> Vec<Culprit> {
    let mut groups: BTreeMap<Key, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        groups.entry(key(finding)).or_default().push(finding);
    }
    let mut culprits: Vec<Culprit> = groups
        .into_iter()
        .filter_map(|(key, mut members)| {
            members.sort_by_key(|finding| finding.linger);
            let example = (*members.last()?).clone();
            let at = |percent: usize| members[(members.len() - 1) * percent / 100].linger;
            Some(Culprit {
                key,
                count: members.len(),
                share: per_thousand(members.len(), findings.len()),
                oldest: example.linger,
                p50: at(50),
                p99: at(99),
                at_least: members.iter().any(|finding| finding.at_least),
                example,
            })
        })
        .collect();
    culprits.sort_by_key(|culprit| {
        (std::cmp::Reverse(culprit.count), std::cmp::Reverse(culprit.oldest), culprit.key)
    });
    culprits
}

fn key(finding: &Finding) -> Key {
    let client = finding.socket.role.map(|role| role == Role::Client);
    let listening = finding.listener.as_ref();
    let owner = match listening.and_then(|listener| listener.holders.first()) {
        Some(holder) => Some(holder.process),
        None => finding.socket.owner.map(|owner| owner.process),
    };
    let end = match listening {
        Some(listener) => listener.local,
        None if client == Some(false) => finding.socket.local,
        None => finding.socket.remote,
    };
    Key { owner, verdict: finding.verdict, client, end }
}

fn per_thousand(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 1000 / whole.max(1)).unwrap_or(1000)
}
