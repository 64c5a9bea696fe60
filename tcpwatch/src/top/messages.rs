//! What is said on standard error while a screen is shown: it goes into a list that the screen shows,
//! and where standard error is not a terminal, there as well.
//!
//! Whoever says something (a log, a library, a note on a damaged file) need not know of the screen. When
//! it is gone, what a person has not had time to read is said once more.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, IsTerminal as _, PipeReader, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use jiff::tz::TimeZone;
use rustix::stdio::dup2_stderr;

use crate::{core::comm::tame, kernel::clock, sink::moment};

/// Lines that are kept,
const MOST: usize = 200;
/// and how long one may be.
const LONGEST: usize = 2000;

/// The lines that were said.
#[derive(Clone, Debug, Default)]
pub struct Messages(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// With the time of day.
    kept: VecDeque<String>,
    said: u64,
}

impl Messages {
    /// What is kept, the last being the latest, and how many there were in all.
    pub fn all(&self) -> (Vec<String>, u64) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.kept.iter().cloned().collect(), lines.said)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).said
    }

    fn add(&self, line: &str) {
        let wall = moment(clock::mark().real_ns).to_zoned(TimeZone::system());
        let line: String = tame(line).chars().take(LONGEST).collect();
        let line = line.strip_prefix("tcpwatch: ").unwrap_or(&line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.kept.len() == MOST {
            lines.kept.pop_front();
        }
        lines.kept.push_back(format!("{} {line}", wall.strftime("%H:%M:%S")));
        lines.said += 1;
    }
}

/// Standard error goes into messages until this ends.
#[derive(Debug)]
pub struct Diversion {
    saved: OwnedFd,
    reader: Mutex<Option<JoinHandle<()>>>,
    /// What was said is to be said again.
    unheard: Option<Messages>,
}

impl Diversion {
    /// Begins it.
    pub fn begin(messages: &Messages) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        let saved = io::stderr().as_fd().try_clone_to_owned()?;
        let (from, to) = io::pipe()?;
        dup2_stderr(&to)?;
        let heard = (!terminal).then(|| saved.try_clone()).transpose()?;
        let into = messages.clone();
        let reader = thread::Builder::new()
            .name("messages".to_owned())
            .spawn(move || take(from, &into, heard.map(Into::into)))?;
        let unheard = terminal.then(|| messages.clone());
        Ok(Self { saved, reader: Mutex::new(Some(reader)), unheard })
    }

    /// Standard error is again what it was. May be called more than once.
    pub fn undo(&self) {
        // The last end of the pipe to write to: its reader comes to an end.
        let _ = dup2_stderr(&self.saved);
    }

    /// Ends it, and says what nobody may have seen.
    pub fn end(&self) {
        self.undo();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(reader) = reader else { return };
        let _ = reader.join();
        if let Some(messages) = &self.unheard {
            for line in messages.all().0 {
                crate::exit::say(&format!("tcpwatch: {line}"));
            }
        }
    }
}

fn take(from: PipeReader, into: &Messages, mut heard: Option<std::fs::File>) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if let Some(heard) = &mut heard {
            let _ = heard.write_all(&line);
        }
        into.add(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
