//! A real terminal: a shell in tmux, into which is typed, and whose screen is looked at.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use tcpwatch::kernel::clock;
use tempfile::TempDir;

/// Longer than anything should take, so that a hang is a failure and not a hang.
const PATIENCE: u64 = 240_000_000_000;

/// A shell on a terminal. Everything ends with it.
pub(crate) struct Terminal {
    dir: TempDir,
}

impl Terminal {
    /// A shell on a terminal of this size, in a directory that has `tcpwatch` and the `traces` of the
    /// tests: no line is broken elsewhere because of where they really are.
    pub(crate) fn open(width: u16, height: u16) -> Self {
        let terminal = Self { dir: tempfile::tempdir().unwrap() };
        symlink(env!("CARGO_BIN_EXE_tcpwatch"), terminal.path("tcpwatch")).unwrap();
        let traces = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces");
        symlink(traces, terminal.path("traces")).unwrap();
        let dir = terminal.path("");
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            "-c",
            dir.to_str().unwrap(),
            "PS1='$ ' TZ=UTC exec sh",
        ]);
        terminal.until("a shell", |screen| screen.starts_with('$'));
        terminal
    }

    /// A file beside the shell.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has tmux do something.
    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = Command::new("tmux")
            .arg("-u")
            .args(["-f", "/dev/null", "-S"])
            .arg(self.path("tmux"))
            .args(args)
            .env_remove("TMUX")
            .output()
            .unwrap();
        assert!(status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Runs tcpwatch with these flags; what comes after it in the shell says how it ended.
    pub(crate) fn run(&self, flags: &str) {
        self.line(&format!("stty -g >before; sh -c 'echo $$ >pid; exec ./tcpwatch {flags}'; echo \"exit=\"\"$?\"; stty -g >after"));
    }

    /// Types a line.
    pub(crate) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Has a shell that waits forget what can be seen.
    pub(crate) fn clear(&self) {
        self.line("clear");
        self.until("an empty screen", |screen| screen.trim() == "$");
    }

    /// Presses keys, by the names that tmux has for them.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What can be seen.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until what can be seen satisfies a condition; returns it.
    pub(crate) fn until(&self, what: &str, found: impl Fn(&str) -> bool) -> String {
        let begun = clock::now();
        loop {
            let screen = self.screen();
            if found(&screen) {
                return screen;
            }
            assert!(clock::now().since(begun).0 < PATIENCE, "no {what}; there is\n{screen}");
        }
    }

    /// Waits until these words can be seen.
    pub(crate) fn until_words(&self, words: &str) -> String {
        self.until(words, |screen| screen.contains(words))
    }

    /// The process that runs.
    pub(crate) fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.path("pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// A full screen is shown, which leaves what was there before as it was.
    pub(crate) fn is_alternate(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Waits until it has ended with this code: the terminal is as it was before.
    #[track_caller]
    pub(crate) fn ended(&self, code: u8) -> String {
        let screen = self.until_words(&format!("exit={code}"));
        assert!(!self.is_alternate(), "the screen was left:\n{screen}");
        self.until("a shell", |screen| screen.trim_end().ends_with('$'));
        let modes = |name| fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(modes("before"), modes("after"), "the modes of the terminal are as before");
        let cursor = self.tmux(&["display-message", "-p", "#{cursor_flag}"]);
        assert_eq!(cursor.trim(), "1", "the cursor is shown");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut kill = Command::new("tmux");
        let _ = kill.arg("-S").arg(self.path("tmux")).arg("kill-server").output();
    }
}
