//! Each file in `tests/scenarios` is a story: inputs, and the records they must yield (`> `).
//!
//! A new case is a new file, no Rust. To see what one yields, run it: the failure prints all.

use std::{fmt::Write as _, fs, io, path::Path};

use tcpwatch::{
    core::{
        advice,
        record::Record,
        time::{ClockMark, Timestamp},
    },
    driver::Driver,
    sink::Sink,
    sink::culprit,
};

use crate::notation;

/// Renders records as short lines.
#[derive(Default)]
struct Lines(String);

impl Sink for Lines {
    fn record(&mut self, _: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        let line = match record {
            Record::Transition(t) => {
                let owner = t.socket.owner.map_or_else(
                    || "-".to_owned(),
                    |owner| format!("{}/{}", owner.process, owner.how.word()),
                );
                let id = t.socket.id.map_or(0, |id| id.0);
                let gap = if t.socket.uncertain { " uncertain" } else { "" };
                format!("{} tcp #{id} {}>{} {owner}{gap}", seconds(t.at), t.old, t.new)
            }
            Record::Finding(f) => {
                let id = f.socket.id.map_or(0, |id| id.0);
                let verdict = f.verdict.map_or("unconfirmed", |verdict| verdict.word());
                format!(
                    "{} {} #{id} {verdict}: {}",
                    seconds(f.at),
                    f.status.word(),
                    advice::summary(f)
                )
            }
            Record::Culprit(c) => {
                let title = culprit::title(c);
                format!("{} culprit {} {title}: {}", seconds(c.at), c.count, culprit::ages(c))
            }
            Record::Lost(lost) => {
                format!("{} lost {} of {}", seconds(lost.at), lost.count, lost.total)
            }
            Record::Summary(s) => {
                let unclaimed = match s.unclaimed {
                    0 => String::new(),
                    count => format!(", {count} unclaimed"),
                };
                format!(
                    "summary: {} transitions, {} sockets, {} findings, {} ended, {} lost{unclaimed}",
                    s.transitions,
                    s.sockets,
                    s.findings(),
                    s.ended,
                    s.lost
                )
            }
        };
        let _ = writeln!(self.0, "{line}");
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "scenario times are short")]
fn seconds(at: Timestamp) -> String {
    format!("{}", at.0 as f64 / 1e9)
}

fn run(text: &str) -> String {
    let mut lines = Lines::default();
    let rules = text.lines().find(|line| line.starts_with("rules")).unwrap_or("rules");
    let mut pipeline = Driver::new(notation::rules(rules), &mut lines);
    for line in text.lines() {
        let is_input = line.starts_with(|c: char| c.is_ascii_digit());
        if is_input {
            pipeline.push(notation::input(line)).unwrap();
        }
    }
    pipeline.finish().unwrap();
    lines.0
}

#[test]
fn every_scenario_yields_what_it_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut failures = String::new();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let expected: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("> "))
            .fold(String::new(), |all, line| all + line + "\n");
        let got = run(&text);
        if got != expected {
            let _ = writeln!(failures, "{}\n expected:\n{expected} got:\n{got}", path.display());
        }
        count += 1;
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 10, "only {count} scenarios were found");
}
