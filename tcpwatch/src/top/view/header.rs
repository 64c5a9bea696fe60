//! The numbers that are always shown.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{text, time_of_day, words};
use crate::{
    core::{advice::count, time::Nanos},
    report::{
        text::BLOCKS,
        words::{grouped, plural},
    },
    source::record::bytes,
    top::{
        app::App,
        around::{Around, Playing},
        snapshot::Header,
    },
};

/// Between two parts of a line.
const GAP: usize = 3;
/// The time that the line of blocks goes back, in seconds.
const SPAN: u64 = 300;
/// Columns of that line at least; fewer show nothing.
const LEAST_LINE: usize = 8;
/// And at most.
const MOST_LINE: usize = 60;
/// What was lost in the last minute is shouted.
const FRESH: Nanos = Nanos(60_000_000_000);

type Part = (String, Style);

pub(super) fn draw(
    buffer: &mut Buffer,
    area: Rect,
    header: &Header,
    app: &App,
    around: &Around<'_>,
) {
    let line = |number: u16| Rect { y: area.y + number, height: 1, ..area };
    match area.height {
        0 => {}
        1 => {
            let mut all = vec![close_wait(header, around), short_findings(header, around)];
            // What was lost comes before whether time stands still, and both before nothing lost.
            let at = if header.lost.is_some() { 2 } else { 3 };
            all.push(state(app, around));
            all.insert(at, lost(header, around));
            parts(buffer, line(0), &all);
        }
        2 => {
            title(buffer, line(0), header, app, around);
            let all = [close_wait(header, around), findings(header, around), lost(header, around)];
            with_line(buffer, line(1), header, &all, around);
        }
        _ => {
            title(buffer, line(0), header, app, around);
            let all = [close_wait(header, around), findings(header, around)];
            with_line(buffer, line(1), header, &all, around);
            parts(buffer, line(2), &numbers(header, around));
        }
    }
}

/// Where and when; what the display does.
fn title(buffer: &mut Buffer, line: Rect, header: &Header, app: &App, around: &Around<'_>) {
    let look = around.look;
    let wall = around.play.map_or_else(|| header.clock.wall_ns(header.now), |play| play.position);
    let format = if around.play.is_some() { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" };
    let time = time_of_day(wall, &around.zone, format);
    let room = usize::from(line.width).saturating_sub(time.len() + 1);
    let right = Rect { x: line.x + u16::try_from(room + 1).unwrap_or(0), ..line };
    let left = Rect { width: u16::try_from(room).unwrap_or(0), ..line };
    if usize::from(line.width) > time.len() {
        text(buffer, right, &time, look.plain());
    }
    let mut all = vec![("tcpwatch top".to_owned(), look.strong())];
    all.push((around.host.to_owned(), look.plain()));
    all.push(state(app, around));
    if let Some(tape) = around.tape {
        let style = if tape.failing { look.alarm() } else { look.plain() };
        let failing = if tape.failing { ", CANNOT WRITE" } else { "" };
        all.push((format!("recording {}{failing}", bytes(tape.bytes)), style));
    }
    if !around.scope.is_empty() {
        all.push((around.scope.to_owned(), look.warn()));
    }
    parts(buffer, left, &all);
}

/// What the display does, if it is not to show what happens.
fn state(app: &App, around: &Around<'_>) -> Part {
    let look = around.look;
    let Some(play) = around.play else {
        let text = if app.frozen { " PAUSED, tracing goes on " } else { "" };
        return (text.to_owned(), look.selected());
    };
    match play.playing {
        Playing::On => (format!("▶ {}x", play.speed), look.good()),
        Playing::Waiting => (" PAUSED ".to_owned(), look.selected()),
        Playing::Seeking => (" SEEKING ".to_owned(), look.selected()),
        Playing::Ended => (" END ".to_owned(), look.selected()),
    }
}

fn close_wait(header: &Header, around: &Around<'_>) -> Part {
    let (what, count) = match header.close_wait {
        Some(count) => ("CLOSE_WAIT", count),
        None => ("lingering", header.lingering),
    };
    let style = if count > 0 { around.look.warn() } else { around.look.plain() };
    (format!("{what} {}", grouped(count)), style)
}

fn findings(header: &Header, around: &Around<'_>) -> Part {
    let look = around.look;
    let ended = match header.ended {
        0 => String::new(),
        ended => format!(", {} ended", grouped(ended)),
    };
    let style = if header.open > 0 { look.bad() } else { look.good() };
    (format!("{} open{ended}", plural(header.open as u64, "finding")), style)
}

/// The same for a screen with little room.
fn short_findings(header: &Header, around: &Around<'_>) -> Part {
    let (_, style) = findings(header, around);
    (count(header.open as u64, "finding"), style)
}

fn lost(header: &Header, around: &Around<'_>) -> Part {
    let look = around.look;
    match header.lost {
        None => ("0 lost".to_owned(), look.dim()),
        Some((0, _)) => ("some LOST".to_owned(), look.bad()),
        Some((total, ago)) => {
            let style = if ago < FRESH { look.alarm() } else { look.bad() };
            (format!("{} LOST", grouped(total)), style)
        }
    }
}

fn numbers(header: &Header, around: &Around<'_>) -> Vec<Part> {
    let look = around.look;
    let counted = |number: Option<u64>, what: &str| {
        number.map_or_else(|| format!("- {what}s"), |number| plural(number, what))
    };
    let mut all = vec![
        lost(header, around),
        (format!("{}/s", counted(header.rate, "transition")), look.plain()),
        (counted(header.tracked, "socket"), look.plain()),
    ];
    if around.play.is_none() {
        let agent = around
            .costs
            .agent
            .map_or_else(|| "-".to_owned(), |share| format!("{}.{} % CPU", share / 10, share % 10));
        let kernel = around.costs.kernel_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns} ns"));
        all.push((format!("agent {agent}"), look.dim()));
        all.push((format!("kernel {kernel}"), look.dim()));
        all.push((format!("for {}", header.watched), look.dim()));
    }
    all
}

/// Parts, with the last minutes after the first of them as far as there is room.
fn with_line(buffer: &mut Buffer, line: Rect, header: &Header, all: &[Part], around: &Around<'_>) {
    let Some(((first, style), rest)) = all.split_first() else { return };
    let label = format!(" {}m", SPAN / 60);
    let taken: usize = rest.iter().map(|(text, _)| GAP + words::width(text)).sum();
    let room = usize::from(line.width)
        .saturating_sub(taken + words::width(first) + 1 + label.len())
        .min(MOST_LINE);
    if room < LEAST_LINE {
        return parts(buffer, line, all);
    }
    let mut x = line.x;
    let mut put = |text: &str, style| {
        (x, _) = buffer.set_stringn(x, line.y, text, (line.right() - x).into(), style);
    };
    put(first, *style);
    put(" ", *style);
    for (block, style) in blocks(header, room, *style, around) {
        put(block.encode_utf8(&mut [0; 4]), style);
    }
    put(&label, around.look.dim());
    let left = Rect { x, width: line.right() - x, ..line };
    after(buffer, left, rest);
}

/// The last minutes as blocks; a dot where nothing is known.
fn blocks(
    header: &Header,
    room: usize,
    style: Style,
    around: &Around<'_>,
) -> impl Iterator<Item = (char, Style)> {
    let columns = header.recently.columns(header.now, SPAN, room);
    let dot = ('·', around.look.dim());
    let most = columns.iter().copied().flatten().max().unwrap_or(0).max(1);
    let height = move |number: u64| {
        let eighths = (u128::from(number) * 8).div_ceil(u128::from(most));
        BLOCKS[usize::try_from(eighths).unwrap_or(8).min(8)]
    };
    columns.into_iter().map(move |number| number.map_or(dot, |number| (height(number), style)))
}

/// Parts of a line, those that there is room for.
fn parts(buffer: &mut Buffer, line: Rect, all: &[Part]) {
    let mut all = all.iter().filter(|(text, _)| !text.is_empty());
    let Some((text, style)) = all.next() else { return };
    let (x, _) = buffer.set_stringn(line.x, line.y, text, line.width.into(), *style);
    after(buffer, Rect { x, width: line.right() - x, ..line }, all);
}

/// More of them after the first.
fn after<'a>(buffer: &mut Buffer, line: Rect, all: impl IntoIterator<Item = &'a Part>) {
    let mut x = line.x;
    for (text, style) in all {
        let wide = words::width(text);
        if !text.is_empty() && usize::from(line.right() - x) >= GAP + wide {
            let at = x + u16::try_from(GAP).unwrap_or(0);
            (x, _) = buffer.set_stringn(at, line.y, text, wide, *style);
        }
    }
}
