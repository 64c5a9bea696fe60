//! The second screen: the sockets of one culprit.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    culprits::{end, listed, owner, shown, verdict},
    look::Look,
    put_in_middle,
    table::{Column, Placed, cell, place},
    text, words,
};
use crate::{
    core::{finding::Finding, state::State},
    report::words::grouped,
    top::{
        app::App,
        around::Around,
        snapshot::{CulpritRow, List, SocketRow},
    },
};

const AGE: usize = 0;
const FD: usize = 1;
const LOCAL: usize = 2;
const REMOTE: usize = 3;
const UNREAD: usize = 4;
const UNSENT: usize = 5;
const STATE: usize = 6;

const fn column(
    title: &'static str,
    (least, good, most): (u16, u16, u16),
    right: bool,
    dispensable: u8,
) -> Column {
    Column { title, least, good, most, right, dispensable }
}

const COLUMNS: [Column; 8] = [
    column("AGE", (7, 7, 7), true, 0),
    column("FD", (5, 5, 7), true, 2),
    column("LOCAL", (12, 21, 47), false, 6),
    column("REMOTE", (12, 21, 47), false, 1),
    column("UNREAD", (6, 7, 10), true, 3),
    column("UNSENT", (6, 7, 10), true, 4),
    column("STATE", (10, 10, 10), false, 5),
    column("HELD BY", (12, 24, 60), false, 7),
];

pub(super) fn draw(
    buffer: &mut Buffer,
    title: Rect,
    area: Rect,
    (culprit, list): (Option<&CulpritRow>, &List<SocketRow>),
    app: &App,
    around: &Around<'_>,
) {
    let look = around.look;
    let Some(culprit) = culprit else {
        let said = ("all of these have ended".to_owned(), look.good());
        let more = "e lists what has ended, Esc goes back".to_owned();
        return put_in_middle(buffer, area, &[said, (more, look.dim())]);
    };
    text(buffer, title, &words::cut(&heading(culprit, list, app), title.width.into()), look.dim());
    if list.rows.is_empty() {
        let said = (format!("no socket has '{}' in it", app.filter()), look.plain());
        let more = ("Esc takes the filter off".to_owned(), look.dim());
        return put_in_middle(buffer, area, &[said, more]);
    }
    let placed = place(&COLUMNS, area.width);
    for &spot in &placed {
        let column = &COLUMNS[spot.0];
        cell(buffer, area, spot, column.right, column.title, look.heading());
    }
    let rows = list.rows.iter().enumerate().skip(app.sockets.offset());
    for ((number, row), y) in rows.zip(area.top() + 1..area.bottom()) {
        let line = Rect { y, height: 1, ..area };
        let selected = number == app.sockets.index();
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

fn heading(culprit: &CulpritRow, list: &List<SocketRow>, app: &App) -> String {
    let key = &culprit.key;
    let listed = listed(list, "socket", app.filter());
    let order = if app.youngest { "youngest" } else { "oldest" };
    let (owner, verdict, end) = (owner(key), verdict(key), end(key));
    format!("{owner} {verdict} {end}: {listed}, the {order} first{}", shown(list))
}

fn content(row: &SocketRow, (number, _, wide): Placed, look: Look) -> (String, Style) {
    let room = usize::from(wide);
    let finding = &*row.finding;
    let socket = &finding.socket;
    let none = || (String::new(), look.dim());
    match number {
        AGE => (words::age(row.age, finding.at_least), look.plain()),
        FD => finding
            .holders
            .first()
            .map_or_else(none, |holder| (holder.fd.to_string(), look.strong())),
        LOCAL => (words::cut_end(&socket.local.to_string(), room), look.plain()),
        REMOTE => (words::cut_end(&socket.remote.to_string(), room), look.plain()),
        UNREAD => unread(finding).map_or_else(none, |text| {
            let style = if text == "0" { look.dim() } else { look.warn() };
            (text, style)
        }),
        UNSENT => socket.tcp.map_or_else(none, |tcp| {
            let style = if tcp.unsent == 0 { look.dim() } else { look.warn() };
            (grouped(tcp.unsent.into()), style)
        }),
        STATE => (socket_state(finding.state).to_owned(), look.plain()),
        _ => (words::cut(&held_by(finding), room), look.plain()),
    }
}

fn socket_state(state: State) -> &'static str {
    // A connection that is gone under its fd.
    if state == State::Close { "CLOSE" } else { state.name() }
}

/// Bytes that nobody has read; `FIN` if that is all that was not noticed. `None` if it is not known.
pub(super) fn unread(finding: &Finding) -> Option<String> {
    let unread = finding.socket.tcp?.unread;
    Some(match (finding.state, unread) {
        // The FIN counts as one.
        (State::CloseWait, 1) => "FIN".to_owned(),
        (State::CloseWait, more @ 2..) => grouped(u64::from(more) - 1),
        (_, number) => grouped(number.into()),
    })
}

fn held_by(finding: &Finding) -> String {
    let named =
        |holder: &crate::core::socket::Holder| format!("{} fd {}", holder.process, holder.fd);
    match &finding.holders[..] {
        [] => "nobody".to_owned(),
        [one] => one.process.to_string(),
        [first, rest @ ..] => format!("{} and {} more", named(first), rest.len()),
    }
}
