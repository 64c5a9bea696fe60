//! The culprits, what hurts most first.

use super::{
    grouped,
    numbers::duration,
    page::{Page, colour, plural},
    rate,
    story::{ending, longest, owner, place},
    timeline::{Joined, blocks, per_column},
};
use crate::report::model::{Culprit, Report};

const INDENT: usize = 4;
/// Columns of the row of blocks.
const BLOCKS: usize = 60;

/// Writes the section; nothing if there are none.
pub(super) fn write(page: &mut Page, report: &Report) {
    if report.culprits.is_empty() {
        return;
    }
    let findings = plural(report.totals.findings, "finding");
    page.heading(&format!("CULPRITS: {}, with {findings}", report.culprits.len()));
    for (number, culprit) in report.culprits.iter().take(page.top).enumerate() {
        if number > 0 {
            page.line(None, "");
        }
        let colour = if culprit.leaks() > 0 { colour::BAD } else { colour::DIM };
        page.words(Some(colour), 0, INDENT, &title(number + 1, culprit));
        body(page, report, culprit);
    }
    if let Some(hidden) = report.culprits.get(page.top..).filter(|hidden| !hidden.is_empty()) {
        let findings = hidden.iter().map(|culprit| culprit.opened).sum();
        page.words(
            Some(super::page::colour::DIM),
            0,
            INDENT,
            &format!(
                "and {} with {} (--top shows them)",
                plural(hidden.len() as u64, "more culprit"),
                plural(findings, "finding")
            ),
        );
    }
}

fn title(number: usize, culprit: &Culprit) -> String {
    let verdict = match culprit.verdict {
        Some(verdict) => verdict,
        None if culprit.other => "",
        None => "unconfirmed",
    };
    format!("{number}.  {verdict} {} {}", owner(culprit), place(culprit)).trim_end().to_owned()
}

fn body(page: &mut Page, report: &Report, culprit: &Culprit) {
    let from = page.moment(report.from, page.dated(report.from, report.to));
    page.words(None, INDENT, INDENT, &counts(culprit, &from));
    if let Some(growth) = &culprit.growth {
        let limit = match (growth.reaches_limit_in_ns, growth.fd_limit) {
            (Some(within), Some(limit)) => {
                format!(": {} fds used up in about {}", grouped(limit), duration(within))
            }
            _ => String::new(),
        };
        let when = if growth.at_end {
            String::new()
        } else {
            format!(", at {}", page.moment(growth.ts, page.dated(report.from, report.to)))
        };
        let grows = format!("+{} per minute{when}{limit}", rate(growth.per_minute));
        page.words(Some(colour::WARN), INDENT, INDENT, &grows);
    }
    let per_column = per_column(culprit.open_by_bucket.len(), BLOCKS.min(page.width - INDENT));
    let blocks = blocks(&culprit.open_by_bucket, per_column, Joined::Max);
    if culprit.opened > 1 && !blocks.trim().is_empty() {
        page.line(Some(colour::BAD), &format!("{:INDENT$}{blocks}", ""));
    }
    if let Some(found) = found(page, report, culprit) {
        page.words(Some(colour::DIM), INDENT, INDENT, &found);
    }
    if !culprit.endings.is_empty() {
        let endings: Vec<_> = culprit.endings.iter().map(ending).collect();
        page.words(None, INDENT, INDENT, &format!("ended: {}", endings.join(", ")));
    }
    if let Some(example) = &culprit.example {
        let example_of = if culprit.opened > 1 { "for example: " } else { "" };
        page.words(None, INDENT, INDENT, &format!("{example_of}{}", example.summary));
        if !example.evidence.is_empty() {
            let seen = format!("seen: {}", example.evidence);
            page.words(Some(colour::DIM), INDENT, INDENT, &seen);
        }
    }
}

/// When its findings were made. Of those from before that is not when they began.
fn found(page: &Page, report: &Report, culprit: &Culprit) -> Option<String> {
    let dated = page.dated(report.from, report.to);
    let [from, first, last] =
        [report.from, culprit.first?, culprit.last?].map(|at| page.moment(at, dated));
    match culprit.before {
        all if all >= culprit.opened => None,
        0 if first == last => Some(format!("found {first}")),
        0 => Some(format!("first found {first}, last {last}")),
        _ => Some(format!("the first began before {from}, the last was found {last}")),
    }
}

fn counts(culprit: &Culprit, from: &str) -> String {
    let before = match culprit.before {
        0 => String::new(),
        all if all >= culprit.opened => format!(" (from before {from})"),
        some => format!(" ({} from before {from})", grouped(some)),
    };
    let longest = match culprit.longest_ns {
        0 => String::new(),
        _ if culprit.opened == 1 => format!(", for {}", longest(culprit)),
        _ => format!(", the oldest {}", longest(culprit)),
    };
    format!(
        "{}{before}, {} still open{longest}",
        plural(culprit.opened, "connection"),
        grouped(culprit.open)
    )
}
