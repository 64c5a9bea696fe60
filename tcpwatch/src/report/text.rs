//! The report for people, on a terminal of any width from 40 columns.
//!
//! First what happened, in words; then the time line, the culprits, and the connections that are
//! well, so that what is not can be compared with them.

mod connections;
mod culprits;
mod page;
mod story;
mod table;
mod timeline;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use self::page::Page;
pub(crate) use self::timeline::BLOCKS;
pub(super) use self::{
    page::{Page as Paper, colour},
    table::{Align, Column, Table},
};
use super::model::Report;

/// How to show a report.
#[derive(Clone, Debug)]
pub struct Style {
    /// Columns; fewer than 40 count as 40.
    pub width: usize,
    /// Use colours.
    pub colour: bool,
    /// How many culprits and groups to show.
    pub top: usize,
    /// Where the reader is.
    pub zone: TimeZone,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 80, colour: false, top: 10, zone: TimeZone::system() }
    }
}

/// Writes the report.
pub fn write(out: &mut dyn Write, report: &Report, style: &Style) -> io::Result<()> {
    let mut page = Page::new(style);
    story::write(&mut page, report);
    timeline::write(&mut page, report);
    culprits::write(&mut page, report);
    connections::write(&mut page, report);
    out.write_all(page.text().as_bytes())
}
