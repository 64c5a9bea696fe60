//! Culprits as series: few enough, and the same after a process was started again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::snapshot::{Labels, Lingering, OTHER, Owner, OwnerLabels, verdict_word};
use crate::core::{
    culprits::{Culprit, Growth},
    process::ProcessFacts,
    time::Nanos,
};

/// Characters of a container's id that are shown, as runtimes do.
const SHORT_ID: usize = 12;

/// The culprits that hurt most, `most` of them, and the rest together; and their processes.
pub(super) fn top(culprits: &[Culprit], most: usize) -> (Vec<Lingering>, Vec<Owner>) {
    let mut groups: BTreeMap<Labels, Lingering> = BTreeMap::new();
    let mut fds: BTreeMap<OwnerLabels, (u64, u64)> = BTreeMap::new();
    for culprit in culprits {
        let labels = labels(culprit);
        if let Some(of_process) = culprit.process.as_deref().and_then(descriptors) {
            let nearest = fds.entry(labels.owner.clone()).or_insert(of_process);
            if nearer(of_process, *nearest) {
                *nearest = of_process;
            }
        }
        let fresh = || Lingering { labels: labels.clone(), ..Lingering::default() };
        let group = groups.entry(labels.clone()).or_insert_with(fresh);
        let growth = culprit.growth.map(per_second);
        *group = add(group, culprit.count as u64, culprit.oldest, growth, culprit.reaches_limit_in);
    }
    let mut groups: Vec<Lingering> = groups.into_values().collect();
    groups.sort_by_key(|group| {
        let soonest = group.exhausted_in.unwrap_or(Nanos(u64::MAX));
        (soonest, Reverse(group.count), Reverse(group.oldest))
    });
    let rest = groups.split_off(groups.len().min(most));
    let shown: BTreeSet<_> = groups.iter().map(|group| group.labels.owner.clone()).collect();
    if !rest.is_empty() {
        groups.push(together(&rest));
    }
    let owners = fds.into_iter().filter(|(labels, _)| shown.contains(labels));
    let owners = owners.map(|(labels, (fds, limit))| Owner { labels, fds, limit });
    (groups, owners.collect())
}

fn labels(culprit: &Culprit) -> Labels {
    let container = culprit.process.as_deref().and_then(|process| process.container.as_ref());
    let names = container.and_then(|container| container.names.as_ref());
    Labels {
        owner: OwnerLabels {
            process: culprit.key.owner.map_or_else(String::new, |owner| owner.comm.to_string()),
            container: container.map_or_else(String::new, |container| {
                container.id.chars().take(SHORT_ID).collect()
            }),
            pod: container.and_then(|container| container.pod_uid.clone()).unwrap_or_default(),
            container_name: names.and_then(|names| names.container.clone()).unwrap_or_default(),
            pod_namespace: names.map(|names| names.namespace.clone()).unwrap_or_default(),
            pod_name: names.map(|names| names.pod.clone()).unwrap_or_default(),
        },
        role: match culprit.key.client {
            Some(true) => "client",
            Some(false) => "server",
            None => "",
        },
        verdict: verdict_word(culprit.key.verdict),
        service: culprit.key.end.to_string(),
    }
}

fn add(
    group: &Lingering,
    count: u64,
    oldest: Nanos,
    growth: Option<f64>,
    exhausted_in: Option<Nanos>,
) -> Lingering {
    Lingering {
        labels: group.labels.clone(),
        count: group.count + count,
        oldest: group.oldest.max(oldest),
        growth: match (group.growth, growth) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        },
        exhausted_in: match (group.exhausted_in, exhausted_in) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        },
    }
}

fn together(rest: &[Lingering]) -> Lingering {
    let labels = Labels {
        owner: OwnerLabels { process: OTHER.to_owned(), ..OwnerLabels::default() },
        verdict: OTHER,
        ..Labels::default()
    };
    let none = Lingering { labels, ..Lingering::default() };
    rest.iter().fold(none, |all, group| {
        add(&all, group.count, group.oldest, group.growth, group.exhausted_in)
    })
}

#[expect(clippy::cast_precision_loss, reason = "thousandths of a socket per minute")]
fn per_second(growth: Growth) -> f64 {
    growth.milli_per_minute() as f64 / 60_000.0
}

fn descriptors(process: &ProcessFacts) -> Option<(u64, u64)> {
    process.fds.zip(process.fd_limit)
}

/// Whether one process is nearer to its limit than another.
fn nearer((fds, limit): (u64, u64), (other, other_limit): (u64, u64)) -> bool {
    u128::from(fds) * u128::from(other_limit) > u128::from(other) * u128::from(limit)
}
