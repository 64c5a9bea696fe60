//! How far a recording has been played, and where in it something is.

use ratatui::{buffer::Buffer, layout::Rect};

use super::time_of_day;
use crate::{
    report::text::BLOCKS,
    top::around::{Around, Play, Survey},
};

pub(super) fn draw(buffer: &mut Buffer, area: Rect, around: &Around<'_>) {
    let Some(play) = around.play.filter(|_| area.height > 0) else { return };
    let line = Rect { y: area.bottom() - 1, height: 1, ..area };
    let (from, to) = play.span;
    let time = |wall| time_of_day(wall, &around.zone, "%H:%M:%S");
    let (start, end) = (time(from), time(to));
    let wide = u16::try_from(start.len() + 1).unwrap_or(0);
    if area.width < 3 * wide {
        return track(buffer, line, play, around);
    }
    let look = around.look;
    buffer.set_stringn(line.x, line.y, &start, wide.into(), look.dim());
    buffer.set_stringn(line.right() - wide + 1, line.y, &end, wide.into(), look.dim());
    let middle = |line: Rect| Rect { x: line.x + wide, width: line.width - 2 * wide, ..line };
    track(buffer, middle(line), play, around);
    if area.height > 1
        && let Some(survey) = &play.survey
    {
        let above = Rect { y: line.y - 1, ..line };
        buffer.set_stringn(above.x, above.y, "findings", wide.into(), look.dim());
        findings(buffer, middle(above), play, survey, around);
    }
}

/// What was played, what comes, and where something is missing.
fn track(buffer: &mut Buffer, line: Rect, play: &Play, around: &Around<'_>) {
    let look = around.look;
    let here = column(play.position, play, line.width);
    for at in 0..line.width {
        let gap = play.survey.as_ref().is_some_and(|survey| {
            pieces(survey, play, line.width, at).any(|piece| survey.gaps.get(piece) == Some(&true))
        });
        let (symbol, style) = match () {
            () if at == here => ("●", look.strong()),
            () if gap => ("×", look.bad()),
            () if at < here => ("━", look.plain()),
            () => ("─", look.dim()),
        };
        buffer.set_stringn(line.x + at, line.y, symbol, 1, style);
    }
}

/// How many findings are open when.
fn findings(buffer: &mut Buffer, line: Rect, play: &Play, survey: &Survey, around: &Around<'_>) {
    let most = u128::from(survey.open.iter().copied().max().unwrap_or(0).max(1));
    for at in 0..line.width {
        let open =
            pieces(survey, play, line.width, at).filter_map(|piece| survey.open.get(piece)).max();
        let eighths = (u128::from(open.copied().unwrap_or(0)) * 8).div_ceil(most);
        let block = BLOCKS[usize::try_from(eighths).unwrap_or(8).min(8)];
        buffer.set_stringn(
            line.x + at,
            line.y,
            block.encode_utf8(&mut [0; 4]),
            1,
            around.look.bad(),
        );
    }
}

/// The column of a moment.
fn column(wall: u64, play: &Play, width: u16) -> u16 {
    let (from, to) = play.span;
    let whole = u128::from(to.saturating_sub(from).max(1));
    let part = u128::from(wall.clamp(from, to.max(from)) - from);
    let column = part * u128::from(width.saturating_sub(1)) / whole;
    u16::try_from(column).unwrap_or(0)
}

/// The pieces of a recording that a column stands for.
fn pieces(survey: &Survey, play: &Play, width: u16, at: u16) -> std::ops::RangeInclusive<usize> {
    let (from, to) = play.span;
    let whole = u128::from(to.saturating_sub(from));
    let wall = |at: u16| {
        let part = whole * u128::from(at) / u128::from(width.max(1));
        from.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    };
    let piece = |wall: u64| {
        let number = wall.saturating_sub(survey.from) / survey.width.max(1);
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let first = piece(wall(at));
    first..=piece(wall(at + 1).saturating_sub(1)).max(first)
}
