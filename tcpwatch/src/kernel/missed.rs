//! Transitions that no program was run for.
//!
//! The kernel does not run a program that is running already on that CPU, and counts how often
//! (`recursion_misses` in the program's fdinfo). What the first was not run for the others tell, and
//! count, too. What is left was seen by nobody.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use anyhow::Result;

use super::clock;
use crate::core::time::{Nanos, Timestamp};

/// How long a transition may be between two programs: a task that was preempted there waits for the
/// CPU, and whoever reads the counts may be why.
const BETWEEN: Nanos = Nanos::SECOND;
/// How often this is looked at by who waits for it.
const READ_AGAIN: Duration = Duration::from_millis(10);

/// The first program's misses.
pub(super) struct Missed {
    /// Kept open, as it is read ten times a second; `None` without `/proc`.
    fdinfo: Option<File>,
    /// From before the others were attached.
    before: u64,
    /// When the fewest were begun to be looked for, and how many they are.
    since: Timestamp,
    fewest: u64,
    /// The fewest of some time that was long enough.
    sure: u64,
}

impl Missed {
    /// Begins to count, when both are attached. The descriptor must stay open.
    pub(super) fn by(first: impl AsFd) -> Self {
        let fdinfo = File::open(format!("/proc/self/fdinfo/{}", first.as_fd().as_raw_fd())).ok();
        let before = misses(fdinfo.as_ref());
        Self { fdinfo, before, since: clock::now(), fewest: 0, sure: 0 }
    }

    /// How many there were for sure. `caught` tells how many the other programs have told.
    pub(super) fn count(&mut self, caught: impl FnOnce() -> Result<u64>) -> Result<u64> {
        let open = self.open(caught)?;
        Ok(self.learn(clock::now(), open))
    }

    /// The same, and waits until those that are open are told or sure.
    pub(super) fn settle(&mut self, caught: impl Fn() -> Result<u64>) -> Result<u64> {
        let until = clock::now() + BETWEEN + BETWEEN;
        loop {
            let (at, open) = (clock::now(), self.open(&caught)?);
            let sure = self.learn(at, open);
            // While more are lost all the time some are open all the time.
            if open <= sure || at >= until {
                return Ok(sure);
            }
            std::thread::sleep(READ_AGAIN);
        }
    }

    /// Those the first was not run for that the others have not told, or not yet.
    fn open(&self, caught: impl FnOnce() -> Result<u64>) -> Result<u64> {
        // In this order: none that is told seems open.
        let misses = misses(self.fdinfo.as_ref()).saturating_sub(self.before);
        Ok(misses.saturating_sub(caught()?))
    }

    /// Believes what was so for as long as no transition is between the two.
    fn learn(&mut self, at: Timestamp, open: u64) -> u64 {
        self.fewest = self.fewest.min(open);
        if at.since(self.since) >= BETWEEN {
            self.sure = self.sure.max(self.fewest);
            (self.since, self.fewest) = (at, open);
        }
        self.sure
    }
}

/// Without `/proc`, or before 5.12, nobody knows.
fn misses(fdinfo: Option<&File>) -> u64 {
    // The file has some 300 bytes.
    let mut text = [0; 1024];
    let length = fdinfo.and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(milliseconds * 1_000_000)
    }

    #[test]
    fn what_a_second_shows_is_missed() {
        let mut missed = Missed { fdinfo: None, before: 0, since: at(0), fewest: 0, sure: 0 };
        // One is on its way for some time, and then another.
        assert_eq!(missed.learn(at(100), 1), 0);
        assert_eq!(missed.learn(at(1_000), 1), 0);
        assert_eq!(missed.learn(at(1_900), 0), 0);
        assert_eq!(missed.learn(at(2_000), 1), 0);
        // This one does not arrive.
        assert_eq!(missed.learn(at(2_500), 2), 0);
        assert_eq!(missed.learn(at(2_999), 1), 0);
        assert_eq!(missed.learn(at(3_000), 3), 1);
        assert_eq!(missed.learn(at(3_001), 1), 1, "and stays lost");
        // Nobody has looked for long.
        assert_eq!(missed.learn(at(9_000), 4), 1);
        assert_eq!(missed.learn(at(10_000), 4), 4);
    }

    #[test]
    fn what_the_kernel_says_is_read_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let fdinfo = Some(file.reopen().unwrap());
        let mut set = |misses: u64| {
            file.as_file_mut().set_len(0).unwrap();
            std::io::Seek::rewind(file.as_file_mut()).unwrap();
            write!(file, "prog_type:\t26\nrecursion_misses:\t{misses}\n").unwrap();
        };
        set(7);
        let missed = Missed { fdinfo, before: 7, since: at(0), fewest: 0, sure: 0 };
        assert_eq!(missed.open(|| Ok(0)).unwrap(), 0);
        set(12);
        assert_eq!(missed.open(|| Ok(3)).unwrap(), 2);
        assert_eq!(missed.open(|| Ok(6)).unwrap(), 0, "the second was between");
    }
}
