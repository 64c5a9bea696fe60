//! What lies over the screen: all keys, and what was said meanwhile.

use ratatui::text::{Line, Span};

use super::words;
use crate::top::{
    app::{App, Subject},
    around::Around,
};

/// Columns of a key.
const KEY: usize = 16;

const MOVING: [(&str, &str); 2] =
    [("↑ ↓  k j", "move"), ("Enter", "go into it: culprit, socket, its story")];
const COMMON: [(&str, &str); 8] = [
    ("Esc Backspace", "back; takes a filter off first"),
    ("/", "show only what has this in it: name, pid, container, peer, verdict"),
    ("s", "another order: hurt, count, age, growth, owner; of sockets: youngest or oldest"),
    ("e", "what has ended, the latest first; again: back"),
    ("w", "write the findings that are listed to a new file, as JSON lines"),
    ("m", "what was said meanwhile"),
    ("^L", "draw everything anew"),
    ("q ^C", "end"),
];
const LIVE: [(&str, &str); 3] = [
    ("PgUp PgDn ^B ^F", "a page up, a page down"),
    ("Home End  g G", "to the first, to the last"),
    ("space", "let the display stand still; tracing goes on"),
];
const RECORDING: [(&str, &str); 7] = [
    ("^B ^F", "a page up, a page down"),
    ("g G", "to the first, to the last"),
    ("space", "play, or let time stand still"),
    ("← →", "10 s back, 10 s on"),
    ("PgUp PgDn", "1 min back, 1 min on; also with shift and ← →"),
    ("Home End", "to the beginning, to the end"),
    ("+ -", "twice as fast, half as fast"),
];

pub(super) fn lines(app: &App, around: &Around<'_>, room: usize) -> Vec<Line<'static>> {
    let own = match app.subject {
        Subject::Live => &LIVE[..],
        Subject::Recording => &RECORDING[..],
    };
    let mut lines: Vec<_> = MOVING
        .iter()
        .chain(own)
        .chain(&COMMON)
        .flat_map(|(key, does)| entry(key, does, around, room))
        .collect();
    let sort = "hurt: what will use up its process's descriptors the soonest, then what grows fastest, then what is most, then what is oldest";
    lines.push(Line::default());
    lines.extend(
        words::wrap(sort, room).into_iter().map(|line| Line::styled(line, around.look.dim())),
    );
    lines
}

fn entry(key: &'static str, does: &str, around: &Around<'_>, room: usize) -> Vec<Line<'static>> {
    let look = around.look;
    let mut key = Some(key);
    words::wrap(does, room.saturating_sub(KEY).max(1))
        .into_iter()
        .map(|line| {
            let key = key.take().unwrap_or_default();
            let pad = " ".repeat(KEY.saturating_sub(words::width(key)));
            Line::from(vec![
                Span::styled(key, look.strong()),
                Span::raw(pad),
                Span::styled(line, look.plain()),
            ])
        })
        .collect()
}

/// What was said, the latest first.
pub(super) fn messages(around: &Around<'_>, room: usize) -> Vec<Line<'static>> {
    if around.messages.is_empty() {
        return vec![Line::styled("nothing was said", around.look.dim())];
    }
    around
        .messages
        .iter()
        .rev()
        .flat_map(|message| words::wrap(message, room))
        .map(|line| Line::styled(line, around.look.plain()))
        .collect()
}
