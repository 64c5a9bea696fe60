//! A page of the docs with a part that a command makes, between two marks.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{output, root};

const END: &str = "<!-- End of what is made. -->\n";

/// Puts what `work` makes of the part that stands there in its place; `command` is the one that its
/// first mark names.
pub(crate) fn renew(page: &str, command: &str, work: impl FnOnce(&str) -> String) -> Result<()> {
    let path = root().join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("read {page}"))?;
    let new = renewed(&text, command, work)
        .with_context(|| format!("{page} has no part that {command} makes"))?;
    fs::write(&path, new).with_context(|| format!("write {page}"))
}

fn renewed(text: &str, command: &str, work: impl FnOnce(&str) -> String) -> Option<String> {
    let begin = format!("<!-- Made by {command}. -->\n");
    let (before, rest) = text.split_once(&begin)?;
    let (made, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}{}{END}{after}", work(made)))
}

/// The date, as pages have it.
pub(crate) fn today() -> Result<String> {
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(date.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_part_stays() {
        let page = format!("before\n<!-- Made by x. -->\nold\n{END}after\n");
        let new = renewed(&page, "x", |made| made.replace("old", "new"));
        assert_eq!(new, Some(page.replace("old", "new")));
        assert_eq!(renewed(&page, "y", str::to_owned), None);
    }
}
