//! Connections by process and service, the well ones too.

use super::{
    page::{Page, colour},
    table::{Align, Column, Table},
};
use crate::report::{
    model::{Durations, Group, Report},
    words::{duration, grouped, plural, process, service},
};

const COLUMNS: [Column; 13] = [
    Column { title: "PROCESS", align: Align::Left, rank: 0 },
    Column { title: "SERVICE", align: Align::Left, rank: 0 },
    Column { title: "OPENED", align: Align::Right, rank: 0 },
    Column { title: "FAILED", align: Align::Right, rank: 7 },
    Column { title: "LIFE p50", align: Align::Right, rank: 3 },
    Column { title: "LIFE p90", align: Align::Right, rank: 11 },
    Column { title: "LIFE p99", align: Align::Right, rank: 6 },
    Column { title: "LIFE max", align: Align::Right, rank: 9 },
    Column { title: "CW p50", align: Align::Right, rank: 4 },
    Column { title: "CW p90", align: Align::Right, rank: 10 },
    Column { title: "CW p99", align: Align::Right, rank: 2 },
    Column { title: "CW max", align: Align::Right, rank: 8 },
    Column { title: "STILL IN CW", align: Align::Right, rank: 0 },
];

/// Writes the section; nothing if no connections were recorded.
pub(super) fn write(page: &mut Page, report: &Report) {
    if report.groups.is_empty() {
        return;
    }
    page.heading("CONNECTIONS by process and service (CW: time in CLOSE_WAIT)");
    let rows = report.groups.iter().take(page.top).map(row).collect();
    Table { columns: COLUMNS.to_vec(), rows }.write(page);
    if let Some(hidden) = report.groups.get(page.top..).filter(|hidden| !hidden.is_empty()) {
        let opened = hidden.iter().map(|group| group.opened).sum();
        page.words(
            Some(colour::DIM),
            0,
            2,
            &format!(
                "and {} with {} (--top shows them)",
                plural(hidden.len() as u64, "more group"),
                plural(opened, "connection")
            ),
        );
    }
}

fn row(group: &Group) -> (Option<&'static str>, Vec<String>) {
    let time = |of: &Option<Durations>, pick: fn(&Durations) -> u64| {
        of.as_ref().map_or_else(|| "-".to_owned(), |durations| duration(pick(durations)))
    };
    let now = match group.close_wait_now_oldest_ns {
        Some(oldest) => format!("{} {}", grouped(group.close_wait_now), duration(oldest)),
        None => "0".to_owned(),
    };
    let cells = vec![
        process(group),
        service(group),
        grouped(group.opened),
        grouped(group.failed),
        time(&group.lifetime, |durations| durations.p50.ns),
        time(&group.lifetime, |durations| durations.p90.ns),
        time(&group.lifetime, |durations| durations.p99.ns),
        time(&group.lifetime, |durations| durations.max_ns),
        time(&group.close_wait, |durations| durations.p50.ns),
        time(&group.close_wait, |durations| durations.p90.ns),
        time(&group.close_wait, |durations| durations.p99.ns),
        time(&group.close_wait, |durations| durations.max_ns),
        now,
    ];
    ((group.close_wait_now > 0).then_some(colour::WARN), cells)
}
