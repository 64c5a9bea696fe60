//! Beside the first screen: findings that have ended, and how.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    look::Look,
    put_in_middle,
    table::{Column, Placed, cell, place},
    text, time_of_day, words,
};
use crate::{
    core::finding::{Cause, Verdict},
    report::words::grouped,
    top::{
        app::App,
        around::Around,
        snapshot::{Header, List, SocketRow},
    },
};

const ENDED: usize = 0;
const LASTED: usize = 1;
const OWNER: usize = 2;
const VERDICT: usize = 3;
const HOW: usize = 4;

const fn column(
    title: &'static str,
    (least, good, most): (u16, u16, u16),
    right: bool,
    dispensable: u8,
) -> Column {
    Column { title, least, good, most, right, dispensable }
}

/// In this order from the left; the last number is the order in which they are left out.
const COLUMNS: [Column; 6] = [
    column("ENDED", (8, 8, 8), false, 3),
    column("LASTED", (7, 7, 7), true, 0),
    column("OWNER", (10, 15, 24), false, 1),
    column("VERDICT", (11, 14, 16), false, 4),
    column("HOW", (8, 10, 15), false, 2),
    column("PEER", (12, 21, 47), false, 5),
];

pub(super) fn draw(
    buffer: &mut Buffer,
    title: Rect,
    area: Rect,
    (header, list): (&Header, &List<SocketRow>),
    app: &App,
    around: &Around<'_>,
) {
    let look = around.look;
    if list.total == 0 {
        let said = ("no finding has ended".to_owned(), look.plain());
        return put_in_middle(buffer, area, &[said, ("Esc goes back".to_owned(), look.dim())]);
    }
    text(buffer, title, &words::cut(&heading(header, list, app), title.width.into()), look.dim());
    if list.rows.is_empty() {
        let said = (format!("no finding has '{}' in it", app.filter()), look.plain());
        let more = ("Esc takes the filter off".to_owned(), look.dim());
        return put_in_middle(buffer, area, &[said, more]);
    }
    let placed = place(&COLUMNS, area.width);
    for &spot in &placed {
        let column = &COLUMNS[spot.0];
        cell(buffer, area, spot, column.right, column.title, look.heading());
    }
    let rows = list.rows.iter().enumerate().skip(app.ended.offset());
    for ((number, row), y) in rows.zip(area.top() + 1..area.bottom()) {
        let line = Rect { y, height: 1, ..area };
        let selected = number == app.ended.index();
        if selected {
            buffer.set_style(line, look.selected());
        }
        for &spot in &placed {
            let (text, style) = content(row, spot, header, around);
            let style = if selected { look.in_selected(style) } else { style };
            cell(buffer, line, spot, COLUMNS[spot.0].right, &text, style);
        }
    }
}

/// `1 of 3 findings that ended, with 'api', the latest first`; of many only the last are kept.
fn heading(header: &Header, list: &List<SocketRow>, app: &App) -> String {
    let all = match header.ended {
        all if all > list.total as u64 => format!("the last {} of {}", list.total, grouped(all)),
        all => grouped(all),
    };
    let (of, with) = match app.filter() {
        "" => (String::new(), String::new()),
        filter => (format!("{} of ", grouped(list.matching as u64)), format!(", with '{filter}'")),
    };
    let findings = if header.ended == 1 { "finding" } else { "findings" };
    let order = if app.earliest { "earliest" } else { "latest" };
    format!("{of}{all} {findings} that ended{with}, the {order} first")
}

fn content(
    row: &SocketRow,
    (number, _, wide): Placed,
    header: &Header,
    around: &Around<'_>,
) -> (String, Style) {
    let (room, look) = (usize::from(wide), around.look);
    let finding = &*row.finding;
    match number {
        ENDED => {
            let wall = header.clock.wall_ns(finding.at);
            (time_of_day(wall, &around.zone, "%H:%M:%S"), look.dim())
        }
        LASTED => (words::age(row.age, finding.at_least), look.plain()),
        OWNER => {
            let owner = finding.socket.owner;
            let owner = owner.map_or("nobody known".to_owned(), |owner| owner.process.to_string());
            (words::cut_process(&owner, room), look.strong())
        }
        VERDICT => {
            (words::cut(finding.verdict.map_or("unconfirmed", Verdict::word), room), look.plain())
        }
        HOW => how(finding.ending.map(|ending| ending.cause), look),
        _ => (words::cut_end(&finding.socket.remote.to_string(), room), look.plain()),
    }
}

/// The program closed it, or something else happened.
fn how(cause: Option<Cause>, look: Look) -> (String, Style) {
    let style = match cause {
        Some(Cause::Closed | Cause::FdClosed | Cause::InUse) => look.good(),
        _ => look.warn(),
    };
    (cause.map_or("", Cause::word).to_owned(), style)
}
