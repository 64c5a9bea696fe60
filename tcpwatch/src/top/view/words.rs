//! Text that fits: numbers, cuts and breaks, by the columns that a terminal gives to characters.

use ratatui::text::Span;

use crate::{
    core::time::Nanos,
    report::words::{grouped, rate},
};

/// Columns of a text.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Its beginning, as far as there is room; `…` stands for the rest.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let (kept, _) = split_at(text, room.saturating_sub(1));
    if room == 0 { String::new() } else { format!("{kept}…") }
}

/// Beginning and end of a text of which the end says more, as a port or a pid does.
pub(super) fn cut_middle(text: &str, end: usize, room: usize) -> String {
    let all = width(text);
    if all <= room || room <= end + 1 {
        return cut(text, room);
    }
    let (kept, _) = split_at(text, room - end - 1);
    let (_, end) = split_at(text, all - end);
    format!("{kept}…{end}")
}

/// An address: its port is kept.
pub(super) fn cut_end(text: &str, room: usize) -> String {
    let port = text.rfind(':').map_or(0, |at| text.len() - at);
    cut_middle(text, port, room)
}

/// A process: its pid is kept.
pub(super) fn cut_process(text: &str, room: usize) -> String {
    let pid = text.rfind('[').map_or(0, |at| text.len() - at);
    cut_middle(text, pid, room)
}

fn split_at(text: &str, columns: usize) -> (&str, &str) {
    let mut at = 0;
    for (start, c) in text.char_indices() {
        let end = start + c.len_utf8();
        if width(&text[..end]) > columns {
            break;
        }
        at = end;
    }
    text.split_at(at)
}

/// Broken at spaces; a word that is longer than a line is broken, too.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    for mut word in text.split(' ') {
        loop {
            let line = lines.last().map_or(0, |line| width(line));
            let gap = usize::from(line > 0);
            if line + gap + width(word) <= room {
                if let Some(last) = lines.last_mut() {
                    last.push_str(&" "[..gap]);
                    last.push_str(word);
                }
                break;
            }
            if line > 0 {
                lines.push(String::new());
                continue;
            }
            let (kept, rest) = split_at(word, room);
            let (kept, rest) = if kept.is_empty() { (word, "") } else { (kept, rest) };
            if let Some(last) = lines.last_mut() {
                last.push_str(kept);
            }
            if rest.is_empty() {
                break;
            }
            lines.push(String::new());
            word = rest;
        }
    }
    lines
}

/// A number in at most five columns: `1,204`, `12.3k`, `123k`.
pub(super) fn count(number: usize) -> String {
    match number as u64 {
        number @ 0..10_000 => grouped(number),
        number @ 10_000..100_000 => format!("{}.{}k", number / 1000, number / 100 % 10),
        number @ 100_000..10_000_000 => format!("{}k", grouped(number / 1000)),
        number => format!("{}M", grouped(number / 1_000_000)),
    }
}

/// `+14.0`, `+1,204`: thousandths of a socket per minute.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn growth(milli_per_minute: u64) -> String {
    match milli_per_minute {
        0..100_000_000 => format!("+{}", rate(milli_per_minute as f64 / 1000.0)),
        more => format!("+{}k", grouped(more / 1_000_000)),
    }
}

/// An age or a time to wait, in at most six columns.
pub(super) fn span(span: Nanos) -> String {
    const HUNDRED_DAYS: Nanos = Nanos(8_640_000_000_000_000);
    if span < HUNDRED_DAYS { span.to_string() } else { ">99d".to_owned() }
}

/// `≥` before an age that is a lower bound.
pub(super) fn age(age: Nanos, at_least: bool) -> String {
    format!("{}{}", if at_least { "≥" } else { "" }, span(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_keeps_what_says_most() {
        assert_eq!(cut("never-accepted", 14), "never-accepted");
        assert_eq!(cut("never-accepted", 8), "never-a…");
        assert_eq!(cut("x", 0), "");
        assert_eq!(cut_process("leaky-server[4242]", 14), "leaky-s…[4242]");
        assert_eq!(cut_end("to 192.168.100.200:5432", 16), "to 192.168…:5432");
        assert_eq!(cut_end("to 192.168.100.200:5432", 5), "to 1…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut_middle("漢字漢字[7]", 3, 8), "漢字…[7]");
    }

    #[test]
    fn lines_are_broken_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("it was not closed", 8), ["it was", "not", "closed"]);
        assert_eq!(wrap("a /sys/fs/cgroup/x b", 8), ["a", "/sys/fs/", "cgroup/x", "b"]);
        assert_eq!(wrap("漢字", 1), ["漢字"]);
        assert_eq!(wrap("", 8), [""]);
    }

    #[test]
    fn numbers_stay_short() {
        let all: Vec<_> = [0, 1204, 12_345, 99_999, 123_456, 12_345_678].map(count).into();
        assert_eq!(all, ["0", "1,204", "12.3k", "99.9k", "123k", "12M"]);
        let all: Vec<_> = [320, 14_000, 1_204_000, 250_000_000].map(growth).into();
        assert_eq!(all, ["+0.32", "+14.0", "+1,204", "+250k"]);
        assert_eq!(age(Nanos(15_120_000_000_000), true), "≥4h12m");
        assert_eq!(span(Nanos(u64::MAX)), ">99d");
    }
}
