//! A recording is played, waits, and is skipped through; what is shown is what playing shows.

use std::process::Command;

use crate::{Test, tmux::Terminal, trace};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_skipped_to_is_what_is_played", skipped),
    ("a_recording_is_gone_into", gone_into),
    ("a_recording_is_played_to_its_end_and_again", played),
    ("gaps_are_marked", gaps),
    ("what_has_ended_is_listed_at_the_end", ended),
];

/// The lines of a frame, without the first and the last two.
fn body(screen: &str) -> Vec<String> {
    let lines: Vec<String> = screen.lines().map(|line| line.trim_end().to_owned()).collect();
    lines[1..lines.len() - 2].to_vec()
}

/// The frame at a moment of the recording, made without a terminal.
fn frame(name: &str, at: &str, keys: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["top", "--frame", "80x24", "--at", at, "--replay"])
        .arg(trace(name))
        .args(["--keys", keys].iter().filter(|_| !keys.is_empty()))
        .env("TZ", "UTC")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut plain = String::new();
    for (number, part) in text.split("\x1b[").enumerate() {
        plain += if number == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    body(&plain)
}

#[track_caller]
fn shows(terminal: &Terminal, expected: &[String]) {
    terminal.until(&expected.join("\n"), |screen| body(screen) == expected);
}

fn open(name: &str) -> Terminal {
    let terminal = Terminal::open(80, 24);
    terminal.run(&format!("top --replay traces/{name}"));
    terminal.until_words("▶ 1x");
    terminal.press(&["Space", "Home"]);
    terminal.until_words("PAUSED");
    terminal
}

fn skipped() {
    let terminal = open("shop.tcpw");
    // On: as fast as it can from where it is.
    terminal.press(&["Right"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", ""));
    // Back: anew from the beginning.
    terminal.press(&["Left"]);
    terminal.until_words("2026-11-23 00:41:18");
    terminal.press(&["PPage", "Right"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", ""));
    terminal.press(&["End"]);
    terminal.until_words("2026-11-23 00:41:32");
    // 14.6 s, less ten, and on by ten is the end again.
    terminal.press(&["Left"]);
    shows(&terminal, &frame("shop.tcpw", "-10s", ""));
    terminal.press(&["S-Right"]);
    terminal.until_words("2026-11-23 00:41:32");
    terminal.press(&["q"]);
    terminal.ended(0);
}

fn gone_into() {
    let terminal = open("shop.tcpw");
    terminal.press(&["Right"]);
    terminal.until_words("api[26682]");
    terminal.press(&["Enter"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", "enter"));
    terminal.press(&["Down", "Enter"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", "enter down enter"));
    terminal.press(&["Escape"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", "enter down"));
    terminal.press(&["BSpace"]);
    shows(&terminal, &frame("shop.tcpw", "+10s", ""));
    terminal.press(&["q"]);
    terminal.ended(0);
}

fn played() {
    let terminal = Terminal::open(80, 24);
    terminal.run("top --speed 64 --replay traces/shop.tcpw");
    let screen = terminal.until_words(" END ");
    assert!(screen.contains("2026-11-23 00:41:32"), "{screen}");
    // From the beginning again, half as fast.
    terminal.press(&["-", "Space"]);
    terminal.until_words("▶ 32x");
    terminal.until_words(" END ");
    terminal.press(&["q"]);
    let screen = terminal.ended(0);
    assert!(screen.contains("1504 transitions of 302 sockets, 11 findings"), "{screen}");
}

fn ended() {
    let terminal = open("shop.tcpw");
    terminal.press(&["End"]);
    let screen = terminal.until_words("2026-11-23 00:41:32");
    assert!(screen.contains("11 ended"), "{screen}");
    terminal.press(&["e"]);
    let screen = terminal.until_words("11 findings that ended, the latest first");
    assert_eq!(screen.matches("[26682]").count(), 11, "{screen}");
    terminal.press(&["Enter"]);
    terminal.until_words("  ENDED");
    terminal.press(&["Escape"]);
    terminal.until_words("11 findings that ended");
    terminal.press(&["e"]);
    terminal.until_words("e lists what has ended");
    terminal.press(&["q"]);
    terminal.ended(0);
}

fn gaps() {
    let terminal = open("lost.tcpw");
    terminal.until("a mark in the bar", |screen| {
        screen.lines().rev().nth(2).is_some_and(|bar| bar.contains('×'))
    });
    terminal.press(&["End"]);
    terminal.until_words(" LOST");
    terminal.press(&["q"]);
    terminal.ended(0);
}
