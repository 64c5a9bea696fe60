//! Draws a snapshot: pure, at any size.
//!
//! What matters stays when there is little room: the numbers, the culprits and the keys; then come
//! what is known of the selected one, and what was said meanwhile.

mod bar;
mod culprits;
mod ended;
mod footer;
mod header;
mod help;
mod look;
mod sockets;
mod story;
mod table;
mod words;

use jiff::tz::TimeZone;
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::Line,
    widgets::{Clear, Widget as _},
};

pub use self::look::Look;
use super::{
    app::{App, Overlay},
    around::Around,
    snapshot::{Page, Snapshot},
};

/// Rows of the screen, by what is in them.
struct Areas {
    header: Rect,
    title: Rect,
    body: Rect,
    why: Rect,
    bar: Rect,
    note: Rect,
    keys: Rect,
}

impl Areas {
    fn of(area: Rect, snapshot: &Snapshot, around: &Around<'_>) -> Self {
        let height = area.height;
        let of_header = match height {
            20.. => 3,
            13.. => 2,
            _ => u16::from(height >= 3),
        };
        let of_title = u16::from(height >= 12);
        let of_bar = match height {
            _ if around.play.is_none() => 0,
            28.. => 3,
            18.. => 2,
            _ => u16::from(height >= 7),
        };
        let of_note = u16::from(height >= 16);
        let of_keys = u16::from(height >= 4);
        let left = height - of_header - of_title - of_bar - of_note - of_keys;
        let of_why = match snapshot.page {
            Page::Culprits(_) if left >= 12 => (left / 3).min(8),
            _ => 0,
        };
        let mut top = area.y;
        let mut take = |height: u16| {
            let part = Rect { y: top, height, ..area };
            top += height;
            part
        };
        Self {
            header: take(of_header),
            title: take(of_title),
            body: take(left - of_why),
            why: take(of_why),
            bar: take(of_bar),
            note: take(of_note),
            keys: take(of_keys),
        }
    }
}

/// How many rows or lines can be seen of how many, where something is scrolled.
pub fn extent(area: Rect, snapshot: &Snapshot, app: &App, around: &Around<'_>) -> (usize, usize) {
    let body = Areas::of(area, snapshot, around).body;
    let room = usize::from(body.height);
    match (app.overlay, &snapshot.page) {
        (Some(overlay), _) => {
            let lines = over(overlay, app, around, area.width);
            (usize::from(over_area(area, &lines).height.saturating_sub(2)), lines.len())
        }
        (None, Page::Culprits(list)) => (room.saturating_sub(1), list.rows.len()),
        (None, Page::Sockets(_, list) | Page::Ended(list)) => {
            (room.saturating_sub(1), list.rows.len())
        }
        (None, Page::Story(story)) => {
            let header = &snapshot.header;
            (room, story::lines(story.as_deref(), header, around, body.width).len())
        }
    }
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, app: &App, around: &Around<'_>) {
    let area = frame.area();
    let areas = Areas::of(area, snapshot, around);
    let header = &snapshot.header;
    let buffer = frame.buffer_mut();
    header::draw(buffer, areas.header, header, app, around);
    match &snapshot.page {
        Page::Culprits(list) => {
            culprits::draw(buffer, areas.title, areas.body, (header, list), app, around);
            culprits::draw_why(buffer, areas.why, list, app, around.look);
        }
        Page::Sockets(culprit, list) => {
            sockets::draw(buffer, areas.title, areas.body, (culprit.as_deref(), list), app, around);
        }
        Page::Ended(list) => {
            ended::draw(buffer, areas.title, areas.body, (header, list), app, around);
        }
        Page::Story(story) => {
            story::draw_title(buffer, areas.title, story.as_deref(), around.look);
            let lines = story::lines(story.as_deref(), header, around, areas.body.width);
            put(buffer, areas.body, &lines, app.scrolled);
        }
    }
    bar::draw(buffer, areas.bar, around);
    footer::draw_note(buffer, areas.note, around);
    footer::draw_keys(buffer, areas.keys, app, snapshot, around);
    if let Some(overlay) = app.overlay {
        draw_over(buffer, area, overlay, app, around);
    }
    if let Some(column) = footer::cursor(areas.keys, app) {
        frame.set_cursor_position((column, areas.keys.y));
    }
}

fn over(overlay: Overlay, app: &App, around: &Around<'_>, width: u16) -> Vec<Line<'static>> {
    /// Lines that are longer are hard to read.
    const WIDEST: usize = 96;
    let room = usize::from(width.saturating_sub(4)).min(WIDEST);
    match overlay {
        Overlay::Help => help::lines(app, around, room),
        Overlay::Messages => help::messages(around, room),
    }
}

/// In the middle, as large as it needs to be.
fn over_area(area: Rect, lines: &[Line<'_>]) -> Rect {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    }
}

fn draw_over(buffer: &mut Buffer, area: Rect, overlay: Overlay, app: &App, around: &Around<'_>) {
    let lines = over(overlay, app, around, area.width);
    let outer = over_area(area, &lines);
    Clear.render(outer, buffer);
    let title = match overlay {
        Overlay::Help => " keys ",
        Overlay::Messages => " messages ",
    };
    let left =
        lines.len().saturating_sub(app.scrolled + usize::from(outer.height.saturating_sub(2)));
    let more = if left > 0 { " ↓ more " } else { "" };
    ratatui::widgets::Block::bordered()
        .border_style(around.look.dim())
        .title(Line::styled(title, around.look.strong()))
        .title_bottom(Line::styled(more, around.look.strong()))
        .render(outer, buffer);
    let inner = Rect {
        x: outer.x.saturating_add(2),
        y: outer.y.saturating_add(1),
        width: outer.width.saturating_sub(4),
        height: outer.height.saturating_sub(2),
    };
    put(buffer, inner, &lines, app.scrolled);
}

/// Lines from one on, as far as there is room.
fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>], from: usize) {
    for (line, y) in lines.iter().skip(from).zip(area.top()..area.bottom()) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// Sentences in the upper middle of an area.
fn put_in_middle(buffer: &mut Buffer, area: Rect, sentences: &[(String, Style)]) {
    let wrapped = sentences.iter().flat_map(|(text, style)| {
        words::wrap(text, area.width.into()).into_iter().map(|line| (line, *style))
    });
    for ((line, style), y) in wrapped.zip(area.top() + area.height / 3..area.bottom()) {
        let wide = u16::try_from(words::width(&line)).unwrap_or(u16::MAX);
        let x = area.x + area.width.saturating_sub(wide) / 2;
        buffer.set_stringn(x, y, &line, area.width.into(), style);
    }
}

/// A text at the beginning of an area; nothing outside it is touched.
fn text(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    if area.height > 0 {
        buffer.set_stringn(area.x, area.y, text, area.width.into(), style);
    }
}

/// A time of day.
fn time_of_day(wall_ns: u64, zone: &TimeZone, format: &str) -> String {
    crate::sink::moment(wall_ns).to_zoned(zone.clone()).strftime(format).to_string()
}
