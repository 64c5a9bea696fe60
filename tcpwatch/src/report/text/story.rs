//! What happened, in a paragraph of plain words, and when.

use super::page::{Page, colour};
use crate::report::{
    model::{Incomplete, Report},
    words::{Story, Tone, grouped},
};

/// Writes the paragraph, and when it all was.
pub(super) fn write(page: &mut Page, report: &Report) {
    let dated = page.dated(report.from, report.to);
    let story = Story::of(report, &|at| page.moment(at, dated));
    let colour = match story.tone {
        Tone::Good => colour::GOOD,
        Tone::Bad => colour::BAD,
    };
    page.words(Some(colour), 0, 0, &story.happened);
    missing(page, &report.incomplete);
    page.line(None, "");
    page.words(
        None,
        0,
        0,
        &format!(
            "{} to {} {}: {}",
            page.moment(report.from, true),
            page.moment(report.to, dated),
            page.zone(report.to),
            story.traffic
        ),
    );
    for line in &story.caveats {
        page.words(Some(colour::WARN), 0, 0, line);
    }
}

/// What of the recording is missing.
fn missing(page: &mut Page, incomplete: &Incomplete) {
    const SHOWN: usize = 5;
    for note in incomplete.notes.iter().take(SHOWN) {
        page.words(Some(colour::WARN), 2, 4, note);
    }
    let hidden = incomplete.notes.len().saturating_sub(SHOWN) as u64;
    let more = incomplete.more.saturating_add(hidden);
    if more > 0 {
        page.words(Some(colour::WARN), 2, 4, &format!("and {} more", grouped(more)));
    }
}
