//! The systemd unit: what systemd makes of it, and that it is no more exposed than the docs say.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{output, root};

const UNIT: &str = "deploy/tcpwatch.service";
const DOCS: &str = "docs/privileges.md";
/// Where the unit has the program; it is not there where this runs.
const INSTALLED: &str = "/usr/local/bin/tcpwatch";
/// What stands before the figure, in what systemd says and in the docs.
const FIGURE: &str = "Overall exposure level for tcpwatch.service: ";

/// Fails if systemd does not understand the unit, or rates it worse than the docs say.
pub(crate) fn check() -> Result<()> {
    let unit = fs::read_to_string(root().join(UNIT)).context(UNIT)?;
    if !unit.contains(INSTALLED) {
        bail!("{UNIT} does not run {INSTALLED}");
    }
    let directory = root().join("target/xtask/unit");
    fs::create_dir_all(&directory).context("make a place for a copy of the unit")?;
    let copy = directory.join("tcpwatch.service");
    let built = root().join("target/release/tcpwatch");
    let built = built.to_str().context("the tree's path is not UTF-8")?;
    fs::write(&copy, unit.replace(INSTALLED, built)).context("copy the unit")?;

    output(analyze().args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy))?;
    let security = ["security", "--offline=true", "--no-pager"];
    let now = figure(&output(analyze().args(security).arg(&copy))?)?;
    let docs = fs::read_to_string(root().join(DOCS)).context(DOCS)?;
    let said = figure(&docs).context(DOCS)?;
    if now > said {
        bail!("systemd-analyze security rates {UNIT} {now}, and {DOCS} says {said}");
    }
    println!("{UNIT}: exposure {now}, as {DOCS} allows");
    Ok(())
}

fn analyze() -> Command {
    let mut analyze = Command::new("systemd-analyze");
    analyze.env("LC_ALL", "C");
    analyze
}

fn figure(text: &str) -> Result<f64> {
    let (_, rest) = text.split_once(FIGURE).with_context(|| format!("no line has '{FIGURE}'"))?;
    let figure = rest.split_whitespace().next().unwrap_or_default();
    figure.parse().with_context(|| format!("'{figure}' is no figure"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found() {
        let text = format!("✗ DeviceAllow= … 0.1\n\n→ {FIGURE}1.4 OK\n");
        assert!((figure(&text).unwrap() - 1.4).abs() < f64::EPSILON);
        assert!(figure("nothing").is_err());
    }
}
