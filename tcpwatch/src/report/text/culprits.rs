//! The culprits, what hurts most first.

use super::{
    page::{Page, colour},
    timeline::{Joined, blocks, per_column},
};
use crate::report::{
    model::{Culprit, Report},
    words::{self, plural},
};

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
        let title = format!("{}.  {}", number + 1, words::title(culprit));
        page.words(Some(colour), 0, INDENT, &title);
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

fn body(page: &mut Page, report: &Report, culprit: &Culprit) {
    let dated = page.dated(report.from, report.to);
    let counts = words::counts(culprit, report.from, &|at| page.moment(at, dated));
    page.words(None, INDENT, INDENT, &counts);
    if let Some(grows) = words::grows(culprit, &|at| page.moment(at, dated)) {
        page.words(Some(colour::WARN), INDENT, INDENT, &grows);
    }
    let per_column = per_column(culprit.open_by_bucket.len(), BLOCKS.min(page.width - INDENT));
    let blocks = blocks(&culprit.open_by_bucket, per_column, Joined::Max);
    if culprit.opened > 1 && !blocks.trim().is_empty() {
        page.line(Some(colour::BAD), &format!("{:INDENT$}{blocks}", ""));
    }
    if let Some(found) = words::found(culprit, report.from, &|at| page.moment(at, dated)) {
        page.words(Some(colour::DIM), INDENT, INDENT, &found);
    }
    if let Some(endings) = words::endings(culprit) {
        page.words(None, INDENT, INDENT, &endings);
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
