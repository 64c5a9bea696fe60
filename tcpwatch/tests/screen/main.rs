//! `tcpwatch top` on a real terminal, with recordings: nothing here needs a privilege.
//!
//! Without tmux the tests show as ignored, never as passed. What drives the real kernel is in
//! `tests/kernel/top.rs`.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod recordings;
mod terminal;
mod tmux;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};

type Test = (&'static str, fn());

fn main() {
    // A test has another test's program panic on a screen.
    if std::env::var_os(terminal::PANICS).is_some() {
        terminal::panic_on_a_screen();
        return;
    }
    let arguments = Arguments::from_args();
    let installed = is_installed();
    let trials = terminal::TESTS
        .iter()
        .chain(recordings::TESTS)
        .map(|&(name, body): &Test| {
            Trial::test(name, move || run(body))
                .with_ignored_flag(!installed)
                .with_kind(if installed { "" } else { "needs tmux" })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(body: fn()) -> Result<(), Failed> {
    std::panic::catch_unwind(body).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panicked");
        Failed::from(text)
    })
}

/// Whether tmux is there.
fn is_installed() -> bool {
    Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success())
}

/// A trace of the tests.
fn trace(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces").join(name)
}
