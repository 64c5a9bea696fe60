//! One frame of the screen as text, with the escape sequences of its colours: for pictures that are
//! made without a terminal.

use std::{
    io::{self, Write},
    str::FromStr,
};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    layout::Rect,
    style::{Color, Modifier},
};

use super::{
    app::{App, Subject},
    around::{Around, Costs, Play},
    driver::About,
    keys,
    model::Model,
    view::{self, Look},
};
use crate::{
    core::time::Timestamp,
    source::replay::{Pace, Wait},
};

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.parse::<u16>().ok().filter(|number| (1..=1000).contains(number));
        text.split_once('x')
            .and_then(|(columns, rows)| {
                Some(Self { columns: number(columns)?, rows: number(rows)? })
            })
            .ok_or_else(|| "use columns and rows, such as 100x30".to_owned())
    }
}

/// Plays as fast as it can up to a moment, as wall time.
pub(super) struct Until(pub(super) u64);

impl Pace for Until {
    fn due(&mut self, _: Timestamp, wall_ns: u64) -> Wait {
        if wall_ns <= self.0 { Wait::Now } else { Wait::Enough }
    }
}

/// Writes the frame that these keys lead to.
pub(super) fn write(
    out: &mut dyn Write,
    size: Size,
    model: &mut Model,
    about: &About,
    play: &Play,
    typed: &[String],
) -> Result<()> {
    let around = Around {
        look: Look { colour: about.colour },
        zone: TimeZone::system(),
        host: &about.host,
        scope: &about.scope,
        unseen: about.unseen,
        linger: about.linger,
        costs: Costs::default(),
        tape: None,
        play: Some(play),
        messages: &[],
        note: None,
    };
    let mut app = App::new(Subject::Recording);
    let area = Rect::new(0, 0, size.columns, size.rows);
    let mut snapshot = model.snapshot(&app.query());
    for name in [None].into_iter().chain(typed.iter().map(Some)) {
        if let Some(name) = name {
            let key = keys::of_name(name).with_context(|| format!("there is no key '{name}'"))?;
            app.key(key, &snapshot);
        }
        model.groups.sort_by(app.sort);
        snapshot = model.snapshot(&app.query());
        let (visible, lines) = view::extent(area, &snapshot, &app, &around);
        app.settle(&snapshot, visible, lines);
    }
    let mut terminal = Terminal::new(TestBackend::new(size.columns, size.rows))?;
    terminal.draw(|frame| view::draw(frame, &snapshot, &app, &around))?;
    Ok(write_buffer(out, terminal.backend().buffer())?)
}

/// Writes what is drawn, line by line.
fn write_buffer(out: &mut dyn Write, buffer: &Buffer) -> io::Result<()> {
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut before = String::new();
        for x in buffer.area.left()..buffer.area.right() {
            let Some(cell) = buffer.cell((x, y)) else { continue };
            let style = codes(cell);
            if style != before {
                write!(out, "\x1b[0{style}m")?;
                before = style;
            }
            out.write_all(cell.symbol().as_bytes())?;
        }
        let end = if before.is_empty() { "" } else { "\x1b[0m" };
        writeln!(out, "{end}")?;
    }
    Ok(())
}

/// What selects the graphic rendition of a cell (ECMA-48), after the reset.
fn codes(cell: &Cell) -> String {
    let modifiers = [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
    ];
    let mut codes: String = modifiers
        .into_iter()
        .filter(|(modifier, _)| cell.modifier.contains(*modifier))
        .map(|(_, code)| code)
        .collect();
    codes += match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Cyan => ";36",
        _ => "",
    };
    codes
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn sizes_are_columns_and_rows() {
        assert_eq!("100x30".parse(), Ok(Size { columns: 100, rows: 30 }));
        for bad in ["", "100", "0x3", "3x", "100x2000", "axb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_frame_is_its_text_with_its_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 5, 2));
        buffer.set_string(0, 0, "ab", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
        buffer.set_string(2, 0, "c", Style::new());
        let mut out = Vec::new();
        write_buffer(&mut out, &buffer).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\x1b[0;1;31mab\x1b[0mc  \n     \n");
    }
}
