//! The systemd units: what systemd makes of them, and that they are no more exposed than the docs say.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{output, root, target_dir};

const UNITS: [&str; 2] = ["tcpwatch.service", "tcpwatch-serve.service"];
const DOCS: &str = "docs/privileges.md";
/// The program, which systemd looks for where programs are installed; it is not there where this runs.
const START: &str = "\nExecStart=tcpwatch ";
/// What stands before the figure, in what systemd says and in the docs.
const FIGURE: &str = "Overall exposure level for ";

/// Fails if systemd does not understand a unit, or rates it worse than the docs say.
pub(crate) fn check() -> Result<()> {
    let directory = target_dir().join("xtask/unit");
    fs::create_dir_all(&directory).context("make a place for copies of the units")?;
    let docs = fs::read_to_string(root().join(DOCS)).context(DOCS)?;
    for unit in UNITS {
        check_one(unit, &directory, &docs).with_context(|| format!("deploy/{unit}"))?;
    }
    Ok(())
}

fn check_one(unit: &str, directory: &Path, docs: &str) -> Result<()> {
    let text = fs::read_to_string(root().join("deploy").join(unit)).context("read it")?;
    if !text.contains(START) {
        bail!("no line begins with '{}'", START.trim());
    }
    let copy = directory.join(unit);
    let built = target_dir().join("release/tcpwatch");
    let built = built.to_str().context("the tree's path is not UTF-8")?;
    fs::write(&copy, text.replace(START, &format!("\nExecStart={built} "))).context("copy it")?;

    output(analyze().args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy))?;
    let security = ["security", "--offline=true", "--no-pager"];
    let now = figure(&output(analyze().args(security).arg(&copy))?, unit)?;
    let said = figure(docs, unit).context(DOCS)?;
    if now > said {
        bail!("systemd-analyze security rates it {now}, and {DOCS} says {said}");
    }
    println!("deploy/{unit}: exposure {now}, as {DOCS} allows");
    Ok(())
}

fn analyze() -> Command {
    let mut analyze = Command::new("systemd-analyze");
    analyze.env("LC_ALL", "C");
    analyze
}

fn figure(text: &str, unit: &str) -> Result<f64> {
    let before = format!("{FIGURE}{unit}: ");
    let (_, rest) = text.split_once(&before).with_context(|| format!("no line has '{before}'"))?;
    let figure = rest.split_whitespace().next().unwrap_or_default();
    figure.parse().with_context(|| format!("'{figure}' is no figure"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_a_unit_is_found() {
        let text =
            format!("✗ DeviceAllow= … 0.1\n→ {FIGURE}a.service: 1.4 OK\n{FIGURE}b.service: 2 OK");
        assert!((figure(&text, "a.service").unwrap() - 1.4).abs() < f64::EPSILON);
        assert!((figure(&text, "b.service").unwrap() - 2.0).abs() < f64::EPSILON);
        assert!(figure(&text, "c.service").is_err());
    }
}
