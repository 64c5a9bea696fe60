//! The first screen: whose connections linger, and how much that hurts.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    look::Look,
    put_in_middle,
    table::{Column, Placed, cell, place},
    text, words,
};
use crate::{
    core::{
        culprits::{Growth, Key},
        finding::Verdict,
        time::Nanos,
        unseen::Unseen,
    },
    report::words::grouped,
    top::{
        app::App,
        around::Around,
        model::Sort,
        snapshot::{CulpritRow, Header, List, MOST_ROWS},
    },
};

const OWNER: usize = 0;
const CONTAINER: usize = 1;
const ROLE: usize = 2;
const VERDICT: usize = 3;
const END: usize = 4;
const COUNT: usize = 5;
const OLDEST: usize = 6;
const GROWTH: usize = 7;
const FDS: usize = 8;
const LIMIT: usize = 9;

const fn column(
    title: &'static str,
    (least, good, most): (u16, u16, u16),
    right: bool,
    dispensable: u8,
) -> Column {
    Column { title, least, good, most, right, dispensable }
}

/// In this order from the left; the last number is the order in which they are left out.
const COLUMNS: [Column; 10] = [
    column("OWNER", (10, 15, 24), false, 1),
    column("CONTAINER", (12, 32, 70), false, 9),
    column("ROLE", (6, 6, 6), false, 8),
    column("VERDICT", (11, 14, 16), false, 2),
    column("PEER OR LISTENER", (12, 20, 50), false, 4),
    column("COUNT", (5, 5, 5), true, 0),
    column("OLDEST", (7, 7, 7), true, 3),
    column("+/MIN", (6, 6, 7), true, 6),
    column("FDS", (11, 11, 15), true, 7),
    column("FULL IN", (7, 7, 7), true, 5),
];

/// Descriptors that last no longer than this are shouted,
const SOON: Nanos = Nanos(600_000_000_000);
/// and than this are red.
const HOURS: Nanos = Nanos(14_400_000_000_000);

pub(super) fn draw(
    buffer: &mut Buffer,
    title: Rect,
    area: Rect,
    (header, list): (&Header, &List<CulpritRow>),
    app: &App,
    around: &Around<'_>,
) {
    let look = around.look;
    text(buffer, title, &words::cut(&heading(list, app), title.width.into()), look.dim());
    if list.rows.is_empty() {
        return empty(buffer, area, header, app, around);
    }
    let columns = fitted(&list.rows);
    let placed = place(&columns, area.width);
    headings(buffer, area, &placed, app.sort, look);
    let rows = list.rows.iter().enumerate().skip(app.culprits.offset());
    for ((number, row), y) in rows.zip(area.top() + 1..area.bottom()) {
        let line = Rect { y, height: 1, ..area };
        let selected = number == app.culprits.index();
        if selected {
            buffer.set_style(line, look.selected());
        }
        for &spot in &placed {
            let (text, style) = content(row, spot, look);
            let style = if selected { look.in_selected(style) } else { style };
            cell(buffer, line, spot, COLUMNS[spot.0].right, &text, style);
        }
    }
}

/// The columns, none wider than what is in it or than what reads well.
fn fitted(rows: &[CulpritRow]) -> [Column; 10] {
    let mut columns = COLUMNS;
    let mut fit = |number: usize, of: &dyn Fn(&CulpritRow) -> usize| {
        let widest = u16::try_from(rows.iter().map(of).max().unwrap_or(0)).unwrap_or(u16::MAX);
        let column = &mut columns[number];
        column.most = widest.clamp(column.good, column.most);
        widest > 0
    };
    fit(OWNER, &|row| words::width(&owner(&row.key)));
    fit(VERDICT, &|row| verdict(&row.key).len());
    fit(END, &|row| words::width(&end(&row.key)));
    let contained = fit(CONTAINER, &|row| container(row).map_or(0, |text| words::width(&text)));
    if !contained {
        // Too wide for any terminal.
        columns[CONTAINER].good = u16::MAX / 2;
    }
    columns
}

fn container(row: &CulpritRow) -> Option<String> {
    row.process.as_ref()?.container.as_ref().map(ToString::to_string)
}

fn heading(list: &List<CulpritRow>, app: &App) -> String {
    let listed = listed(list, "culprit", app.filter());
    let order = match app.sort {
        Sort::Hurt => "what hurts most first",
        Sort::Count => "the largest first",
        Sort::Age => "the oldest first",
        Sort::Growth => "what grows fastest first",
        Sort::Owner => "by name",
    };
    if list.total == 0 { String::new() } else { format!("{listed}, {order}{}", shown(list)) }
}

/// `3 culprits`, `1 of 3 culprits with 'web'`.
pub(super) fn listed<T>(list: &List<T>, what: &str, filter: &str) -> String {
    let plural = if list.total == 1 { "" } else { "s" };
    let all = format!("{} {what}{plural}", grouped(list.total as u64));
    match filter {
        "" => all,
        filter => format!("{} of {all} with '{filter}'", grouped(list.matching as u64)),
    }
}

/// How many are shown, if not all are.
pub(super) fn shown<T>(list: &List<T>) -> String {
    if list.matching > MOST_ROWS { format!(" ({MOST_ROWS} shown)") } else { String::new() }
}

fn headings(buffer: &mut Buffer, area: Rect, placed: &[Placed], sort: Sort, look: Look) {
    let sorted = match sort {
        Sort::Hurt => LIMIT,
        Sort::Count => COUNT,
        Sort::Age => OLDEST,
        Sort::Growth => GROWTH,
        Sort::Owner => OWNER,
    };
    for &spot in placed {
        let column = &COLUMNS[spot.0];
        let style = look.heading();
        let style = if spot.0 == sorted { style.add_modifier(UNDERLINED) } else { style };
        cell(buffer, area, spot, column.right, column.title, style);
    }
}

const UNDERLINED: ratatui::style::Modifier = ratatui::style::Modifier::UNDERLINED;

/// What a cell says, cut to its room.
fn content(row: &CulpritRow, (number, _, wide): Placed, look: Look) -> (String, Style) {
    let room = usize::from(wide);
    let key = &row.key;
    let process = row.process.as_deref();
    let none = || (String::new(), look.dim());
    match number {
        OWNER => (words::cut_process(&owner(key), room), look.strong()),
        CONTAINER => {
            container(row).map_or_else(none, |text| (words::cut(&text, room), look.plain()))
        }
        ROLE => (role(key).to_owned(), look.plain()),
        VERDICT => (words::cut(verdict(key), room), look.warn()),
        END => (words::cut_end(&end(key), room), look.plain()),
        COUNT => (words::count(row.count), look.plain()),
        OLDEST => (words::age(row.oldest, row.at_least), look.plain()),
        GROWTH => row.growth.map_or_else(none, |growth| {
            (words::growth(Growth::milli_per_minute(growth)), look.bad())
        }),
        FDS => {
            let fds = process.and_then(|facts| facts.fds.zip(facts.fd_limit));
            fds.map_or_else(none, |(fds, limit)| (format!("{fds}/{limit}"), look.plain()))
        }
        _ => row.limit.map_or_else(none, |limit| (words::span(limit), urgency(limit, look))),
    }
}

fn urgency(limit: Nanos, look: Look) -> Style {
    match limit {
        limit if limit < SOON => look.alarm(),
        limit if limit < HOURS => look.bad(),
        _ => look.plain(),
    }
}

pub(super) fn owner(key: &Key) -> String {
    key.owner.map_or_else(|| "nobody known".to_owned(), |owner| owner.to_string())
}

pub(super) fn verdict(key: &Key) -> &'static str {
    key.verdict.map_or("unconfirmed", Verdict::word)
}

fn role(key: &Key) -> &'static str {
    match key.client {
        Some(true) => "client",
        Some(false) => "server",
        None => "",
    }
}

/// The end that findings share, and how: to a peer, at a listener, or with somebody.
pub(super) fn end(key: &Key) -> String {
    let how = match key.client {
        Some(true) => "to",
        Some(false) => "at",
        None => "with",
    };
    format!("{how} {}", key.end)
}

fn empty(buffer: &mut Buffer, area: Rect, header: &Header, app: &App, around: &Around<'_>) {
    let look = around.look;
    let (said, more) = match app.filter() {
        "" if around.unseen == Some(Unseen::Processes) => (
            ("nothing was seen to linger".to_owned(), look.warn()),
            "what only processes outside this pid namespace hold is not seen".to_owned(),
        ),
        "" if header.ended > 0 => {
            (("nothing lingers now".to_owned(), look.good()), "e lists what has ended".to_owned())
        }
        "" => (
            ("nothing lingers".to_owned(), look.good()),
            format!("what stays in CLOSE_WAIT for {} is a finding", around.linger),
        ),
        filter => (
            (format!("no culprit has '{filter}' in it"), look.plain()),
            "Esc takes the filter off".to_owned(),
        ),
    };
    put_in_middle(buffer, area, &[said, (more, look.dim())]);
}

/// What is known of the oldest of the selected culprit.
pub(super) fn draw_why(
    buffer: &mut Buffer,
    area: Rect,
    list: &List<CulpritRow>,
    app: &App,
    look: Look,
) {
    let Some(row) = list.rows.get(app.culprits.index()) else { return };
    let Some(why) = row.why.as_ref().filter(|_| area.height > 0) else { return };
    let title = format!("── {} {} ", owner(&row.key), end(&row.key));
    let rule = "─".repeat(usize::from(area.width).saturating_sub(words::width(&title)));
    text(buffer, area, &format!("{title}{rule}"), look.dim());
    let room = usize::from(area.width);
    let seen = format!("seen: {}", why.evidence);
    let todo = format!("to do: {}", why.todo);
    let mut lines: Vec<(String, Style)> = Vec::new();
    for (text, style) in [(&why.summary, look.plain()), (&todo, look.good()), (&seen, look.dim())] {
        lines.extend(words::wrap(text, room).into_iter().map(|line| (line, style)));
    }
    let shown = usize::from(area.height) - 1;
    let all = lines.len();
    for (number, (line, style)) in lines.into_iter().take(shown).enumerate() {
        let more = number + 1 == shown && all > shown;
        let line = if more { words::cut(&format!("{line} …"), room) } else { line };
        let y = area.y + 1 + u16::try_from(number).unwrap_or(0);
        buffer.set_stringn(area.x, y, &line, room, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_near_stands_out() {
        const MINUTE: u64 = 60_000_000_000;
        let look = Look { colour: true };
        let style = |minutes: u64| urgency(Nanos(minutes * MINUTE), look);
        assert_eq!(
            [style(9), style(10), style(239), style(240)].map(|style| style == look.alarm()),
            [true, false, false, false]
        );
        assert_eq!((style(10), style(239), style(240)), (look.bad(), look.bad(), look.plain()));
    }

    #[test]
    fn what_says_least_is_left_out_first() {
        let mut columns = COLUMNS;
        columns[CONTAINER].good = columns[CONTAINER].least;
        let titles = |width: u16| -> Vec<_> {
            place(&columns, width).iter().map(|spot| columns[spot.0].title).collect()
        };
        let mut shown = titles(400);
        let mut gone = Vec::new();
        for width in (40..400).rev() {
            let now = titles(width);
            gone.extend(shown.iter().filter(|title| !now.contains(title)).copied());
            shown = now;
        }
        assert_eq!(gone, ["CONTAINER", "ROLE", "FDS", "+/MIN", "FULL IN", "PEER OR LISTENER"]);
        assert_eq!(shown, ["OWNER", "VERDICT", "COUNT", "OLDEST"]);
    }
}
