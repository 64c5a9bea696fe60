//! The report as a page for a browser: one file that needs no other and asks nobody for anything.
//!
//! Here is what the page says, as data; `html/page` is how it looks and what it does, in files of
//! their own that are put into it whole. The same recording makes the same bytes: no clock is read,
//! and moments become text in the browser, in UTC or where the reader is.
//!
//! What others named enters the page in three places only: the title and the first paragraph, where
//! it is escaped, the text version, too, and JSON that no parser of HTML can leave (`<` is
//! `\u003c`). Scripts put it into text nodes; the page's policy lets nothing run or load but the
//! script and the style that it names by their hashes.

pub mod command;
mod data;
mod rows;
mod shell;
mod timeline;

use std::io::{self, Write};

use jiff::tz::TimeZone;

pub use self::data::{Part, Source};
use self::{data::Data, shell::Parts};
use super::{
    Report,
    model::Listed,
    text::{self, Style},
    words::Story,
};
use crate::sink;

/// Bytes that a page may take.
const LARGEST: usize = 2_900_000;

/// Writes the page. `listed` are the findings that it lists, of those that the report counts.
pub fn write(
    out: &mut dyn Write,
    source: &Source,
    report: &Report,
    listed: &[Listed],
) -> io::Result<()> {
    let data = serde_json::to_string(&Data::new(source, report))?;
    let mut plain = Vec::new();
    let style = Style { width: 100, colour: false, top: 10, zone: TimeZone::UTC };
    text::write(&mut plain, report, &style)?;
    let plain = String::from_utf8_lossy(&plain);
    let moment = |at: super::model::Wall| {
        let utc = sink::moment(at.0).to_zoned(TimeZone::UTC);
        utc.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    };
    let story = Story::of(report, &moment);
    let parts = Parts {
        heading: &data::heading(source, &story),
        story: &story.happened,
        plain: &plain,
        data: &data,
    };
    let room = LARGEST.saturating_sub(parts.size());
    let rows = rows::within(room, rows::rows(report, listed))?;
    shell::write(out, &parts, &rows)
}
