//! What the matrix found: a table, JSON, or the table of `docs/kernels.md`.

use serde::Serialize;

use super::{
    boot::End,
    outcome::{Doctor, FEATURES, Outcome, Test, Verdict},
};

/// A kernel of the matrix.
pub(super) enum Row {
    Ran(Box<Outcome>),
    /// No suite has such a kernel.
    Missing(String),
}

impl Row {
    pub(super) fn faults(&self) -> Vec<String> {
        match self {
            Self::Ran(outcome) => outcome.faults(),
            Self::Missing(_) => Vec::new(),
        }
    }
}

/// A row as JSON.
#[derive(Serialize)]
struct Json<'a> {
    line: String,
    kernel: &'a str,
    version: &'a str,
    suite: &'a str,
    as_expected: bool,
    faults: Vec<String>,
    refusal: Option<&'a str>,
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
    doctor: &'a Doctor,
    tests: &'a [Test],
}

/// All rows, one JSON object a line.
pub(super) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let mut text = String::new();
    for row in rows {
        let outcome = match row {
            Row::Ran(outcome) => outcome,
            Row::Missing(line) => {
                text += &serde_json::json!({ "line": line, "kernel": null }).to_string();
                text.push('\n');
                continue;
            }
        };
        let faults = outcome.faults();
        let json = Json {
            line: outcome.kernel.line(),
            kernel: &outcome.kernel.release,
            version: &outcome.kernel.version,
            suite: &outcome.kernel.suite,
            as_expected: faults.is_empty(),
            faults,
            refusal: outcome.refusal(),
            passed: outcome.count(Verdict::Passed),
            failed: outcome.count(Verdict::Failed),
            ignored: outcome.count(Verdict::Ignored),
            seconds: outcome.seconds,
            doctor: &outcome.doctor,
            tests: &outcome.tests,
        };
        text += &serde_json::to_string(&json)?;
        text.push('\n');
    }
    Ok(text)
}

/// For people, with what failed below.
pub(super) fn text(rows: &[Row]) -> String {
    let title = format!(
        "{:<32} {:>6} {:>6} {:>7} {:>7}  {:<14} {:<16} {:<5} WITHOUT",
        "KERNEL",
        "PASSED",
        "FAILED",
        "IGNORED",
        "SECONDS",
        "EXACT ACCEPTOR",
        "ACCEPT QUEUES",
        "MPTCP"
    );
    let mut lines = vec![title];
    lines.extend(rows.iter().map(|row| match row {
        Row::Missing(line) => format!("{line:<32} not run: no suite has such a kernel"),
        Row::Ran(outcome) => columns(outcome),
    }));
    for row in rows {
        if let Row::Ran(outcome) = row {
            let details = details(outcome);
            if !details.is_empty() {
                lines.extend([String::new(), outcome.kernel.to_string()]);
                lines.extend(details.into_iter().map(|line| format!("    {line}")));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn columns(outcome: &Outcome) -> String {
    let [acceptor, queues, mptcp] = FEATURES.map(|name| match outcome.doctor.has(name) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    });
    let [passed, failed, ignored] =
        [Verdict::Passed, Verdict::Failed, Verdict::Ignored].map(|one| outcome.count(one));
    let line = format!(
        "{:<32} {passed:>6} {failed:>6} {ignored:>7} {:>7.0}  {acceptor:<14} {queues:<16} {mptcp:<5} {}",
        outcome.kernel.release,
        outcome.seconds,
        outcome.doctor.without.join(" "),
    );
    line.trim_end().to_owned()
}

/// What a person wants to know beside the numbers.
fn details(outcome: &Outcome) -> Vec<String> {
    let faults = outcome.faults();
    let mut lines = Vec::new();
    if outcome.is_too_old() && faults.is_empty() {
        let said = outcome.refusal().unwrap_or_default();
        lines.push(format!("refused, as it must be: {said}"));
    }
    lines.extend(faults.iter().map(|fault| format!("NOT AS EXPECTED: {fault}")));
    let names = |word, result| outcome.names(result).map(move |name| format!("{word}: {name}"));
    lines.extend(names("failed", Verdict::Failed));
    lines.extend(names("ignored", Verdict::Ignored));
    if let Some(End::Early { console, .. }) = &outcome.end {
        lines.push("the last lines of its console:".to_owned());
        lines.extend(console.iter().map(|line| format!("| {line}")));
    }
    lines
}
