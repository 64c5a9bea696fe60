//! The time line as a few rows of blocks.

use super::page::{Page, colour};
use crate::report::{
    model::{Bucket, Report},
    words::{duration, grouped, plural},
};

/// A block for each eighth; nothing is a space, so the first that happens is seen.
pub(crate) const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const LABEL: usize = 12;
/// Columns for a number at the end of a row, on a page that has room for it.
const NUMBER: usize = 18;
const ROOM_FOR_NUMBERS: usize = 60;

/// How counts of neighbouring buckets become one.
#[derive(Clone, Copy)]
pub(super) enum Joined {
    /// What happened in both.
    Sum,
    /// What there was at most.
    Max,
}

/// Writes the section.
pub(super) fn write(page: &mut Page, report: &Report) {
    let buckets = &report.timeline.buckets;
    let per_column = per_column(buckets.len(), room(page));
    let happened = |bucket: &Bucket| bucket.transitions > 0 || bucket.gaps > 0 || bucket.open > 0;
    if !buckets.iter().any(happened) && report.totals.findings == 0 {
        return;
    }
    let column = report.timeline.width_ns.saturating_mul(per_column as u64);
    page.heading(&format!("TIME LINE, {} a column", duration(column)));
    let max = |of: &dyn Fn(&Bucket) -> u64| buckets.iter().map(of).max().unwrap_or(0);
    if !report.totals.findings_only {
        let rows: [Row<'_>; 3] = [
            ("opened", Joined::Sum, None, &|bucket| bucket.opened),
            ("ESTABLISHED", Joined::Max, None, &|bucket| bucket.established_max),
            ("CLOSE_WAIT", Joined::Max, Some(colour::WARN), &|bucket| bucket.close_wait_max),
        ];
        for (label, joined, colour, of) in rows {
            if max(of) == 0 {
                continue;
            }
            let most = match joined {
                Joined::Sum => format!("{} in all", grouped(buckets.iter().map(of).sum())),
                Joined::Max => format!("at most {}", grouped(max(of))),
            };
            row(page, report, label, &most, joined, colour, of);
        }
    }
    if report.totals.findings > 0 {
        let most = format!("at most {}", grouped(max(&|bucket| bucket.open)));
        row(page, report, "findings", &most, Joined::Max, Some(colour::BAD), &|bucket| bucket.open);
    }
    if report.gaps.count > 0 {
        let marks: String = buckets
            .chunks(per_column)
            .map(|column| if column.iter().any(|bucket| bucket.gaps > 0) { '×' } else { ' ' })
            .collect();
        page.line(Some(colour::BAD), &format!("{:<LABEL$}{marks}", "lost"));
    }
    let dated = page.dated(report.from, report.to);
    let (from, to) = (page.moment(report.from, dated), page.moment(report.to, dated));
    let columns = buckets.len().div_ceil(per_column);
    if LABEL + from.len() + 1 + to.len() <= page.width {
        let room = columns.saturating_sub(from.len()).max(to.len() + 1);
        let room = room.min(page.width - LABEL - from.len());
        page.line(Some(colour::DIM), &format!("{:LABEL$}{from}{to:>room$}", ""));
    } else {
        page.words(Some(colour::DIM), LABEL, LABEL, &format!("{from} to {to}"));
    }
    if report.gaps.count > 0 {
        gaps(page, report);
    }
    if report.timeline.states_uncertain && !report.totals.findings_only {
        page.words(
            Some(colour::DIM),
            LABEL,
            LABEL,
            "Numbers of sockets are what was seen: some changes were lost or not shown.",
        );
    }
}

/// Columns for blocks.
fn room(page: &Page) -> usize {
    let number = if page.width < ROOM_FOR_NUMBERS { 0 } else { NUMBER };
    page.width - LABEL - number
}

type Row<'a> = (&'a str, Joined, Option<&'static str>, &'a dyn Fn(&Bucket) -> u64);

fn row(
    page: &mut Page,
    report: &Report,
    label: &str,
    most: &str,
    joined: Joined,
    colour: Option<&str>,
    of: &dyn Fn(&Bucket) -> u64,
) {
    let counts: Vec<u64> = report.timeline.buckets.iter().map(of).collect();
    let per_column = per_column(counts.len(), room(page));
    let blocks = blocks(&counts, per_column, joined);
    let line = format!("{label:<LABEL$}{blocks}");
    if line.chars().count() + 2 + most.chars().count() <= page.width {
        page.line(colour, &format!("{line}  {most}"));
    } else {
        page.line(colour, &line);
        page.line(Some(super::page::colour::DIM), &format!("{:LABEL$}{most}", ""));
    }
}

fn gaps(page: &mut Page, report: &Report) {
    const NAMED: usize = 3;
    let dated = page.dated(report.from, report.to);
    let gaps = &report.gaps;
    let mut named: Vec<_> = gaps
        .first
        .iter()
        .take(NAMED)
        .map(|gap| {
            let lost = gap.lost.map_or_else(|| "an unknown number".to_owned(), grouped);
            format!("{lost} before {}", page.moment(gap.ts, dated))
        })
        .collect();
    let more = gaps.count.saturating_sub(named.len() as u64);
    if more > 0 {
        named.push(plural(more, "more gap"));
    }
    page.words(Some(colour::DIM), LABEL, LABEL, &format!("lost: {}", named.join(", ")));
}

/// How many buckets share a column, so that all fit.
pub(super) fn per_column(buckets: usize, room: usize) -> usize {
    buckets.div_ceil(room.max(1)).max(1)
}

/// Counts as blocks, the highest being the greatest.
pub(super) fn blocks(counts: &[u64], per_column: usize, joined: Joined) -> String {
    let columns: Vec<u64> = counts
        .chunks(per_column)
        .map(|column| match joined {
            Joined::Sum => column.iter().sum(),
            Joined::Max => column.iter().copied().max().unwrap_or(0),
        })
        .collect();
    let most = columns.iter().copied().max().unwrap_or(0).max(1);
    let height = |count: u64| {
        let eighths = u128::from(count) * 8;
        usize::try_from(eighths.div_ceil(u128::from(most))).unwrap_or(8)
    };
    columns.into_iter().map(|count| BLOCKS[height(count).min(8)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen_and_nothing_is_not() {
        assert_eq!(blocks(&[0, 1, 400, 800], 1, Joined::Max), " ▁▄█");
        assert_eq!(blocks(&[1, 3, 4, 4], 2, Joined::Sum), "▄█");
        assert_eq!(blocks(&[0, 0], 1, Joined::Max), "  ");
    }
}
