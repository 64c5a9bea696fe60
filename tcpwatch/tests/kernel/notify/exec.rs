//! A command that is run for findings. What it prints is what tcpwatch's standard error has.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{LINGER, leak, us};
use crate::{privileges::children, watch::Watch};

fn watch(command: &str, flags: &[&str]) -> Watch {
    Watch::start(&[&LINGER[..], &["--exec-on-finding", command], flags].concat())
}

pub(super) fn finding() {
    let show = r#"env | sed "s/^/env: /"; sed "s/^/input: /"; echo all-said"#;
    let mut watch = Watch::start_with(
        &[&LINGER[..], &["--exec-on-finding", show]].concat(),
        &[("SECRET", "1")],
    );
    let server = leak(1);
    let found = watch.finding("open");
    let said = watch.said_until("all-said");
    let variable = |name: &str| {
        let prefix = format!("env: {name}=");
        said.iter().find_map(|line| line.strip_prefix(&prefix))
    };
    assert_eq!(variable("TCPWATCH_STATUS"), Some("open"));
    assert_eq!(variable("TCPWATCH_VERDICT"), found["verdict"].as_str());
    assert_eq!(variable("TCPWATCH_SEVERITY"), Some("warning"));
    assert_eq!(variable("TCPWATCH_SUMMARY"), found["summary"].as_str());
    assert_eq!(variable("TCPWATCH_PID"), Some(us().to_string().as_str()));
    assert_eq!(variable("TCPWATCH_COMM"), found["owner"]["comm"].as_str());
    assert_eq!(variable("TCPWATCH_LINGER_SECONDS"), Some("0.300"));
    let port = found["remote"]["port"].to_string();
    assert_eq!(variable("TCPWATCH_PEER_PORT"), Some(port.as_str()));
    assert_eq!(variable("TCPWATCH_FD"), Some(found["holders"][0]["fd"].to_string().as_str()));
    assert_eq!(variable("TCPWATCH_HELD_BACK"), Some("0"));
    assert_eq!((variable("SECRET"), variable("TCPWATCH_ENDED")), (None, None));
    let input = said.iter().find_map(|line| line.strip_prefix("input: ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(input).unwrap(), found, "the same line as in -j");
    drop(server);
    let done = watch.stop();
    assert!(!done.stderr.contains("tcpwatch:"), "{}", done.stderr);
}

pub(super) fn privileges() {
    let show = r#"
        while read -r line; do echo "status: $line"; done < /proc/$$/status
        ls -l /proc/$$/fd
        echo "in $(pwd), group $(ps -o pgid= $$) of $$"
        echo all-said"#;
    let mut watch = watch(show, &[]);
    let server = leak(1);
    watch.finding("open");
    let said = watch.said_until("all-said");
    let status = |name: &str| {
        let prefix = format!("status: {name}:");
        let line = said.iter().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name}: {said:#?}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(status("NoNewPrivs"), ["1"]);
    assert_eq!(status("SigBlk"), ["0000000000000000"]);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(status("Uid"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(status("Gid"), vec![nobody.gid.to_string(); 4]);
    assert!(status("Groups").is_empty());
    let descriptors: Vec<_> = said.iter().filter(|line| line.contains(" -> ")).collect();
    assert_eq!(descriptors.len(), 3, "{descriptors:#?}");
    let place = said.iter().find_map(|line| line.strip_prefix("in ")).unwrap();
    let (directory, group) = place.split_once(", group ").unwrap();
    let (group, itself) = group.split_once(" of ").unwrap();
    assert_eq!((directory, group), ("/", itself), "in / and a group of its own");
    drop(server);
}

pub(super) fn once() {
    let mut watch = watch(r#"echo "ran for $TCPWATCH_SOCKET""#, &["--exec-when", "open,ended"]);
    let servers = leak(5);
    let first = watch.finding("open");
    for _ in 1..5 {
        watch.finding("open");
    }
    watch.said(&format!("ran for {}", first["socket"]));
    drop(servers);
    for _ in 0..5 {
        watch.finding("ended");
    }
    watch.said("ran for ");
    let done = watch.stop();
    assert!(!done.stderr.contains("ran for"), "{}", done.stderr);
    assert!(done.stderr.contains("8 held back"), "{}", done.stderr);
}

pub(super) fn rate() {
    let command = "echo begin; sleep 0.1; echo end";
    let mut watch = watch(command, &["--exec-again", "0s", "--exec-jobs", "2", "--exec-rate", "1"]);
    let servers = leak(40);
    for _ in 0..40 {
        watch.finding("open");
    }
    let mut said = watch.said_until("end");
    said.extend((1..10).flat_map(|_| watch.said_until("end")));
    let done = watch.stop();
    said.extend(done.stderr.lines().map(str::to_owned));
    let of = |word: &str| said.iter().filter(|line| *line == word).count();
    assert_eq!((of("begin"), of("end")), (10, 10), "a burst of ten: {said:#?}");
    assert!(done.stderr.contains("30 held back"), "{}", done.stderr);
    let mut running = 0_i32;
    for line in &said {
        running += i32::from(line == "begin") - i32::from(line == "end");
        assert!(running <= 2, "{said:#?}");
    }
    drop(servers);
}

/// Processes of a group that are more than a name waiting for its parent.
fn alive(group: &str) -> Vec<String> {
    let stats = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let of_group = |stat: &String| {
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields.get(2) == Some(&group) && fields[0] != "Z"
    };
    stats.filter(of_group).collect()
}

fn wait_for_end(group: &str) {
    let until = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 10;
    while !alive(group).is_empty() {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(now < until, "still there: {:?}", alive(group));
        std::thread::yield_now();
    }
}

const LONG: &str = r#"echo "group $$"; sleep 1000 & sleep 1000"#;

pub(super) fn killed() {
    let mut watch = watch(LONG, &["--exec-timeout", "300ms"]);
    let server = leak(1);
    watch.finding("open");
    let group = watch.said("group").split_once(' ').unwrap().1.to_owned();
    watch.said("the command was killed, as it ran for 300ms");
    wait_for_end(&group);
    assert!(!fs::exists(format!("/proc/{group}")).unwrap(), "nobody has waited for it");
    drop(server);
    assert!(watch.stop().stderr.contains("1 of"), "it counts as not delivered");
}

/// What a command leaves in the background is not tcpwatch's to end.
pub(super) fn leaves() {
    let mut watch = watch(r#"sleep 1000 >/dev/null 2>&1 & echo "left $! of $$""#, &[]);
    let server = leak(1);
    watch.finding("open");
    let said = watch.said("left").replace("left ", "");
    let (left, group) = said.split_once(" of ").unwrap();
    let done = watch.stop();
    assert!(!done.stderr.contains("not delivered"), "{}", done.stderr);
    assert!(!alive(group).is_empty(), "it was ended");
    kill_process(Pid::from_raw(left.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    drop(server);
}

/// A command that nobody can run any more is said, and does not end the run.
pub(super) fn alone() {
    let mut watch = watch("echo ran", &["--exec-again", "0s"]);
    let first = leak(1);
    watch.finding("open");
    watch.said("ran");
    let [helper] = children(watch.id())[..] else { panic!("{:?}", children(watch.id())) };
    kill_process(Pid::from_raw(helper.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let second = leak(1);
    watch.said("the process that runs commands has ended");
    drop((first, second));
    watch.finding("ended");
    let done = watch.stop();
    assert!(done.status.success() && done.stderr.contains("not delivered"), "{}", done.stderr);
}

pub(super) fn ends() {
    let mut watch = watch(LONG, &[]);
    let server = leak(1);
    watch.finding("open");
    let group = watch.said("group").split_once(' ').unwrap().1.to_owned();
    watch.signal(Signal::TERM);
    let done = watch.wait();
    wait_for_end(&group);
    assert!(done.stderr.contains("1 of 1 not delivered"), "{}", done.stderr);
    assert!(done.status.success(), "{:?}", done.status);
    drop(server);
}
