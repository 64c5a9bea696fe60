//! What changed from one recording to another: before and after a deploy.
//!
//! Pids differ between two runs, so culprits are matched by process name, role and service, and a
//! server's service is its port. Counts are compared per minute, as recordings differ in length.
//! Findings from before a recording are no matter of its length, and two pieces of one steady leak
//! differ in them as much as one likes; so only those that began in it are compared, over the time
//! in which one that begins can become a finding.
//! A difference is called one only if chance would hardly make it: counts must differ by four
//! times the square root of what there is (as in `core/culprits.rs`), durations by more than three
//! standard deviations of their rank and by a tenth. Where there is too little to tell, `change` is
//! `unclear`.
//!
//! Serialised it is the JSON of `tcpwatch diff --json`, with the conventions of `model.rs`.

mod chance;
mod model;
pub mod text;

use std::collections::BTreeMap;

use self::chance::Sample;
pub use self::model::{
    Change, CulpritChange, Diff, DurationChange, GroupChange, Leaks, RateChange, Side,
};
use super::model::{Culprit, Durations, Group, Quantile, Report};

/// Compares two recordings.
pub fn compare(a: &Report, b: &Report) -> Diff {
    let culprits = culprits(a, b);
    let bad = |culprit: &CulpritChange| matches!(culprit.change, Change::New | Change::More);
    Diff {
        r#type: "diff",
        worse: culprits.iter().any(bad),
        a: side(a),
        b: side(b),
        rates: rates(a, b),
        culprits,
        groups: groups(a, b),
    }
}

fn side(report: &Report) -> Side {
    Side {
        from: report.from,
        duration_ns: report.duration_ns,
        linger_ns: report.linger_ns,
        findings: report.totals.findings,
        before: report.totals.before,
        lost: report.gaps.lost,
        whole: report.gaps.count == 0 && report.incomplete.is_empty(),
        findings_only: report.totals.findings_only,
    }
}

fn rates(a: &Report, b: &Report) -> Vec<RateChange> {
    let (x, y) = (&a.totals, &b.totals);
    let counts = [
        ("transitions", x.transitions, y.transitions),
        ("opened", x.opened, y.opened),
        ("closed", x.closed, y.closed),
        ("failed", x.failed, y.failed),
    ];
    let counts = if knows_transitions(a, b) { &counts[..] } else { &[] };
    let findings = |report: &Report| {
        let totals = &report.totals;
        began(totals.findings.saturating_sub(totals.before), report)
    };
    counts
        .iter()
        .map(|&(what, x, y)| rate_change(what, (x, a), (y, b)))
        .chain([change_of("findings", findings(a), findings(b))])
        .collect()
}

/// Whether both hold more than findings.
fn knows_transitions(a: &Report, b: &Report) -> bool {
    !a.totals.findings_only && !b.totals.findings_only
}

/// So many findings that began in a recording, over the time in which one that begins can become a
/// finding. Of a dead fd that may be shorter.
fn began(count: u64, report: &Report) -> Sample {
    let exposure = report.duration_ns.saturating_sub(report.linger_ns);
    let ns = if exposure == 0 && count > 0 { report.duration_ns } else { exposure };
    Sample::new(count, ns)
}

fn rate_change(what: &'static str, a: (u64, &Report), b: (u64, &Report)) -> RateChange {
    change_of(what, Sample::new(a.0, a.1.duration_ns), Sample::new(b.0, b.1.duration_ns))
}

fn change_of(what: &'static str, a: Sample, b: Sample) -> RateChange {
    RateChange {
        what,
        a: a.count,
        b: b.count,
        a_per_minute: a.per_minute(),
        b_per_minute: b.per_minute(),
        change: chance::counts(a, b),
    }
}

type Key<'a> = (Option<&'a str>, Option<&'static str>, String);

fn culprits(a: &Report, b: &Report) -> Vec<CulpritChange> {
    let (before, after) = (leaks(a), leaks(b));
    let mut changes: Vec<_> = union(&before, &after)
        .map(|key| {
            let (x, y) = (before.get(key), after.get(key));
            let example = y.or(x).and_then(|(_, summary)| summary.clone());
            let of = |side: Option<&(Leaks, _)>| side.map_or_else(Leaks::default, |s| s.0.clone());
            let (x, y) = (of(x), of(y));
            let (change, certain) = leak_change(began(x.began(), a), began(y.began(), b), (&x, &y));
            CulpritChange {
                change,
                certain,
                comm: key.0.map(str::to_owned),
                role: key.1.map(str::to_owned),
                end: key.2.clone(),
                a: x,
                b: y,
                summary: example,
            }
        })
        .filter(|change| change.a.count + change.b.count > 0)
        .collect();
    changes.sort_by_key(|change| {
        (change.change, std::cmp::Reverse(change.b.count), std::cmp::Reverse(change.a.count))
    });
    changes
}

/// Those that began in the recordings decide. Where none did nothing is known of how fast they come.
fn leak_change(a: Sample, b: Sample, of: (&Leaks, &Leaks)) -> (Change, bool) {
    let came = match (a.count, b.count) {
        (0, 0) => Change::Unclear,
        _ => chance::counts(a, b),
    };
    match (of.0.count, of.1.count) {
        (0, _) => (Change::New, came == Change::More),
        (_, 0) => (Change::Gone, came == Change::Less),
        _ => (came, came != Change::Unclear),
    }
}

/// The findings of a recording, by what is the same in the next one.
fn leaks(report: &Report) -> BTreeMap<Key<'_>, (Leaks, Option<String>)> {
    let mut all: BTreeMap<_, (Leaks, Option<String>)> = BTreeMap::new();
    for culprit in &report.culprits {
        let (leaks, summary) = all.entry(key(culprit)).or_default();
        leaks.count += culprit.leaks();
        leaks.before += culprit.before.min(culprit.leaks());
        leaks.open += culprit.open;
        leaks.longest_ns = leaks.longest_ns.max(culprit.longest_ns);
        leaks.verdicts.extend(culprit.verdict.filter(|verdict| !leaks.verdicts.contains(verdict)));
        if summary.is_none() {
            *summary = culprit.example.as_ref().map(|example| example.summary.clone());
        }
    }
    for (leaks, _) in all.values_mut() {
        leaks.per_minute = began(leaks.began(), report).per_minute();
    }
    all
}

fn key(culprit: &Culprit) -> Key<'_> {
    let end = culprit.end.as_deref().unwrap_or("other");
    let end = match (culprit.role, end.rsplit_once(':')) {
        (Some("server"), Some((_, port))) => format!(":{port}"),
        _ => end.to_owned(),
    };
    (culprit.comm.as_deref(), culprit.role, end)
}

fn by_key(report: &Report) -> BTreeMap<Key<'_>, &Group> {
    let key = |group: &Group| group.end.clone();
    let keyed = |group| (Group::name(group), group.role, key(group));
    report.groups.iter().map(|group| (keyed(group), group)).collect()
}

fn groups(a: &Report, b: &Report) -> Vec<GroupChange> {
    if !knows_transitions(a, b) {
        return Vec::new();
    }
    let (before, after) = (by_key(a), by_key(b));
    let mut changes: Vec<_> = union(&before, &after)
        .map(|key| {
            let (x, y) = (before.get(key).copied(), after.get(key).copied());
            let opened = |group: Option<&Group>| group.map_or(0, |group| group.opened);
            let durations = |pick: Pick, of: fn(&Durations) -> Quantile| {
                let quantile = |group: Option<&Group>| pick(group?).as_ref().map(of);
                duration_change(quantile(x), quantile(y))
            };
            let (lifetime, dwell): (Pick, Pick) = (|group| &group.lifetime, |g| &g.close_wait);
            GroupChange {
                comm: key.0.map(str::to_owned),
                role: key.1,
                end: key.2.clone(),
                opened: rate_change("opened", (opened(x), a), (opened(y), b)),
                lifetime_p50: durations(lifetime, |durations| durations.p50),
                lifetime_p99: durations(lifetime, |durations| durations.p99),
                close_wait_p50: durations(dwell, |durations| durations.p50),
                close_wait_p99: durations(dwell, |durations| durations.p99),
            }
        })
        .collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.opened.a + change.opened.b));
    changes
}

type Pick = fn(&Group) -> &Option<Durations>;

fn duration_change(a: Option<Quantile>, b: Option<Quantile>) -> DurationChange {
    let change = match (a, b) {
        (Some(a), Some(b)) => chance::durations(a, b),
        _ => Change::Unclear,
    };
    DurationChange { a_ns: a.map(|a| a.ns), b_ns: b.map(|b| b.ns), change }
}

/// The keys of both.
fn union<'a, K: Ord, A, B>(
    a: &'a BTreeMap<K, A>,
    b: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = &'a K> {
    a.keys().chain(b.keys().filter(|key| !a.contains_key(key)))
}
