//! Each file in `tests/report` is a recording, or two, and the text that its report must be (`> `).
//!
//! ```text
//! rules linger=30s
//! recording A
//! 0 tcp #1 ...                     as in `notation.rs`
//! * 40 5 10 tcp #{} ...            forty times, every 5 s from 10 on; `{}` counts from 1,
//!                                  `{-2}` is two seconds before
//! looks                            passes are run when they are due, and see what is there
//! show 80                          the report of the last recording at this width
//! diff 80                          the last recording against the one before
//! ```
//!
//! A new case is a new file. `UPDATE_REPORTS=1 cargo test --test core reports` writes what a report
//! says into its file; look at the difference.

mod bounds;
mod parts;
mod properties;
pub(crate) mod story;

use std::{env, fmt::Write as _, fs, path::Path};

use jiff::tz::TimeZone;
use tcpwatch::report::{
    Report, diff,
    text::{self, Style},
};

use self::story::Story;

fn style(width: usize) -> Style {
    Style { width, colour: false, top: 5, zone: TimeZone::UTC }
}

pub(crate) fn text_of(report: &Report, width: usize) -> String {
    let mut out = Vec::new();
    text::write(&mut out, report, &style(width)).unwrap();
    String::from_utf8(out).unwrap()
}

pub(crate) fn diff_text(a: &Report, b: &Report, width: usize) -> String {
    let mut out = Vec::new();
    diff::text::write(&mut out, &diff::compare(a, b), &style(width)).unwrap();
    String::from_utf8(out).unwrap()
}

/// The file as it should be.
fn run(text: &str) -> String {
    let rules = text.lines().find(|line| line.starts_with("rules")).unwrap_or("rules");
    let mut stories = vec![Story::new(rules)];
    let mut whole = String::new();
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        let _ = writeln!(whole, "{line}");
        let shown = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["recording", ..] if stories.last().unwrap().is_empty() => continue,
            ["recording", ..] => {
                stories.push(Story::new(rules));
                continue;
            }
            ["show", width] => text_of(&stories.last().unwrap().report(), width.parse().unwrap()),
            ["diff", width] => {
                let [.., a, b] = &stories[..] else { panic!("a difference is of two") };
                diff_text(&a.report(), &b.report(), width.parse().unwrap())
            }
            _ => {
                stories.last_mut().unwrap().line(line);
                continue;
            }
        };
        for line in shown.lines() {
            let _ = writeln!(whole, "{}", format!("> {line}").trim_end());
        }
    }
    whole
}

#[test]
fn reports_say_what_their_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report");
    let mut failures = String::new();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let expected = fs::read_to_string(&path).unwrap();
        let got = run(&expected);
        if got != expected {
            if env::var_os("UPDATE_REPORTS").is_some() {
                fs::write(&path, &got).unwrap();
            } else {
                let _ = writeln!(failures, "{}\n got:\n{got}", path.display());
            }
        }
        count += 1;
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 5, "only {count} reports were found");
}
