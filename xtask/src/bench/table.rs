//! What a section of the bench found, and the three ways to print it.

use std::fmt::Write as _;

use serde::Serialize;

/// One table: the first column names what was measured.
#[derive(Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// The command that makes it.
    pub(crate) command: &'static str,
    /// What was done, and what a reader must know to believe it.
    pub(crate) about: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
}

/// A number and how many digits after the point it is worth.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    value: Option<f64>,
    digits: usize,
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// A number with that many digits after the point; nothing was measured if there is none.
pub(crate) fn cell(value: impl Into<Option<f64>>, digits: usize) -> Cell {
    Cell { value: value.into(), digits }
}

impl Cell {
    fn text(self) -> String {
        let digits = self.digits;
        self.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    }
}

impl Table {
    /// Adds a row.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push(Row { name: name.into(), cells });
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let first = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().map(|row| row.cells[at].text().len());
                cells.chain([column.len()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = format!("{}\n{:first$}", self.title, "");
        for (column, width) in self.columns.iter().zip(&widths) {
            let _ = write!(text, "  {column:>width$}");
        }
        for row in &self.rows {
            let _ = write!(text, "\n{:first$}", row.name);
            for (cell, width) in row.cells.iter().zip(&widths) {
                let _ = write!(text, "  {:>width$}", cell.text());
            }
        }
        text
    }

    /// For `docs/performance.md`.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n| |", self.title, self.about);
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---:|".repeat(self.columns.len()));
        for row in &self.rows {
            let _ = write!(text, "\n| {} |", row.name);
            for cell in &row.cells {
                let _ = write!(text, " {} |", cell.text());
            }
        }
        let _ = writeln!(text, "\n\n`{}`", self.command);
        text
    }
}
