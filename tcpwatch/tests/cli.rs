//! The command line as a user meets it; nothing here needs a privilege.

use std::process::{Command, Output};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/shop.tcpw");
const OTHER_TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/lost.tcpw");

fn tcpwatch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(args).output().expect("tcpwatch runs")
}

/// Refused with exit code 2, nothing on standard output, and a message that has these words.
#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let output = tcpwatch(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
    for word in words {
        assert!(said.contains(word), "{args:?} does not say '{word}': {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    refused(&["--pid", "4194303"], &["there is no process 4194303"]);
    refused(&["--pid", "0"], &["0", "--pid"]);
    refused(&["--pid", "nginx"], &["nginx"]);
    refused(&["-L", "0"], &["0 is not in 1..=65535"]);
    refused(&["-D", "65536"], &["65536 is not in 1..=65535"]);
    refused(&["-4", "-6"], &["cannot be used with"]);
    refused(&["--json", "--csv"], &["cannot be used with"]);
    refused(&["-q", "--state", "listen"], &["cannot be used with"]);
    refused(&["--state", "closewait?"], &["no TCP state is called", "CLOSE_WAIT"]);
    refused(&["--ring-size", "5000"], &["power of two", "8192"]);
    refused(&["--linger", "soon"], &["30s"]);
    refused(&["--netns", "no-such-namespace"], &["no network namespace 'no-such-namespace'"]);
    refused(&["--netns", "/etc/hostname"], &["not a network namespace"]);
    refused(&["leaks", "--watch", "5s"], &["at least 10s"]);
    refused(&["leaks", "--state", "established"], &["tcpwatch states"]);
    refused(&["leaks", "--pid", "4194303"], &["there is no process 4194303"]);
    refused(&["run"], &["<COMMAND>"]);
    refused(&["run", "-o", "/no/such/dir/file", "--", "true"], &["/no/such/dir/file"]);
    refused(&["nonsense"], &["nonsense"]);
    refused(&["record"], &["--output"]);
    refused(&["record", "-o", "/tmp/x", "--rotate-size", "5"], &["64K"]);
    refused(&["--otlp", "collector:4318"], &["--otlp", "http://localhost:4318"]);
    refused(&["--otlp", "http://c", "--otlp-header", "secret"], &["KEY=VALUE"]);
    refused(&["--otlp-header", "a=b"], &["--otlp"]);
    refused(&["--exec-on-finding", " "], &["there is no command"]);
    refused(
        &["--exec-on-finding", "true", "--exec-user", "no-such-user"],
        &["no user 'no-such-user'"],
    );
    refused(&["--exec-user", "root"], &["--exec-on-finding"]);
    refused(&["replay"], &["<FILE>"]);
    refused(&["replay", "/no/such/file"], &["/no/such/file", "No such file"]);
    refused(&["replay", "/etc/hostname"], &["/etc/hostname", "not a trace file"]);
    refused(&["report", "/etc/hostname"], &["not a trace file"]);
    refused(&["report", TRACE, "--html", "/etc/hostname"], &["/etc/hostname", "is there already"]);
    refused(&["report", TRACE, "--html", "/no/such/dir/x"], &["/no/such/dir/x"]);
    refused(&["report", TRACE, "--html", "-", "--json"], &["cannot be used with"]);
    refused(&["report", TRACE, OTHER_TRACE, "--html", "-"], &["2 recordings", "a page is of one"]);
    refused(&["info", "/etc/hostname"], &["not a trace file"]);
    refused(&["diff", "/etc/hostname"], &["<B>"]);
    refused(&["report", "/proc/self/fdinfo"], &["no trace file (*.tcpw)"]);
    refused(&["replay", TRACE, "--speed", "0"], &["above 0"]);
    refused(&["replay", TRACE, "--from", "soon"], &["17:30", "+5m"]);
    refused(&["replay", TRACE, "--from", "+1d"], &["nothing was recorded between"]);
    refused(&["replay", TRACE, "-N", "web"], &["inode"]);
    refused(&["replay", TRACE, "-N", "1"], &["limited to network namespace"]);
    refused(&["replay", TRACE, TRACE], &["the same file"]);
    refused(&["top"], &["top needs a terminal", "tcpwatch leaks"]);
    refused(&["top", "--replay", TRACE], &["top needs a terminal"]);
    refused(&["top", "--replay", "/etc/hostname", "--frame", "80x24"], &["not a trace file"]);
    refused(&["top", "--replay", TRACE, "--frame", "0x24"], &["100x30"]);
    refused(
        &["top", "--replay", TRACE, "--frame", "80x24", "--at", "+1h"],
        &["nothing was recorded"],
    );
    refused(&["top", "--replay", TRACE, "--frame", "80x24", "--keys", "F13"], &["no key 'F13'"]);
    refused(&["top", "--replay", TRACE, "--record", "/tmp/x"], &["cannot be used with"]);
    refused(&["top", "--speed", "2"], &["--replay"]);
    refused(&["top", "-q", "--state", "listen"], &["cannot be used with"]);
    refused(&["export", TRACE, "-o", "/tmp/x", "--to", "xml"], &["parquet", "perfetto"]);
    refused(&["export", TRACE, "-o", "/tmp/x", "--to", "csv", "--partition"], &["parquet"]);
    refused(&["export", TRACE, "-o", "/no/such/dir/x", "--to", "csv"], &["/no/such/dir/x"]);
    refused(&["export", TRACE, "-o", TRACE, "--to", "csv"], &["the recording itself"]);
}

#[test]
fn what_is_wrong_with_a_value_is_said() {
    refused(&["-p", "abc"], &["--pid", "not a process id", "pidof NAME"]);
    refused(&["-p", "4194305"], &["4194305 is not in 1..=4194304"]);
    refused(&["-u", "root"], &["--uid", "not a numeric user id", "id -u NAME"]);
    refused(&["-u", "4294967296"], &["4294967296 is not in 0..=4294967294"]);
    refused(&["-L", "8000-8080"], &["--localport", "a range of ports", "8000,8080"]);
    refused(&["-D", "http"], &["--remoteport", "not a port", "whole number"]);
    refused(&["--linger", "99999999999999"], &["--linger", "the longest time is 36500d"]);
    refused(&["-d", "40000d"], &["--duration", "the longest time is 36500d"]);
    refused(&["-d", "1mo"], &["--duration", "use days"]);
    refused(&["-d", "-3s"], &["'-3'"]);
    refused(&["--duration=-3s"], &["cannot be negative"]);
    refused(&["leaks", "--top", "ten"], &["--top", "whole number"]);
    refused(&["states", "--top", "-1"], &["'-1'"]);
    refused(&["report", TRACE, "--top", "1.5"], &["--top", "whole number"]);
    refused(&["record", "-o", "/tmp/x", "--keep", "0"], &["0 is not in 1.."]);
    refused(&["record", "-o", "/tmp/x", "--level", "20"], &["20 is not in 1..=19"]);
    refused(&["record", "-o", "/tmp/x", "--rotate-size", "99999999999999G"], &["no file can be"]);
    refused(&["serve", "--listen", "localhost:9469"], &["--listen", "127.0.0.1:9469"]);
    refused(&["serve", "--listen", "9469"], &["--listen", "an IP address and a port"]);
    refused(&["serve", "--top", "0"], &["0 is not in 1..=1000"]);
    refused(
        &["--exec-on-finding", "true", "--exec-jobs", "many"],
        &["--exec-jobs", "whole number"],
    );
    refused(&["--netns", "/proc/1/no"], &["no network namespace '/proc/1/no'"]);
    refused(&["--netns", "/etc/hostname/x"], &["cannot look at /etc/hostname/x: Not a directory"]);
}

#[test]
fn a_thread_id_names_its_process() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let tid = std::fs::read_link("/proc/thread-self").expect("procfs is mounted");
        let tid = tid.file_name().map(|name| name.to_string_lossy().into_owned());
        sender.send(tid.expect("a thread has an id")).expect("the test listens");
        let _ = wait.recv();
    });
    let tid = receiver.recv().expect("the thread tells its id");
    refused(&["--pid", &tid], &[&format!("use --pid {}", std::process::id())]);
    drop(stop);
    thread.join().expect("the thread ends");
}

#[test]
fn help_shows_examples_and_every_verb() {
    let output = tcpwatch(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for word in [
        "Examples:",
        "top",
        "record",
        "replay",
        "report",
        "diff",
        "export",
        "info",
        "doctor",
        "demo",
        "--pid",
        "--linger",
        "--ring-size",
        "Exit codes",
    ] {
        assert!(text.contains(word), "--help does not show {word}");
    }
}

#[test]
fn a_page_is_a_new_file_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("there is a directory");
    let path = directory.path().join("out.html");
    let name = path.to_str().expect("it is text");
    let output = tcpwatch(&["report", TRACE, "--fail-on-leak", "--html", name]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    let meta = std::fs::metadata(&path).expect("the page is there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let page = std::fs::read(&path).expect("it can be read");
    refused(&["report", TRACE, "--html", name], &["is there already", "choose another name"]);
    assert_eq!(std::fs::read(&path).expect("it is as it was"), page);
    let entries = std::fs::read_dir(directory.path()).expect("it is listed");
    assert_eq!(entries.count(), 1, "something is left over");
    assert_eq!(tcpwatch(&["report", TRACE, "--html", "-"]).stdout, page);
    // Also behind a link nothing is overwritten, and what is no file is written to as it is.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("a link is made");
    refused(
        &["report", TRACE, "--html", link.to_str().expect("it is text")],
        &["is there already"],
    );
    assert!(tcpwatch(&["report", TRACE, "--html", "/dev/null"]).status.success());
}

#[test]
fn the_guide_shows_what_report_writes() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let guide =
        std::fs::read_to_string(format!("{root}/docs/recordings.md")).expect("there is a guide");
    let line = guide.lines().find(|line| line.starts_with("$ tcpwatch report ")).expect("a report");
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(line.split(' ').skip(2))
        .current_dir(root)
        .env("TZ", "UTC")
        .output()
        .expect("tcpwatch runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        guide.contains(&format!("{line}\n{text}```")),
        "docs/recordings.md does not show\n{text}"
    );
}

#[test]
fn the_guide_shows_what_the_screen_shows() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let guide = std::fs::read_to_string(format!("{root}/docs/top.md")).expect("there is a guide");
    let line = guide.lines().find(|line| line.starts_with("$ tcpwatch top ")).expect("a screen");
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(line.split(' ').skip(2))
        .args(["--frame", "80x24"])
        .current_dir(root)
        .env("TZ", "UTC")
        .env("NO_COLOR", "1")
        .output()
        .expect("tcpwatch runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // Without the sequences that select bold and the like.
    let parts = text.split("\x1b[").enumerate();
    let plain: String = parts
        .map(|(number, part)| match part.split_once('m') {
            Some((_, text)) if number > 0 => text,
            _ => part,
        })
        .collect();
    let shown = plain.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n");
    assert!(guide.contains(&format!("{line}\n{shown}```")), "the guide does not show\n{shown}");
}

#[test]
fn the_version_is_the_packages() {
    let output = tcpwatch(&["--version"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("tcpwatch {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_state_is_explained() {
    for state in ["close-wait", "TIME_WAIT", "estab", "fin-wait-2", "closed", "listen", "last_ack"]
    {
        let output = tcpwatch(&["explain", state]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{state}");
        assert!(text.contains("At fault:") && text.contains("What to do:"), "{state}: {text}");
    }
    let output = tcpwatch(&["explain", "time-wait"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("gone since Linux 4.12"));
    // Sockets that never had a connection are in this state, too, and no leaks.
    let output = tcpwatch(&["explain", "close"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("not those that were never connected, nor MPTCP sockets"), "{text}");
    refused(&["explain", "limbo"], &["no TCP state is called", "CLOSE_WAIT"]);
}
