//! `tcpwatch top` on a real terminal, with real leaks and real keys.

use std::{fs, io::Write as _};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    Test,
    cost::{PER_CONNECTION, churn},
    peers::{Kind, LEAK, Program, connect, listen, pair, read_to_end},
    tmux::Terminal,
    watch::namespace,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("top_shows_a_real_leak_and_its_story", leak).needs("tmux"),
        Test::new("top_stands_still_and_tracing_goes_on", pause).needs("tmux"),
        Test::new("top_loses_nothing_at_full_speed", full_speed).needs("tmux"),
        Test::new("top_ends_on_signals_with_a_summary", signals).needs("tmux"),
        Test::new("top_ends_with_the_processes_it_watches", targets).needs("tmux"),
        Test::new("top_records_beside", record).needs("tmux"),
        Test::new("top_tells_errors_on_the_terminal", error).needs("tmux"),
        Test::new("top_follows_findings_only", findings_only).needs("tmux"),
    ]
}

/// tcpwatch on this namespace, attached.
fn top(flags: &str) -> Terminal {
    let terminal = Terminal::open(80, 24);
    terminal.run(&format!("top -N {} {flags}", namespace()));
    terminal.until_words("q quit");
    assert!(terminal.is_alternate());
    terminal
}

fn leak() {
    let mut program = Program::start(LEAK);
    program.answer();
    let pid = program.pid();
    let owner = format!("python3[{pid}]");
    let terminal = top("--linger 500ms");
    let screen = terminal.until_words(&owner);
    assert!(screen.contains("CLOSE_WAIT 1") && screen.contains("1 finding open"), "{screen}");
    let row = screen.lines().find(|line| line.starts_with(&owner)).unwrap();
    assert!(row.contains("not-reading") && row.contains("127.0.0.1:"), "{row}");
    terminal.press(&["Enter"]);
    let screen = terminal.until_words("FIN       0 CLOSE_WAIT");
    assert!(screen.contains(&format!("{owner} not-reading")), "{screen}");
    terminal.press(&["Enter"]);
    let screen = terminal.until_words("held by");
    for words in ["not-reading  CLOSE_WAIT for", "why", "to do", "nobody waits for it"] {
        assert!(screen.contains(words), "no {words}:\n{screen}");
    }
    terminal.press(&["w", "C-u"]);
    terminal.press(&["-l", "found.jsonl"]);
    terminal.press(&["Enter"]);
    terminal.until_words("1 finding is in");
    let text = fs::read_to_string(terminal.path("found.jsonl")).unwrap();
    let finding: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(finding["holders"][0]["pid"], pid);
    let fd = finding["holders"][0]["fd"].as_u64().unwrap();
    assert!(terminal.screen().contains(&format!("{owner} fd {fd}")));
    // It ends while it is looked at.
    program.kill();
    let screen = terminal.until_words("ENDED");
    assert!(screen.contains("never closed: its process ended after"), "{screen}");
    terminal.press(&["Escape"]);
    terminal.until_words("all of these have ended");
    terminal.press(&["Escape"]);
    terminal.until_words("nothing lingers");
    terminal.press(&["q"]);
    terminal.ended(0);
}

fn pause() {
    let listener = listen(Kind::V4);
    let terminal = top("--linger 300ms");
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    terminal.until_words("1 finding open");
    terminal.press(&["Space"]);
    let before = terminal.until_words("PAUSED, tracing goes on");
    let (client, other) = pair(Kind::V4, &listener);
    drop(client);
    // Long enough for a finding: another tcpwatch shows it.
    let mut watch = crate::watch::Watch::start(&["--linger", "300ms"]);
    watch.finding("open");
    watch.finding("open");
    watch.stop();
    assert_eq!(terminal.screen(), before);
    terminal.press(&["Space"]);
    terminal.until_words("2 findings open");
    terminal.press(&["q"]);
    terminal.ended(0);
    drop((server, other));
}

fn full_speed() {
    const CONNECTIONS: usize = 10_000;
    let terminal = top("");
    churn(CONNECTIONS);
    terminal.press(&["q"]);
    let screen = terminal.ended(0);
    // The listener's two transitions, too.
    let transitions = CONNECTIONS * PER_CONNECTION + 2;
    let words = format!("{transitions} transitions of ");
    assert!(screen.contains(&words) && screen.contains("; 0 lost"), "{screen}");
}

fn signals() {
    let listener = listen(Kind::V4);
    let kept: Vec<_> = (0..3)
        .map(|_| {
            let (mut client, mut server) = pair(Kind::V4, &listener);
            client.write_all(b"x").unwrap();
            drop(client);
            read_to_end(&mut server);
            server
        })
        .collect();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let terminal = top("--linger 300ms --fail-on-leak");
        terminal.until_words("3 findings open");
        kill(Pid::from_raw(terminal.pid()), signal).unwrap();
        let screen = terminal.ended(1);
        assert!(screen.contains("CULPRIT 3 not-closed"), "{signal}: {screen}");
        assert!(screen.contains("3 findings (0 ended)"), "{signal}: {screen}");
    }
    drop((kept, connect(Kind::V4, &listener)));
}

fn targets() {
    let mut program = Program::start(LEAK);
    program.answer();
    let terminal = Terminal::open(80, 24);
    terminal.run(&format!("top --linger 300ms --pid {}", program.pid()));
    let screen = terminal.until_words("1 finding open");
    assert!(screen.contains(&format!("only pid {}", program.pid())), "{screen}");
    program.kill();
    let screen = terminal.ended(0);
    assert!(screen.contains("has ended"), "{screen}");
}

/// What goes wrong after the screen was opened is told on the terminal as it was before.
fn error() {
    let terminal = Terminal::open(80, 24);
    terminal.run(&format!("top -N {} --ready-file /no/such/file", namespace()));
    let screen = terminal.ended(2);
    assert!(screen.contains("tcpwatch: error: create /no/such/file"), "{screen}");
}

/// Only what findings need is traced, and what is not known is not shown as none.
fn findings_only() {
    let listener = listen(Kind::V4);
    let terminal = top("-q --linger 300ms");
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    let screen = terminal.until_words("1 finding open");
    for words in ["lingering 1", "- transitions/s", "- sockets"] {
        assert!(screen.contains(words), "no {words}:\n{screen}");
    }
    terminal.press(&["q"]);
    terminal.ended(0);
    drop(server);
}

fn record() {
    let listener = listen(Kind::V4);
    let terminal = top("--linger 300ms --record x.tcpw");
    let (client, server) = pair(Kind::V4, &listener);
    drop(client);
    let screen = terminal.until_words("1 finding open");
    assert!(screen.lines().next().unwrap().contains("recording "), "{screen}");
    terminal.press(&["q"]);
    terminal.ended(0);
    terminal.clear();
    terminal.run("top --replay x.tcpw --speed 100");
    let screen = terminal.until_words(" END ");
    assert!(screen.contains("1 finding open"), "{screen}");
    terminal.press(&["q"]);
    terminal.ended(0);
    drop(server);
}
