//! The terminal is given back as it was, however it ends.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tcpwatch::top::{messages::Messages, screen::Screen};

use crate::{Test, tmux::Terminal, trace};

pub(crate) const TESTS: &[Test] = &[
    ("keys_end_it", keys),
    ("signals_end_it", signals),
    ("a_panic_gives_the_terminal_back", panics),
    ("it_follows_the_size_of_the_terminal", resized),
    ("no_color_is_respected", no_color),
    ("what_is_said_does_not_draw_over_the_screen", messages),
    ("a_terminal_that_takes_nothing_is_given_back", stuck),
    ("a_file_is_written_and_never_overwritten", saved),
];

/// Set for a program that is to panic on a screen.
pub(crate) const PANICS: &str = "TCPWATCH_TEST_PANICS";

fn shop(flags: &str) -> String {
    format!("top --replay traces/shop.tcpw {flags}")
}

fn shown(terminal: &Terminal) -> String {
    let screen = terminal.until_words("q quit");
    assert!(terminal.is_alternate());
    let mouse = terminal.tmux(&["display-message", "-p", "#{mouse_any_flag}"]);
    assert_eq!(mouse.trim(), "0", "the mouse is left to the terminal");
    screen
}

/// The same of a place in the recording: until it has been skipped to, nothing of it is drawn.
fn skipped(terminal: &Terminal) {
    shown(terminal);
    terminal.until_words("api[26682]");
}

fn keys() {
    let terminal = Terminal::open(80, 24);
    for key in ["q", "C-c"] {
        terminal.run(&shop("--at +9s"));
        skipped(&terminal);
        terminal.press(&[key]);
        let screen = terminal.ended(0);
        // What stays: culprits and the summary, as of where it was.
        assert!(screen.contains("CULPRIT 3 not-closed api[26682] to 127.0.0.1:6380"), "{screen}");
        assert!(screen.contains("0 lost"), "{screen}");
        terminal.clear();
    }
}

fn signals() {
    let terminal = Terminal::open(80, 24);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        terminal.run(&shop(""));
        shown(&terminal);
        kill(Pid::from_raw(terminal.pid()), signal).unwrap();
        let screen = terminal.ended(0);
        assert!(screen.contains("lost"), "{signal}: {screen}");
        terminal.clear();
    }
}

/// In a program of its own: a screen is open, something is said, and a thread panics.
pub(crate) fn panic_on_a_screen() {
    let messages = Messages::default();
    let mut screen = Screen::open(&messages).unwrap();
    screen.draw(|frame| frame.render_widget("a screen", frame.area())).unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let result = thread::spawn(|| panic!("for a test")).join();
    assert!(result.is_err());
    // It is not drawn any more.
    screen.draw(|frame| frame.render_widget("drawn over", frame.area())).unwrap();
}

fn panics() {
    let terminal = Terminal::open(80, 24);
    let program = std::env::current_exe().unwrap();
    terminal.line(&format!(
        "stty -g >before; {PANICS}=1 RUST_BACKTRACE=0 {}; echo \"exit=\"\"$?\"; stty -g >after",
        program.display()
    ));
    terminal.until_words("a screen");
    assert!(terminal.is_alternate());
    // In raw mode the key is a carriage return.
    terminal.press(&["C-j"]);
    let screen = terminal.ended(0);
    assert!(screen.contains("panicked at") && screen.contains("for a test"), "{screen}");
    assert!(!screen.contains("drawn over"), "{screen}");
}

fn resized() {
    let terminal = Terminal::open(80, 24);
    terminal.run(&shop("--at +9s"));
    skipped(&terminal);
    terminal.press(&["Space"]);
    for (width, height) in [(120_u16, 40_u16), (40, 10), (200, 60), (80, 24)] {
        let (x, y) = (width.to_string(), height.to_string());
        terminal.tmux(&["resize-window", "-x", &x, "-y", &y]);
        let screen = terminal.until("the keys below", |screen| {
            let lines: Vec<&str> = screen.lines().collect();
            let wide = |line: &&str| line.chars().count() <= width.into();
            lines.len() == usize::from(height)
                && lines.iter().all(wide)
                && lines.last().is_some_and(|keys| keys.contains("q quit"))
                // The bar goes from one side to the other.
                && lines.iter().any(|line| {
                    line.starts_with("00:41:18") && line.chars().count() == usize::from(width)
                })
        });
        assert!(screen.contains("api[26682]"), "{screen}");
    }
    terminal.press(&["q"]);
    terminal.ended(0);
}

fn no_color() {
    let terminal = Terminal::open(80, 24);
    let coloured = |terminal: &Terminal| {
        terminal.run(&shop("--at +9s"));
        terminal.until_words("api[26682]");
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
        terminal.press(&["q"]);
        terminal.ended(0);
        terminal.clear();
        // Foreground and background of any kind (ECMA-48: 30 to 49).
        screen.split("\x1b[").skip(1).any(|part| {
            let codes = part.split('m').next().unwrap_or_default();
            codes.split(';').any(|code| {
                code.parse::<u8>()
                    .is_ok_and(|code| (30..50).contains(&code) && code != 39 && code != 49)
            })
        })
    };
    assert!(coloured(&terminal));
    terminal.line("export NO_COLOR=1");
    assert!(!coloured(&terminal));
}

fn messages() {
    let terminal = Terminal::open(100, 24);
    terminal.run("top --replay traces/damaged.tcpw");
    let screen = terminal.until_words("are damaged");
    let lines: Vec<&str> = screen.lines().collect();
    // On the line for it, and nowhere else.
    assert!(lines[22].contains("are damaged"), "{screen}");
    assert!(lines[0].contains("tcpwatch top") && lines[23].contains("q quit"), "{screen}");
    terminal.press(&["m"]);
    terminal.until("the list of messages", |screen| {
        screen.contains("┌ messages") && screen.matches("are damaged").count() >= 2
    });
    terminal.press(&["q"]);
    terminal.until("no list", |screen| !screen.contains("┌ messages"));
    terminal.press(&["q"]);
    let screen = terminal.ended(0);
    assert!(screen.contains("are damaged"), "it is said once more:\n{screen}");
    // Elsewhere it is said at once.
    terminal.clear();
    terminal.run("top --replay traces/damaged.tcpw 2>said");
    terminal.until_words("are damaged");
    let said = fs::read_to_string(terminal.path("said")).unwrap();
    assert!(said.contains("are damaged"), "{said}");
    terminal.press(&["q"]);
    assert!(!terminal.ended(0).contains("are damaged"));
}

/// Nobody reads the other end: the screen is drawn until its buffer is full, and then the run is told
/// to end. Its modes are set all the same.
fn stuck() {
    const PROGRAM: &str = "
import os, pty, select, signal, subprocess, sys, termios, time
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
                         env=dict(os.environ, TERM='xterm'))
def raw(): return termios.tcgetattr(slave) != before
until = time.monotonic() + 20
while not raw() and time.monotonic() < until: pass
assert raw(), 'it has not begun'
# Every key has all of it drawn anew, until nothing more goes in.
os.set_blocking(master, False)
while select.select([], [slave], [], 0)[1] and time.monotonic() < until:
    try: os.write(master, b'\\x0c')
    except BlockingIOError: pass
child.send_signal(signal.SIGTERM)
print('code', child.wait(timeout=20))
print('modes', 'changed' if raw() else 'as before')
";
    let output = Command::new("python3")
        .args(["-c", PROGRAM, env!("CARGO_BIN_EXE_tcpwatch"), "top", "--replay"])
        .arg(trace("shop.tcpw"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "code 2\nmodes as before\n");
}

fn saved() {
    let terminal = Terminal::open(80, 24);
    terminal.run(&shop("--at +9s"));
    terminal.until_words("5 findings open");
    terminal.press(&["Space", "w", "C-u"]);
    terminal.until_words("write to:");
    terminal.press(&["-l", "x.jsonl"]);
    terminal.press(&["Enter"]);
    terminal.until_words("5 findings are in ");
    let text = fs::read_to_string(terminal.path("x.jsonl")).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"type\":\"finding\"")).count(), 5);
    terminal.press(&["w", "C-u"]);
    terminal.press(&["-l", "x.jsonl"]);
    terminal.press(&["Enter"]);
    terminal.until_words("nothing was written");
    assert_eq!(fs::read_to_string(terminal.path("x.jsonl")).unwrap(), text);
    terminal.press(&["q"]);
    terminal.ended(0);
}
