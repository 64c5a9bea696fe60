//! The table in `docs/faults.md`, renewed where it stands: a row for each fault that has run, the others as
//! they were.

use anyhow::Result;

use super::{FAULTS, Fault, Outcome};
use crate::page;

const HEAD: &str =
    "| fault | what breaks | what you see | the last figures | on |\n|---|---|---|---|---|\n";

/// Puts the row of this fault in place of the one before.
pub(super) fn renew(fault: &Fault, outcome: &Outcome) -> Result<()> {
    let date = page::today()?;
    page::renew("docs/faults.md", "cargo xtask faults --markdown", |made| {
        table(made, fault, &outcome.figures.to_string(), &date)
    })
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
