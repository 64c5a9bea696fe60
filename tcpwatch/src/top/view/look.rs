//! Sixteen colours, or none.
//!
//! Colours are those the terminal has names for, so they follow its theme. Without them (`NO_COLOR`)
//! what matters is bold or reversed.

use ratatui::style::{Color, Modifier, Style};

/// How things look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Use colours.
    pub colour: bool,
}

impl Look {
    /// What stands out for nothing.
    pub fn plain(self) -> Style {
        Style::new()
    }

    /// What need not be read.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Names, and the keys.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Headings of columns.
    pub fn heading(self) -> Style {
        self.coloured(Color::Cyan, Modifier::BOLD)
    }

    /// What is as it should be.
    pub fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    /// What lingers.
    pub fn warn(self) -> Style {
        self.coloured(Color::Yellow, Modifier::empty())
    }

    /// What hurts.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD)
    }

    /// What must be seen.
    pub fn alarm(self) -> Style {
        self.bad().add_modifier(Modifier::REVERSED)
    }

    /// The row that keys are about.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A cell of that row: what hurts keeps its colour.
    pub fn in_selected(self, style: Style) -> Style {
        match style.fg {
            Some(Color::Red) => self.alarm(),
            _ if style.add_modifier.contains(Modifier::REVERSED) => self.bad(),
            _ => self.selected(),
        }
    }

    fn coloured(self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colour { style.fg(colour) } else { style }
    }
}
