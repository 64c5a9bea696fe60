//! Transitions that neither program was run for.
//!
//! The kernel does not run a program that is running already on that CPU, and counts how often
//! (`recursion_misses` in the program's fdinfo). What the first was not run for the second tells, and
//! counts, too. What is left was seen by nobody: on a preemptible kernel a softirq may interrupt the
//! second while a task that was preempted in the first waits for the CPU.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::FileExt as _,
    },
};

use anyhow::Result;

/// The first program's misses.
pub(super) struct Missed {
    /// Kept open, as it is read ten times a second; `None` without `/proc`.
    fdinfo: Option<File>,
    /// From before the second was attached.
    before: u64,
    /// What the last reading showed.
    last: u64,
    /// What two readings in a row have shown.
    sure: u64,
}

impl Missed {
    /// Begins to count, when both are attached. The descriptor must stay open.
    pub(super) fn by(first: impl AsFd) -> Self {
        let fdinfo = File::open(format!("/proc/self/fdinfo/{}", first.as_fd().as_raw_fd())).ok();
        let before = misses(fdinfo.as_ref());
        Self { fdinfo, before, last: 0, sure: 0 }
    }

    /// How many there were, given what the second has told. A transition is between the two
    /// programs now and then, so only what was so before, too, is believed.
    pub(super) fn count(&mut self, caught: impl FnOnce() -> Result<u64>) -> Result<u64> {
        let misses = misses(self.fdinfo.as_ref()).saturating_sub(self.before);
        let now = misses.saturating_sub(caught()?);
        self.sure = self.sure.max(now.min(self.last));
        self.last = now;
        Ok(self.sure)
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

    #[test]
    fn what_two_readings_show_is_missed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let fdinfo = Some(file.reopen().unwrap());
        let mut set = |misses: u64| {
            file.as_file_mut().set_len(0).unwrap();
            std::io::Seek::rewind(file.as_file_mut()).unwrap();
            write!(file, "prog_type:\t26\nrecursion_misses:\t{misses}\n").unwrap();
        };
        set(7);
        let mut missed = Missed { before: misses(fdinfo.as_ref()), fdinfo, last: 0, sure: 0 };
        let mut count = |missed: &mut Missed, misses, caught| {
            set(misses);
            missed.count(|| Ok(caught)).unwrap()
        };
        assert_eq!(count(&mut missed, 9, 2), 0, "the second caught both");
        assert_eq!(count(&mut missed, 12, 4), 0, "one is on its way, perhaps");
        assert_eq!(count(&mut missed, 13, 6), 0, "it was");
        assert_eq!(count(&mut missed, 14, 6), 0);
        assert_eq!(count(&mut missed, 16, 7), 1, "it was not");
        assert_eq!(count(&mut missed, 16, 8), 1, "and stays lost");
    }
}
