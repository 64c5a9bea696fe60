//! The table in `docs/kernels.md`, renewed where it stands: a row for each kernel that has run, the others
//! as they were.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    outcome::{FEATURES, Outcome, Verdict},
    report::Row,
};
use crate::page;

const HEAD: &str = "| Linux | Debian's package | tests passed | ignored | exact acceptor | never-accepted | MPTCP | what it lacks | on |\n\
     |---|---|---|---|---|---|---|---|---|\n";

/// Puts these rows in place of those before.
pub(super) fn renew(rows: &[Row]) -> Result<()> {
    let date = page::today()?;
    let new = rows.iter().map(|row| match row {
        Row::Missing(line) => format!("| {line} | none | not run | | | | | | |"),
        Row::Ran(outcome) => columns(outcome, &date),
    });
    page::renew("docs/kernels.md", "cargo xtask vm --markdown", |made| table(made, new))
}

fn table(made: &str, new: impl Iterator<Item = String>) -> String {
    let before = made.lines().skip(2).map(str::to_owned);
    let rows: BTreeMap<_, _> = before.chain(new).map(|row| (line(&row), row)).collect();
    rows.values().fold(HEAD.to_owned(), |text, row| text + row + "\n")
}

/// The line of releases that a row is about, as numbers.
fn line(row: &str) -> Vec<u64> {
    let name = row.split('|').nth(1).unwrap_or_default();
    name.trim().split('.').filter_map(|part| part.parse().ok()).collect()
}

fn columns(outcome: &Outcome, date: &str) -> String {
    let kernel = &outcome.kernel;
    let name = format!("| {} | `{}` {} |", kernel.line(), kernel.release, kernel.version);
    if let Some(said) = outcome.refusal() {
        return format!("{name} refused | | | | | `{said}` | {date} |");
    }
    let tests = format!("{} | {}", outcome.count(Verdict::Passed), outcome.count(Verdict::Ignored));
    let [acceptor, storage, mptcp] = FEATURES.map(|name| match outcome.doctor.has(name) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    });
    let without: Vec<_> = outcome.doctor.without.iter().map(|field| format!("`{field}`")).collect();
    format!("{name} {tests} | {acceptor} | {storage} | {mptcp} | {} | {date} |", without.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_renewed_where_it_stands() {
        let row = |line: &str, passed: &str| format!("| {line} | `x` | {passed} | 0 |");
        let first = table("", [row("6.12", "7"), row("6.1", "6")].into_iter());
        let rows: Vec<_> = first.lines().skip(2).collect();
        assert_eq!(rows, [row("6.1", "6"), row("6.12", "7")]);
        let second = table(&first, std::iter::once(row("6.1", "8")));
        assert_eq!(second, first.replace("| 6 |", "| 8 |"));
    }
}
