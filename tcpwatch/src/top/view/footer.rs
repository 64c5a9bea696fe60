//! What was said last, and what can be typed.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{text, words};
use crate::{
    report::words::plural,
    top::{
        app::{App, Asked, Prompt, Subject},
        around::Around,
        snapshot::{Page, Snapshot},
    },
};

pub(super) fn draw_note(buffer: &mut Buffer, area: Rect, around: &Around<'_>) {
    let Some(note) = around.note else { return };
    let style = if note.bad { around.look.bad() } else { around.look.good() };
    text(buffer, area, &words::cut(note.text, area.width.into()), style);
}

/// What is asked, before what is typed.
fn question(prompt: &Prompt) -> &'static str {
    match prompt.asked {
        Asked::Filter { .. } => "filter: ",
        Asked::File => "write to: ",
    }
}

/// The end of what was typed, as much as there is room for.
fn typed(prompt: &Prompt, room: usize) -> &str {
    let mut start = 0;
    while words::width(&prompt.text[start..]) > room {
        start += prompt.text[start..].chars().next().map_or(1, char::len_utf8);
    }
    &prompt.text[start..]
}

/// Where what is typed comes in.
pub(super) fn cursor(area: Rect, app: &App) -> Option<u16> {
    let prompt = app.prompt.as_ref().filter(|_| area.height > 0)?;
    let question = question(prompt).len();
    let room = usize::from(area.width).saturating_sub(question + 1);
    let used = question + words::width(typed(prompt, room));
    Some(area.x + u16::try_from(used).unwrap_or(0).min(area.width.saturating_sub(1)))
}

pub(super) fn draw_keys(
    buffer: &mut Buffer,
    area: Rect,
    app: &App,
    snapshot: &Snapshot,
    around: &Around<'_>,
) {
    if area.height == 0 {
        return;
    }
    let look = around.look;
    if let Some(prompt) = &app.prompt {
        let question = question(prompt);
        let room = usize::from(area.width).saturating_sub(question.len() + 1);
        let typed = typed(prompt, room);
        let (mut x, _) =
            buffer.set_stringn(area.x, area.y, question, area.width.into(), look.strong());
        (x, _) = buffer.set_stringn(x, area.y, typed, room, look.plain());
        let left = usize::from(area.right().saturating_sub(x));
        let hint = match prompt.asked {
            Asked::Filter { .. } => "   Enter: keep it, Esc: take it back".to_owned(),
            Asked::File => format!("   Enter: {}, Esc: none", what(app, snapshot)),
        };
        if words::width(&hint) < left {
            buffer.set_stringn(x, area.y, &hint, left, look.dim());
        }
        return;
    }
    if let (Some(note), true) = (around.note, area.y < 12) {
        let style = if note.bad { look.bad() } else { look.good() };
        return text(buffer, area, &words::cut(note.text, area.width.into()), style);
    }
    let keys = fitting(keys(app, snapshot), area.width.into());
    let mut x = area.x;
    for (key, word) in keys {
        let mut put = |text: &str, style| {
            let left = usize::from(area.right().saturating_sub(x));
            (x, _) = buffer.set_stringn(x, area.y, text, left, style);
        };
        put(key, look.strong());
        put(" ", look.plain());
        put(&word, look.dim());
        put("  ", look.plain());
    }
}

/// What `w` would write.
fn what(app: &App, snapshot: &Snapshot) -> String {
    let findings = |number: usize| plural(number as u64, "finding");
    match &snapshot.page {
        Page::Culprits(_) if app.filter().is_empty() => findings(snapshot.header.open),
        Page::Culprits(list) => format!("those of {}", plural(list.matching as u64, "culprit")),
        Page::Sockets(_, list) | Page::Ended(list) => findings(list.matching),
        Page::Story(_) => "this finding".to_owned(),
    }
}

type Keys = Vec<(&'static str, String, u8)>;

/// The keys of this place, with what they do; the last number is the order in which they are left out.
fn keys(app: &App, snapshot: &Snapshot) -> Keys {
    let recording = app.subject == Subject::Recording;
    let mut all: Keys = Vec::new();
    let mut key = |key, word: &str, rank| all.push((key, word.to_owned(), rank));
    match &snapshot.page {
        Page::Culprits(_) => {
            key("↵", "sockets", 2);
            key("/", "filter", 3);
            key("s", &format!("sort: {}", app.sort.word()), 4);
        }
        Page::Sockets(..) => {
            key("↵", "story", 2);
            key("Esc", "back", 1);
            key("/", "filter", 4);
            key("s", if app.youngest { "oldest" } else { "youngest" }, 5);
        }
        Page::Ended(_) => {
            key("↵", "story", 2);
            key("Esc", "back", 1);
            key("/", "filter", 4);
            key("s", if app.earliest { "latest" } else { "earliest" }, 5);
        }
        Page::Story(_) => {
            key("Esc", "back", 1);
            key("↑↓", "scroll", 2);
        }
    }
    if snapshot.header.ended > 0 && matches!(snapshot.page, Page::Culprits(_) | Page::Sockets(..)) {
        key("e", "ended", 3);
    }
    if recording {
        key("space", "play/pause", 2);
        key("←→", "10s", 3);
        key("+-", "speed", 6);
    } else {
        key("space", if app.frozen { "go on" } else { "pause" }, 3);
    }
    key("w", "write", 5);
    key("m", "messages", 7);
    key("?", "help", 0);
    key("q", "quit", 0);
    all
}

fn fitting(mut keys: Keys, room: usize) -> Vec<(&'static str, String)> {
    let wide = |keys: &Keys| {
        keys.iter().map(|(key, word, _)| words::width(key) + words::width(word) + 3).sum::<usize>()
    };
    while keys.len() > 1 && wide(&keys) > room + 2 {
        let least = keys.iter().enumerate().max_by_key(|(_, (_, _, rank))| *rank);
        if let Some((place, _)) = least {
            keys.remove(place);
        }
    }
    keys.into_iter().map(|(key, word, _)| (key, word)).collect()
}
