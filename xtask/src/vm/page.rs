//! The table in `docs/kernels.md`, renewed where it stands.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result};

use super::{
    outcome::{FEATURES, Outcome, Verdict},
    report::Row,
};
use crate::{output, root};

const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- Made by cargo xtask vm --markdown. -->\n";
const END: &str = "<!-- End of what is made. -->\n";

/// Puts the table of these rows in place of the one before.
pub(super) fn renew(rows: &[Row]) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let places = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| rest.split_once(END).map(|(_, after)| (before, after)));
    let (before, after) = places.with_context(|| format!("{PAGE} has no place for the table"))?;
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let table = table(rows, date.trim());
    fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
        .with_context(|| format!("write {PAGE}"))
}

fn table(rows: &[Row], date: &str) -> String {
    let mut text = format!(
        "On {date}:\n\n\
         | Linux | Debian's package | tests passed | ignored | exact acceptor | never-accepted | MPTCP | fields it does not have |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let written = match row {
            Row::Missing(line) => {
                writeln!(text, "| {line} | none | not run | | | | | |")
            }
            Row::Ran(outcome) => writeln!(text, "{}", columns(outcome)),
        };
        // A string takes everything.
        let _ = written;
    }
    for row in rows {
        if let Row::Ran(outcome) = row
            && let Some(said) = outcome.refusal()
        {
            let _ = write!(
                text,
                "\nOn {} tcpwatch says:\n\n```text\n{said}\n```\n",
                outcome.kernel.line()
            );
        }
    }
    text
}

fn columns(outcome: &Outcome) -> String {
    let kernel = &outcome.kernel;
    let tests = match outcome.refusal() {
        Some(_) => "refused | ".to_owned(),
        None => {
            format!("{} | {}", outcome.count(Verdict::Passed), outcome.count(Verdict::Ignored))
        }
    };
    let [acceptor, storage, mptcp] = FEATURES.map(|name| match outcome.doctor.has(name) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    });
    let without: Vec<_> = outcome.doctor.without.iter().map(|field| format!("`{field}`")).collect();
    format!(
        "| {} | `{}` {} | {tests} | {acceptor} | {storage} | {mptcp} | {} |",
        kernel.line(),
        kernel.release,
        kernel.version,
        without.join(", "),
    )
}
