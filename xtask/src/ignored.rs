//! The last step of the gate: `cargo test`, in which no test may be ignored that is not on a list.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::root;

/// Which tests may be ignored, and why.
const LIST: &str = ".ci/ignored-tests";

/// Runs tests and passes on what they print, so that their own summary comes last. Fails if they do, or if
/// one was ignored that is not on the list.
pub(crate) fn run_tests(command: &mut Command, out: &mut impl Write) -> Result<()> {
    let allowed = allowed(&fs::read_to_string(root().join(LIST))?)?;
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("run {command:?}"))?;
    let mut unexpected = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).split(b'\n') {
        let line = line?;
        out.write_all(&[&line[..], b"\n"].concat())?;
        if let Some(name) = ignored(&String::from_utf8_lossy(&line))
            && !allowed.contains(name)
        {
            unexpected.push(name.to_owned());
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    if !unexpected.is_empty() {
        let names = unexpected.join(", ");
        bail!("these tests did not run: {names}; run .ci/setup, or give a reason in {LIST}");
    }
    Ok(())
}

/// The names on the list. Each has a reason.
fn allowed(list: &str) -> Result<BTreeSet<String>> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let entry = line.split_once(": ").filter(|(_, reason)| !reason.is_empty());
            let (name, _) = entry.with_context(|| format!("{LIST} has no reason for {line}"))?;
            Ok(name.to_owned())
        })
        .collect()
}

/// The name of a test that this line says was ignored.
fn ignored(line: &str) -> Option<&str> {
    let (test, _) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    // What it needs may stand before its name, in brackets.
    let name = match test.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, name)) => name,
        None => test,
    };
    Some(name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_seen_in_the_output_of_both_runners() {
        assert_eq!(ignored("test core::a ... ignored, needs b"), Some("core::a"));
        assert_eq!(ignored("test [needs the moon] far_away   ... ignored"), Some("far_away"));
        assert_eq!(ignored("test               near_by    ... ignored"), Some("near_by"));
        assert_eq!(ignored("test near_by ... ok"), None);
        assert_eq!(ignored("test result: ok. 3 passed; 0 failed; 1 ignored"), None);
    }

    #[test]
    fn a_list_gives_reasons() {
        let list = allowed("# why\n\ncore::a: needs b\n").unwrap();
        assert_eq!(list.into_iter().collect::<Vec<_>>(), ["core::a"]);
        assert!(allowed("core::a\n").is_err());
    }

    #[test]
    fn a_test_that_does_not_run_fails_the_gate() {
        let run = |line: &str| run_tests(Command::new("echo").arg(line), &mut Vec::new());
        assert!(run("test figures::figures ... ignored, a measurement").is_ok());
        assert!(run("test [needs luck] some_new_test ... ignored").is_err());
        assert!(run_tests(&mut Command::new("false"), &mut Vec::new()).is_err());
    }

    #[test]
    fn what_tests_print_is_passed_on() {
        let mut out = Vec::new();
        run_tests(Command::new("printf").arg("one\ntest result: ok\n"), &mut out).unwrap();
        assert_eq!(out, b"one\ntest result: ok\n");
    }

    #[test]
    fn the_list_is_well_formed() {
        let list = fs::read_to_string(root().join(LIST)).unwrap();
        assert!(!allowed(&list).unwrap().is_empty());
    }
}
