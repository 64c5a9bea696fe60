//! Tables whose columns fit: what matters least is left out first.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

/// Between two columns.
const GAP: u16 = 1;

/// Columns that are dispensable to this degree are shown only where all others read well.
pub(super) const EXTRA: u8 = 7;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub(super) title: &'static str,
    /// It needs this many columns of the terminal,
    pub(super) least: u16,
    /// reads well with these,
    pub(super) good: u16,
    /// and can use no more than these.
    pub(super) most: u16,
    /// Numbers stand right.
    pub(super) right: bool,
    /// The higher, the sooner it is left out.
    pub(super) dispensable: u8,
}

/// A column and where it stands: its number, where it begins, and how wide it is.
pub(super) type Placed = (usize, u16, u16);

/// Which columns are shown, and where.
pub(super) fn place(columns: &[Column], width: u16) -> Vec<Placed> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize], of: fn(&Column) -> u16| {
        let gaps = GAP * u16::try_from(shown.len().saturating_sub(1)).unwrap_or(0);
        shown.iter().map(|&number| of(&columns[number])).sum::<u16>() + gaps
    };
    while let Some((at, rank)) = shown
        .iter()
        .enumerate()
        .map(|(at, &number)| (at, columns[number].dispensable))
        .max_by_key(|&(_, rank)| rank)
    {
        let wanted =
            if rank >= EXTRA { needed(&shown, |c| c.good) } else { needed(&shown, |c| c.least) };
        if wanted <= width || shown.len() == 1 {
            break;
        }
        shown.remove(at);
    }
    let mut left = width.saturating_sub(needed(&shown, |column| column.least));
    let mut widths: Vec<u16> = shown.iter().map(|&number| columns[number].least).collect();
    // Those that are dispensable least grow first.
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|&place| columns[shown[place]].dispensable);
    for limit in [|column: &Column| column.good, |column: &Column| column.most] {
        for &place in &order {
            let wanted = limit(&columns[shown[place]]).saturating_sub(widths[place]);
            let more = wanted.min(left);
            widths[place] += more;
            left -= more;
        }
    }
    let mut x = 0;
    let mut placed = Vec::with_capacity(shown.len());
    for (number, wide) in shown.into_iter().zip(widths) {
        let wide = wide.min(width.saturating_sub(x));
        placed.push((number, x, wide));
        x += wide + GAP;
    }
    placed
}

/// Writes a text into a column of a line.
pub(super) fn cell(
    buffer: &mut Buffer,
    line: Rect,
    (_, x, wide): Placed,
    right: bool,
    text: &str,
    style: Style,
) {
    let x = line.x.saturating_add(x);
    let room = wide.min(line.right().saturating_sub(x));
    if room == 0 || line.height == 0 {
        return;
    }
    let used = u16::try_from(super::words::width(text)).unwrap_or(u16::MAX).min(room);
    let start = if right { x + room - used } else { x };
    buffer.set_stringn(start, line.y, text, room.into(), style);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "A", least: 4, good: 6, most: 20, right: false, dispensable: 1 },
        Column { title: "B", least: 4, good: 4, most: 4, right: true, dispensable: 0 },
        Column { title: "C", least: 8, good: 10, most: 10, right: false, dispensable: 2 },
    ];

    #[test]
    fn what_matters_least_is_left_out_and_the_rest_grows() {
        assert_eq!(place(&COLUMNS, 18), [(0, 0, 4), (1, 5, 4), (2, 10, 8)]);
        assert_eq!(place(&COLUMNS, 17), [(0, 0, 12), (1, 13, 4)]);
        assert_eq!(place(&COLUMNS, 8), [(1, 0, 4)]);
        assert_eq!(place(&COLUMNS, 3), [(1, 0, 3)]);
        assert_eq!(place(&COLUMNS, 0), [(1, 0, 0)]);
        assert_eq!(place(&COLUMNS, 40), [(0, 0, 20), (1, 21, 4), (2, 26, 10)]);
    }
}
