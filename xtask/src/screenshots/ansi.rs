//! What a terminal shows, as a page: text, and the colours that its escape sequences ask for.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// The sixteen colours of a dark terminal, by their numbers.
const COLOURS: [&str; 16] = [
    "#1b2127", "#e5634d", "#3fae84", "#d6a839", "#5f9fe6", "#c77fd0", "#45b3bd", "#c9d1d9",
    "#6b7681", "#ff8066", "#57d0a2", "#f0c75e", "#86bbf5", "#dda0e4", "#6fd3dc", "#ffffff",
];
const PAPER: &str = "#13171b";
const INK: &str = "#d7dde3";

/// How text looks.
#[expect(clippy::struct_excessive_bools, reason = "each is a style that a terminal has")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Style {
    ink: Option<String>,
    paper: Option<String>,
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
    reversed: bool,
}

/// A page of it. What is no text, no colour and no end of line is an error.
pub(super) fn page(text: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(text)?;
    let (mut body, mut style) = (String::new(), Style::default());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\x1b' => {
                let Some((codes, after)) = rest.strip_prefix('[').and_then(sequence) else {
                    bail!("only colours can be drawn, not the sequence before {:?}", start(rest));
                };
                style.apply(codes)?;
                rest = after;
            }
            '\n' => body.push('\n'),
            '\r' if rest.starts_with('\n') => {}
            c if c.is_control() => bail!("{c:?} cannot be drawn, before {:?}", start(rest)),
            c => {
                let end = rest.find(|c: char| c.is_control()).unwrap_or(rest.len());
                let run = format!("{c}{}", &rest[..end]);
                rest = &rest[end..];
                write!(body, "<span style=\"{}\">{}</span>", style.css(), escaped(&run))?;
            }
        }
    }
    Ok(format!(
        "<!doctype html><meta charset=\"utf-8\"><style>body {{ margin: 0; background: {PAPER} }} \
         pre {{ margin: 0; padding: 16px 20px; width: max-content; color: {INK}; \
         font: 14px/1.25 \"DejaVu Sans Mono\", monospace }}</style><pre>{}</pre>\n",
        body.trim_end_matches('\n')
    ))
}

/// The numbers of a colour sequence, and what comes after it.
fn sequence(rest: &str) -> Option<(&str, &str)> {
    let (codes, after) = rest.split_once('m')?;
    codes.chars().all(|c| c.is_ascii_digit() || c == ';').then_some((codes, after))
}

fn start(rest: &str) -> String {
    rest.chars().take(12).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Style {
    fn apply(&mut self, codes: &str) -> Result<()> {
        let numbers: Vec<u8> = codes
            .split(';')
            .map(|code| if code.is_empty() { Ok(0) } else { code.parse() })
            .collect::<Result<_, _>>()?;
        let mut numbers = numbers.into_iter();
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                27 => self.reversed = false,
                30..=37 => self.ink = Some(palette(number - 30)),
                38 => self.ink = Some(extended(&mut numbers)?),
                39 => self.ink = None,
                40..=47 => self.paper = Some(palette(number - 40)),
                48 => self.paper = Some(extended(&mut numbers)?),
                49 => self.paper = None,
                90..=97 => self.ink = Some(palette(number - 82)),
                100..=107 => self.paper = Some(palette(number - 92)),
                other => bail!("the style {other} cannot be drawn"),
            }
        }
        Ok(())
    }

    fn css(&self) -> String {
        let (mut ink, mut paper) = (self.ink.as_deref(), self.paper.as_deref());
        if self.reversed {
            (ink, paper) = (paper.or(Some(PAPER)), ink.or(Some(INK)));
        }
        let rules = [
            ink.map(|colour| format!("color:{colour}")),
            paper.map(|colour| format!("background:{colour}")),
            self.bold.then(|| "font-weight:bold".to_owned()),
            self.dim.then(|| "opacity:.65".to_owned()),
            self.italic.then(|| "font-style:italic".to_owned()),
            self.underlined.then(|| "text-decoration:underline".to_owned()),
        ];
        rules.into_iter().flatten().collect::<Vec<_>>().join(";")
    }
}

/// One of the first sixteen.
fn palette(number: u8) -> String {
    COLOURS[usize::from(number) % COLOURS.len()].to_owned()
}

/// One of 256, or of all.
fn extended(numbers: &mut impl Iterator<Item = u8>) -> Result<String> {
    match numbers.next() {
        Some(5) => {
            let Some(number) = numbers.next() else { bail!("a colour without its number") };
            Ok(match number {
                0..=15 => palette(number),
                16..=231 => {
                    let level = |step: u8| if step == 0 { 0 } else { 55 + step * 40 };
                    let cube = number - 16;
                    let [r, g, b] = [cube / 36, cube / 6 % 6, cube % 6].map(level);
                    format!("#{r:02x}{g:02x}{b:02x}")
                }
                232..=255 => {
                    let grey = 8 + (number - 232) * 10;
                    format!("#{grey:02x}{grey:02x}{grey:02x}")
                }
            })
        }
        Some(2) => {
            let all: Vec<u8> = numbers.take(3).collect();
            let [r, g, b] = all[..] else { bail!("a colour of fewer than three parts") };
            Ok(format!("#{r:02x}{g:02x}{b:02x}"))
        }
        other => bail!("{other:?} is no kind of colour"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> String {
        let page = page(text.as_bytes()).unwrap();
        let (_, body) = page.split_once("<pre>").unwrap();
        body.strip_suffix("</pre>\n").unwrap().to_owned()
    }

    #[test]
    fn colours_become_styles() {
        assert_eq!(body("a<b\r\n"), "<span style=\"\">a&lt;b</span>");
        let red = format!("<span style=\"color:{};font-weight:bold\">x</span>", COLOURS[1]);
        assert_eq!(body("\x1b[1;31mx\x1b[0m\n"), red);
        assert_eq!(body("\x1b[38;2;1;2;255mx"), "<span style=\"color:#0102ff\">x</span>");
        assert_eq!(body("\x1b[48;5;196mx"), "<span style=\"background:#ff0000\">x</span>");
        let reversed = format!("<span style=\"color:{PAPER};background:{INK}\">x</span>");
        assert_eq!(body("\x1b[7mx\x1b[m"), reversed);
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error() {
        for text in [
            "\x1b[2J",
            "\x1b]0;title\x07",
            "a\tb",
            "\x1b[21m",
            "\x1b[38;5m",
            "\x1b[38;2;1;2m",
            "a\rb",
        ] {
            assert!(page(text.as_bytes()).is_err(), "{text:?} was drawn");
        }
        assert!(page(b"\xff").is_err());
    }
}
