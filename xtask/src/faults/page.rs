//! The table in `docs/faults.md`, renewed where it stands: a row for each fault that has run, the others as
//! they were.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::{FAULTS, Fault, Outcome};
use crate::{output, root};

const PAGE: &str = "docs/faults.md";
const BEGIN: &str = "<!-- Made by cargo xtask faults --markdown. -->\n";
const END: &str = "<!-- End of what is made. -->\n";
const HEAD: &str =
    "| fault | what breaks | what you see | the last figures | on |\n|---|---|---|---|---|\n";

/// Puts the row of this fault in place of the one before.
pub(super) fn renew(fault: &Fault, outcome: &Outcome) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let places = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| rest.split_once(END).map(|(made, after)| (before, made, after)));
    let (before, made, after) =
        places.with_context(|| format!("{PAGE} has no place for the table"))?;
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let table = table(made, fault, &outcome.figures.to_string(), date.trim());
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
        .with_context(|| format!("write {PAGE}"))
}

fn table(made: &str, renewed: &Fault, figures: &str, date: &str) -> String {
    let mut text = HEAD.to_owned();
    for fault in FAULTS {
        let cell = format!("| `{}` |", fault.name);
        if fault.name == renewed.name {
            text += &[&cell, fault.what, "|", fault.seen, "|", figures, "|", date, "|\n"].join(" ");
        } else if let Some(row) = made.lines().find(|row| row.starts_with(&cell)) {
            text += row;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_renewed_where_it_stands() {
        let [first, second, ..] = FAULTS;
        let one = table("", second, "1 a", "2026-01-01");
        let both = table(&one, first, "2 b", "2026-01-02");
        let rows: Vec<_> = both.lines().skip(2).collect();
        let [above, below] = rows[..] else { panic!("{} rows", rows.len()) };
        assert!(above.starts_with(&format!("| `{}` |", first.name)) && above.contains("| 2 b |"));
        assert!(below.ends_with("| 1 a | 2026-01-01 |"));
        assert_eq!(
            table(&both, first, "3 c", "2026-01-03"),
            both.replace(above, &above.replace("2 b | 2026-01-02", "3 c | 2026-01-03"))
        );
    }
}
