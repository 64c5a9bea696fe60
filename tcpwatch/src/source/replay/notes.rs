//! Who is told how reading goes.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{core::comm::shown, exit::say, trace::recording::Recording};

/// Is told how reading goes.
pub trait Notes {
    /// Damage, and what is missing.
    fn say(&mut self, line: &str);

    /// So many bytes more were read.
    fn read(&mut self, _bytes: u64) {}
}

/// Says that a file has no end: it breaks off at a byte, within a block of which so many are there.
pub(super) fn unclosed(path: &Path, at: u64, torn: u64) -> String {
    let path = shown(path);
    if torn > 0 {
        format!(
            "{path}: the file ends within a block, at byte {at}: what was recorded last is missing"
        )
    } else {
        format!(
            "{path}: the file was not closed: it is still being written, or its recorder was ended"
        )
    }
}

/// Says it on standard error.
pub struct OnStderr;

impl Notes for OnStderr {
    fn say(&mut self, line: &str) {
        say(&format!("tcpwatch: {line}"));
    }
}

/// The same, with a bar on a terminal that shows how much of the files has been read.
pub struct Bar(ProgressBar);

impl Bar {
    /// For these recordings.
    pub fn new(recordings: &[Recording]) -> Self {
        let files = recordings.iter().flat_map(|recording| &recording.files);
        let bytes = files.filter_map(|file| file.len().ok()).sum();
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(bytes)
        } else {
            ProgressBar::hidden()
        };
        let style = "{wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Notes for Bar {
    fn say(&mut self, line: &str) {
        self.0.suspend(|| OnStderr.say(line));
    }

    fn read(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
