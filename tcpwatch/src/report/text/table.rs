//! Tables that give up columns, and then their shape, before they are too wide.

use super::page::{Page, colour};

/// Where a column has its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Align {
    Left,
    Right,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Column {
    pub(in crate::report) title: &'static str,
    pub(in crate::report) align: Align,
    /// Columns with the highest number are given up first; those with 0 never.
    pub(in crate::report) rank: u8,
}

/// Rows under columns.
pub(in crate::report) struct Table {
    pub(in crate::report) columns: Vec<Column>,
    /// A row, and its colour.
    pub(in crate::report) rows: Vec<(Option<&'static str>, Vec<String>)>,
}

const GAP: usize = 2;

impl Table {
    /// Writes it.
    pub(in crate::report) fn write(&self, page: &mut Page) {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        loop {
            let widths: Vec<usize> = shown.iter().map(|&column| self.width(column)).collect();
            let width = widths.iter().sum::<usize>() + GAP * shown.len().saturating_sub(1);
            if width <= page.width {
                return self.write_columns(page, &shown, &widths);
            }
            let expendable = |&&column: &&usize| self.columns[column].rank > 0;
            let most = shown.iter().filter(expendable).max_by_key(|&&c| self.columns[c].rank);
            let Some(&most) = most else { return self.write_stacked(page, &shown) };
            shown.retain(|&column| column != most);
        }
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|(_, cells)| cells[column].chars().count());
        cells.chain([self.columns[column].title.len()]).max().unwrap_or(0)
    }

    fn write_columns(&self, page: &mut Page, shown: &[usize], widths: &[usize]) {
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells = shown.iter().zip(widths).map(|(&column, &width)| {
                let text = cell(column);
                match self.columns[column].align {
                    Align::Left => format!("{text:<width$}"),
                    Align::Right => format!("{text:>width$}"),
                }
            });
            cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
        };
        page.line(Some(colour::DIM), &line(&|column| self.columns[column].title.to_owned()));
        for (colour, cells) in &self.rows {
            page.line(*colour, &line(&|column| cells[column].clone()));
        }
    }

    /// A paragraph for each row.
    fn write_stacked(&self, page: &mut Page, shown: &[usize]) {
        for (colour, cells) in &self.rows {
            let (names, numbers): (Vec<usize>, Vec<usize>) =
                shown.iter().partition(|&&column| self.columns[column].align == Align::Left);
            let name: Vec<_> = names.iter().map(|&column| cells[column].trim()).collect();
            page.words(*colour, 0, 2, &name.join(" "));
            let numbers: Vec<_> = numbers
                .iter()
                .map(|&column| {
                    format!("{} {}", self.columns[column].title.to_lowercase(), cells[column])
                })
                .collect();
            page.words(*colour, 2, 2, &numbers.join(", "));
        }
    }
}
