//! Lines that fit.
//!
//! Everything that is written goes through here, so no line is longer than the page is wide.

use jiff::tz::TimeZone;

use super::Style;
use crate::{report::model::Wall, sink};

const NARROWEST: usize = 40;
/// Words are read more easily in lines that are not much longer.
const WIDEST_WORDS: usize = 100;

/// Colours, as SGR numbers.
pub(in crate::report) mod colour {
    /// Headings.
    pub(in crate::report) const BOLD: &str = "1";
    /// What is wrong.
    pub(in crate::report) const BAD: &str = "1;31";
    /// What is well.
    pub(in crate::report) const GOOD: &str = "32";
    /// What deserves a look.
    pub(in crate::report) const WARN: &str = "33";
    /// What matters less.
    pub(in crate::report) const DIM: &str = "2";
}

/// A page that is being written.
pub(in crate::report) struct Page {
    text: String,
    pub(in crate::report) width: usize,
    pub(in crate::report) top: usize,
    colour: bool,
    zone: TimeZone,
}

impl Page {
    pub(in crate::report) fn new(style: &Style) -> Self {
        Self {
            text: String::new(),
            width: style.width.max(NARROWEST),
            top: style.top,
            colour: style.colour,
            zone: style.zone.clone(),
        }
    }

    pub(in crate::report) fn text(self) -> String {
        self.text
    }

    /// A line that is known to fit, in a colour or in none.
    pub(in crate::report) fn line(&mut self, colour: Option<&str>, text: &str) {
        let colour = colour.filter(|_| self.colour && !text.is_empty());
        let (before, after) = colour.map_or(("", ""), |_| ("\x1b[", "m"));
        let end = colour.map_or("", |_| "\x1b[0m");
        let text = text.trim_end();
        self.text.extend([before, colour.unwrap_or(""), after, text, end, "\n"]);
    }

    /// An empty line and a heading.
    pub(in crate::report) fn heading(&mut self, text: &str) {
        self.line(None, "");
        self.words(Some(colour::BOLD), 0, 0, text);
    }

    /// Words, broken at spaces where they can be; the first line is indented by `first`, the others
    /// by `rest`.
    pub(in crate::report) fn words(
        &mut self,
        colour: Option<&str>,
        first: usize,
        rest: usize,
        text: &str,
    ) {
        let room = self.width.min(WIDEST_WORDS + rest);
        let mut line = " ".repeat(first);
        let mut length = first;
        let mut begun = false;
        for word in text.split(' ') {
            let mut word = word;
            let size = word.chars().count();
            if begun && length + 1 + size > room {
                self.line(colour, &line);
                (line, length, begun) = (" ".repeat(rest), rest, false);
            }
            if begun {
                line.push(' ');
                length += 1;
            }
            // A word that fits on no line is cut into pieces.
            while length + word.chars().count() > room {
                let at = word.char_indices().nth(room - length).map_or(word.len(), |(at, _)| at);
                line.push_str(&word[..at]);
                self.line(colour, &line);
                word = &word[at..];
                (line, length) = (" ".repeat(rest), rest);
            }
            line.push_str(word);
            length += word.chars().count();
            begun = true;
        }
        self.line(colour, &line);
    }

    /// A moment in the reader's zone, with the date if the recording has more than one.
    pub(in crate::report) fn moment(&self, at: Wall, dated: bool) -> String {
        let zoned = sink::moment(at.0).to_zoned(self.zone.clone());
        let format = if dated { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" };
        zoned.strftime(format).to_string()
    }

    /// Whether the two are on different days.
    pub(in crate::report) fn dated(&self, from: Wall, to: Wall) -> bool {
        let day = |at: Wall| sink::moment(at.0).to_zoned(self.zone.clone()).date();
        day(from) != day(to)
    }

    /// `UTC`, `+02:00`.
    pub(in crate::report) fn zone(&self, at: Wall) -> String {
        sink::moment(at.0).to_zoned(self.zone.clone()).strftime("%Z").to_string()
    }
}
