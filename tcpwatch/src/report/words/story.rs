//! What happened, in a paragraph of plain words.

use super::{
    Moments,
    culprit::{ending, manner, place, somebody},
    duration, grouped, plural, rate,
};
use crate::report::model::{Culprit, Report, Totals};

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Tone {
    /// Nothing leaked.
    Good,
    /// Something did.
    Bad,
}

/// What happened.
#[derive(Clone, Debug)]
pub(in crate::report) struct Story {
    pub(in crate::report) tone: Tone,
    /// The paragraph.
    pub(in crate::report) happened: String,
    /// How much happened, without when.
    pub(in crate::report) traffic: String,
    /// What is not known, a sentence each.
    pub(in crate::report) caveats: Vec<String>,
}

impl Story {
    /// Tells what a report says.
    pub(in crate::report) fn of(report: &Report, moment: Moments<'_>) -> Self {
        let mut sentences = Vec::new();
        let leaks: Vec<_> = report.culprits.iter().filter(|culprit| culprit.leaks() > 0).collect();
        let tone = match &leaks[..] {
            [] => {
                sentences.push(format!("In {} {}.", duration(report.duration_ns), nothing(report)));
                sentences.extend(healthy(report));
                Tone::Good
            }
            [worst, rest @ ..] => {
                let told = told(worst, &moment(report.from));
                sentences.push(format!("In {} {told}.", duration(report.duration_ns)));
                sentences.extend(growth(worst));
                if !rest.is_empty() {
                    sentences.push(others(rest));
                }
                Tone::Bad
            }
        };
        sentences.push(lost(report));
        sentences
            .extend(report.unseen.iter().map(|unseen| format!("The run could not see {unseen}.")));
        Self {
            tone,
            happened: sentences.join(" "),
            traffic: traffic(report),
            caveats: caveats(&report.totals),
        }
    }
}

/// The other culprits: `5 more findings: 3 of api[4242] at 127.0.0.1:80 (not-closed), ...`.
fn others(rest: &[&Culprit]) -> String {
    const NAMED: usize = 2;
    let findings = |of: &[&Culprit]| of.iter().map(|culprit| culprit.leaks()).sum::<u64>();
    let (named, others) = rest.split_at(rest.len().min(NAMED));
    let mut parts: Vec<_> = named
        .iter()
        .map(|culprit| {
            let what = culprit.verdict.unwrap_or("unconfirmed");
            let of = if culprit.other {
                "of other culprits".to_owned()
            } else {
                format!("of {} {} ({what})", somebody(culprit), place(culprit))
            };
            format!("{} {of}", grouped(culprit.leaks()))
        })
        .collect();
    if !others.is_empty() {
        let culprits = match others.len() {
            1 => "another culprit".to_owned(),
            many => format!("{} more culprits", grouped(many as u64)),
        };
        parts.push(format!("{} of {culprits}", grouped(findings(others))));
    }
    format!("{}: {}.", plural(findings(rest), "more finding"), parts.join(", "))
}

fn told(culprit: &Culprit, from: &str) -> String {
    let who = somebody(culprit);
    let connections = plural(culprit.opened, "connection");
    let place = place(culprit);
    let what = match culprit.verdict {
        Some("never-accepted") => {
            format!("{who} did not accept {connections} {place} that their peers had closed")
        }
        Some("dead-fd") => {
            format!("{who} kept the file descriptors of {connections} {place} that were gone")
        }
        Some("half-open-in-use") => {
            format!("{who} went on using {connections} {place} that their peers had half closed")
        }
        _ => format!("{who} let {connections} {place} linger in CLOSE_WAIT"),
    };
    let at_least = if culprit.longest_at_least { "at least " } else { "" };
    let oldest = match culprit.opened {
        1 => format!("for {at_least}{}", duration(culprit.longest_ns)),
        _ => format!("the oldest for {at_least}{}", duration(culprit.longest_ns)),
    };
    let before = match culprit.before {
        0 => String::new(),
        all if all >= culprit.opened => format!(" since before {from}"),
        some => format!(" ({} of them since before {from})", grouped(some)),
    };
    format!("{what}{before}, {oldest}; {}", ended(culprit))
}

fn ended(culprit: &Culprit) -> String {
    let ended: u64 = culprit.endings.iter().map(|ending| ending.count).sum();
    let how = match &culprit.endings[..] {
        [only] => manner(only),
        several => several.iter().map(ending).collect::<Vec<_>>().join(", "),
    };
    let (has, all) = (if ended == 1 { "has" } else { "have" }, culprit.opened);
    match (ended, all) {
        (0, 1) => "it was still open at the end".to_owned(),
        (0, _) => "all were still open at the end".to_owned(),
        (_, 1) => format!("it has ended: {how}"),
        (ended, all) if ended >= all => format!("all have ended: {how}"),
        (ended, all) => format!("{} of {} {has} ended: {how}", grouped(ended), grouped(all)),
    }
}

fn growth(culprit: &Culprit) -> Option<String> {
    let growth = culprit.growth.as_ref()?;
    let limit = match (growth.reaches_limit_in_ns, growth.fd_limit) {
        (Some(within), Some(limit)) if growth.at_end => {
            format!(": its {} fds are used up in about {}", grouped(limit), duration(within))
        }
        _ => String::new(),
    };
    let grew = if growth.at_end { "They grow" } else { "They grew" };
    Some(format!("{grew} by {} per minute{limit}.", rate(growth.per_minute)))
}

fn nothing(report: &Report) -> String {
    let but = match report.totals.retracted {
        0 => String::new(),
        some => format!(", but for {} in use", plural(some, "half-closed connection")),
    };
    let whole = report.gaps.count == 0 && report.incomplete.is_empty();
    let lingered = if whole { "lingered" } else { "was seen to linger" };
    format!("no connection {lingered} for {} or longer{but}", duration(report.linger_ns))
}

/// What is normal, where nothing is wrong.
fn healthy(report: &Report) -> Option<String> {
    let group = report
        .groups
        .iter()
        .filter_map(|group| Some((group, group.close_wait.as_ref()?)))
        .max_by_key(|(_, dwell)| dwell.count)?;
    let (group, dwell) = group;
    Some(format!(
        "{} was in CLOSE_WAIT {}: for {} in the median, {} at most.",
        group.comm.as_deref().unwrap_or("An unknown process"),
        match dwell.count {
            1 => "once".to_owned(),
            2 => "twice".to_owned(),
            count => format!("{} times", grouped(count)),
        },
        duration(dwell.p50.ns),
        duration(dwell.max_ns)
    ))
}

fn lost(report: &Report) -> String {
    let gaps = &report.gaps;
    let whole = report.incomplete.is_empty();
    match gaps.lost {
        0 if gaps.count == 0 && whole => "Nothing was lost.".to_owned(),
        0 if whole => format!(
            "It is not known how much was lost in {}, so counts are lower bounds.",
            plural(gaps.count, "gap")
        ),
        0 => "Nothing was lost by the kernel, but the recording is not whole:".to_owned(),
        lost => format!(
            "{} {} lost in {}, so counts are lower bounds.{}",
            match gaps.unknown {
                0 => plural(lost, "transition"),
                _ => format!("At least {}", plural(lost, "transition")),
            },
            if lost == 1 { "was" } else { "were" },
            plural(gaps.count, "gap"),
            if whole { "" } else { " The recording is not whole:" }
        ),
    }
}

fn traffic(report: &Report) -> String {
    let (totals, rates) = (&report.totals, &report.rates);
    if totals.findings_only {
        return "only findings were recorded, so nothing is known of other connections".to_owned();
    }
    if totals.transitions == 0 {
        return "no connection was seen to change its state".to_owned();
    }
    let sockets = totals
        .sockets
        .map_or_else(String::new, |sockets| format!(" of {}", plural(sockets, "socket")));
    let failed = match totals.failed {
        0 => String::new(),
        failed => format!(", {} of them never established", grouped(failed)),
    };
    format!(
        "{}{sockets}; {} opened ({} per second, at most {}), {} closed{failed}",
        plural(totals.transitions, "transition"),
        plural(totals.opened, "connection"),
        rate(rates.opened_mean),
        grouped(rates.opened_peak),
        grouped(totals.closed),
    )
}

fn caveats(totals: &Totals) -> Vec<String> {
    let cases = [
        (totals.undecided, "may have lingered for long enough, but their age is not known"),
        (totals.evicted, "were not tracked, as there were too many"),
        (totals.not_followed, "in CLOSE_WAIT could not be followed, as there were too many"),
    ];
    let told = |&(count, what): &(u64, &str)| {
        (count > 0).then(|| format!("{} {what}.", plural(count, "socket")))
    };
    cases.iter().filter_map(told).collect()
}
