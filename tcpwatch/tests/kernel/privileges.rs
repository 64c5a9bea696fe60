//! What tcpwatch may do while it runs, as `/proc` says, and what it can still tell with less.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tcpwatch::{core::time::Nanos, kernel::clock};

use crate::{
    Test,
    peers::{Kind, LEAK, Program, listen, pair, read_to_end},
    watch::{Watch, namespace},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_run_keeps_only_what_evidence_takes", while_it_runs),
        Test::new("what_runs_commands_keeps_nothing", commands),
        Test::new("a_replay_keeps_nothing", replaying),
        Test::new("run_gives_its_command_what_the_caller_had", command),
        Test::new("without_privilege_the_error_names_the_capabilities", none),
        Test::new("cap_bpf_and_cap_perfmon_are_enough", two),
        Test::new("cap_sys_ptrace_tells_what_threads_wait_in", ptrace),
        Test::new("a_program_with_file_capabilities_runs_for_anybody", setcap).needs("setcap"),
        Test::new("what_sudo_writes_is_its_callers", sudo),
        Test::new("long_queues_in_other_namespaces_are_seen", elsewhere),
    ]
}

const PATIENCE: Nanos = Nanos(20_000_000_000);
/// Capabilities, as bits of what `/proc` says.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const NONE: &str = "0000000000000000";

/// Whether the size of a process's directory of descriptors says to all how many there are: since
/// Linux 6.2.
fn descriptors_are_told() -> bool {
    fs::metadata("/proc/self/fd").unwrap().len() > 0
}

/// What a run keeps: `CAP_SYS_PTRACE`, and what counting another user's descriptors takes.
fn evidence() -> u64 {
    SYS_PTRACE | if descriptors_are_told() { 0 } else { DAC_READ_SEARCH }
}

/// What `/proc` says of the privileges of one thread.
type Privileges = BTreeMap<String, String>;

fn privileges(status: &str) -> Privileges {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs")
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Those of a thread that has given up all but these.
fn only(kept: u64) -> Privileges {
    let kept = format!("{kept:016x}");
    let sets = [("CapEff", &kept[..]), ("CapPrm", &kept), ("CapBnd", NONE)];
    let others = [("CapInh", NONE), ("CapAmb", NONE), ("NoNewPrivs", "1")];
    sets.into_iter().chain(others).map(|(name, set)| (name.to_owned(), set.to_owned())).collect()
}

/// Every thread of a process.
fn threads(pid: u32) -> Vec<Privileges> {
    statuses(pid).iter().map(|status| privileges(status)).collect()
}

fn statuses(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end meanwhile.
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).collect()
}

fn has_only(kept: u64, pid: u32) {
    for thread in threads(pid) {
        assert_eq!(thread, only(kept));
    }
}

/// A place that anybody may look into, with a copy of tcpwatch in it that anybody may run.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) program: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("tcpwatch");
        // By another process: a child that a test beside this one forks would hold a file that is being
        // written here, and what is being written cannot be run.
        let copy = r#"cat "$0" >"$1""#;
        let status = Command::new("sh")
            .args(["-c", copy, env!("CARGO_BIN_EXE_tcpwatch")])
            .arg(&program)
            .status();
        assert!(status.unwrap().success(), "copy tcpwatch");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, program }
    }

    /// A directory that is somebody else's.
    pub(crate) fn of_another(&self) -> PathBuf {
        let path = self.dir.path().join("theirs");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(65534), Some(65534)).unwrap();
        path
    }

    /// Runs something as nobody, with these capabilities.
    pub(crate) fn as_nobody(capabilities: &str, program: &Path, flags: &[&str]) -> Output {
        let sets = format!("--inh-caps=-all{capabilities}");
        let ambient = format!("--ambient-caps=-all{capabilities}");
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", &sets, &ambient])
            .arg(program)
            .args(flags)
            .output()
            .expect("setpriv (util-linux) is needed")
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn while_it_runs() {
    let place = Place::new();
    let name = |name: &str| place.dir.path().join(name).to_str().unwrap().to_owned();
    let (box_, beside) = (name("box.tcpw"), name("beside.tcpw"));
    let runs: [&[&str]; 5] = [
        &["-j"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["-q", "-j", "--record", &beside],
        &["record", "-o", &box_],
        &["record", "-o", &box_, "--rotate-size", "1M"],
    ];
    for flags in runs {
        let watch = Watch::start_raw(flags);
        has_only(evidence(), watch.id());
        assert!(watch.stop().status.success(), "{flags:?}");
    }
    // A long accept queue elsewhere on this machine would take more.
    let watch = Watch::start_unattached(&["leaks", "--watch", "10s", "-N", &namespace()]);
    watch.said("watching for");
    has_only(evidence(), watch.id());
    drop(watch);

    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["run", "--", "sh", "-c", "echo ready; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut child), "ready\n");
    // The thread that started the command is about to end.
    let until = clock::now() + PATIENCE;
    while threads(child.id()).iter().any(|thread| *thread != only(evidence())) {
        assert!(clock::now() < until, "{:?}", threads(child.id()));
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Neither a thread of tcpwatch nor the process that runs commands for it has what only starting them as
/// somebody else takes.
fn commands() {
    let watch = Watch::start_raw(&["-q", "-j", "--exec-on-finding", "true"]);
    let all = threads(watch.id());
    assert!(all.iter().any(|thread| *thread == only(evidence())), "{all:#?}");
    for thread in all {
        assert!(thread == only(evidence()) || thread == only(0), "{thread:#?}");
    }
    let [helper] = children(watch.id())[..] else { panic!("{:?}", children(watch.id())) };
    has_only(0, helper);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.to_string();
    assert_eq!(users(helper), [vec![nobody; 4]]);
    assert_eq!(fs::read_to_string(format!("/proc/{helper}/comm")).unwrap(), "tcpwatch-exec\n");
    assert!(watch.stop().status.success());
    let gone = || (!fs::exists(format!("/proc/{helper}")).unwrap()).then_some(());
    crate::real::eventually("the process that runs commands is left behind", gone);

    // Root that may not become somebody else does not run commands as root instead.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all,+bpf,+perfmon,+sys_ptrace", "--inh-caps=-all"])
        .arg(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["-q", "-d", "1s", "--exec-on-finding", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("run as nobody"), "{}", said(&output));
}

/// Processes that this one has started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let of = |entry: fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
        (parent == pid.to_string()).then(|| entry.file_name().to_str()?.parse().ok())?
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.ok()?)).collect()
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

fn replaying() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/shop.tcpw");
    for (flags, kept) in [(&["--speed", "1"][..], 0), (&["-f", "--speed", "1"], DAC_READ_SEARCH)] {
        let mut watch = Watch::start_unattached(&[&["replay", "-j", trace], flags].concat());
        watch.until("transition", |line| line["type"] == "transition");
        has_only(kept, watch.id());
    }
}

/// Signals 32 and 33 belong to the C library, which takes them over in a process that has threads:
/// whether a caller ignored them is not kept.
fn without_libcs(set: &str) -> String {
    const LIBCS: u64 = 3 << 31;
    format!("{:016x}", u64::from_str_radix(set, 16).unwrap() & !LIBCS)
}

/// The privileges of a command that `run` starts are those of one that the caller starts.
fn command() {
    let place = Place::new();
    let program = place.program.to_str().unwrap();
    let status = ["cat", "/proc/self/status"];
    let run: Vec<&str> = [&[program, "run", "--"][..], &status].concat();
    let of = |output: &Output| {
        assert!(output.status.success(), "{}", said(output));
        let text = String::from_utf8_lossy(&output.stdout);
        let signals = text.lines().filter_map(|line| line.split_once(':'));
        let signals = signals.filter(|(name, _)| name.starts_with("Sig") && *name != "SigQ");
        let signals = signals.map(|(name, set)| (name.to_owned(), without_libcs(set.trim())));
        let all: Privileges = privileges(&text).into_iter().chain(signals).collect();
        assert!(all.len() > 8, "{text}");
        all
    };
    let plain = |command: &[&str]| Command::new(command[0]).args(&command[1..]).output().unwrap();
    let (direct, through) = (of(&plain(&status)), of(&plain(&run)));
    assert_ne!(direct["CapEff"], NONE);
    assert_eq!(through, direct, "as root");

    let nobody = |command: &[&str]| {
        Place::as_nobody(",+bpf,+perfmon,+net_raw", Path::new(command[0]), &command[1..])
    };
    let (direct, through) = (of(&nobody(&status)), of(&nobody(&run)));
    assert_ne!(direct["CapAmb"], NONE);
    assert_eq!(through, direct, "with ambient capabilities");

    let limited = |command: &[&str]| {
        let flags =
            ["--bounding-set=-all,+bpf,+perfmon,+setpcap", "--inh-caps=-all", "--no-new-privs"];
        Command::new("setpriv").args(flags).args(command).output().unwrap()
    };
    let (direct, through) = (of(&limited(&status)), of(&limited(&run)));
    assert_eq!((&direct["NoNewPrivs"][..], &through), ("1", &direct), "with a bounding set");
}

fn none() {
    let place = Place::new();
    let output = Place::as_nobody("", &place.program, &["-d", "1"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for word in ["CAP_BPF", "CAP_PERFMON", "sudo", "setcap cap_bpf,cap_perfmon=ep"] {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
    let output = Place::as_nobody(",+bpf", &place.program, &["-d", "1"]);
    let text = said(&output);
    assert!(text.contains("missing CAP_PERFMON (to"), "{text}");
}

/// Flags that tell a leak soon, here.
fn soon() -> [String; 7] {
    let flags = ["-q", "-j", "--linger", "100ms", "-d", "1s", "-N"];
    flags.map(str::to_owned)
}

/// Leaks a socket of ours and returns what tcpwatch finds of it.
fn found_by(run: impl FnOnce(&[&str]) -> Output) -> Vec<Value> {
    let listener = listen(Kind::V4);
    let (client, mut server) = pair(Kind::V4, &listener);
    drop(client);
    read_to_end(&mut server);
    let (flags, namespace) = (soon(), namespace());
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain([&namespace[..]]).collect();
    let output = run(&flags);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["type"] == "finding").collect()
}

fn two() {
    let place = Place::new();
    let found = found_by(|flags| Place::as_nobody(",+bpf,+perfmon", &place.program, flags));
    assert_eq!(found[0]["holders"][0]["pid"], std::process::id(), "{found:#?}");
    let output = Place::as_nobody(",+bpf,+perfmon", &place.program, &["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("tcpwatch works here"), "{text}");
    for line in ["--  CAP_SYS_PTRACE ", "--  CAP_DAC_READ_SEARCH ", "--  CAP_SYS_ADMIN "] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("(none is kept); looks go on without them"), "{text}");
}

/// Of another user's process: what is told with two capabilities, and what takes a third.
fn ptrace() {
    let place = Place::new();
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let namespace = namespace();
    let thread = |capabilities: &str| {
        let flags = ["leaks", "-j", "-N", &namespace];
        let output = Place::as_nobody(capabilities, &place.program, &flags);
        let text = String::from_utf8_lossy(&output.stdout);
        let finding: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let process = finding["process"].clone();
        assert_eq!(process["pid"], program.pid());
        for told in ["fd_limit", "cgroup_path"] {
            assert!(!process[told].is_null(), "{told}: {process:#}");
        }
        assert_eq!(!process["fds"].is_null(), descriptors_are_told(), "{process:#}");
        assert_eq!(process["threads"][0]["state"], "S");
        process["threads"][0]["wait"].clone()
    };
    assert_eq!(thread(",+bpf,+perfmon"), Value::Null);
    assert_ne!(thread(",+bpf,+perfmon,+sys_ptrace"), Value::Null);
    program.kill();
}

/// In a directory that root may only write by its privileges, as most homes are.
fn sudo() {
    const CALLER: u32 = 65534;
    let place = Place::new();
    let theirs = place.of_another();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    let trace = theirs.join("a.tcpw");
    let id = CALLER.to_string();
    let variables = [("SUDO_UID", &id[..]), ("SUDO_GID", &id)];
    let start = |trace: &Path| {
        let flags = ["-qj", "-N", &namespace(), "--linger", "300ms", "--record"];
        let flags = [&flags[..], &[trace.to_str().unwrap()]].concat();
        Watch::start_unattached_with(&flags, &variables)
    };
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let mut watch = start(&trace);
    let found = watch.finding("open");
    assert_eq!(found["holders"][0]["pid"], program.pid(), "{found:#}");
    has_only(evidence(), watch.id());
    for user in users(watch.id()) {
        assert_eq!(user, vec![id.clone(); 4]);
    }
    let done = watch.stop();
    assert!(done.status.success() && !done.stderr.contains("warn"), "{}", done.stderr);
    let made = fs::metadata(&trace).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (CALLER, CALLER, 0o600));

    // Where root may write, it is root's.
    let trace = place.dir.path().join("b.tcpw");
    let mut watch = start(&trace);
    watch.finding("open");
    watch.stop();
    assert_eq!(fs::metadata(&trace).unwrap().uid(), 0);
    program.kill();
}

/// Real, effective, saved and file system user of each thread.
fn users(pid: u32) -> Vec<Vec<String>> {
    let ids = |status: &String| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    statuses(pid).iter().map(ids).collect()
}

fn setcap() {
    let place = Place::new();
    let status = Command::new("setcap").arg("cap_bpf,cap_perfmon=ep").arg(&place.program).status();
    assert!(status.unwrap().success(), "setcap");
    let found = found_by(|flags| Place::as_nobody("", &place.program, flags));
    assert_eq!(found[0]["holders"][0]["pid"], std::process::id(), "{found:#?}");

    let theirs = place.of_another();
    let trace = theirs.join("a.tcpw");
    let record = ["record", "-o", trace.to_str().unwrap(), "-d", "100ms"];
    let output = Place::as_nobody("", &place.program, &record);
    assert!(output.status.success(), "{}", said(&output));
    let meta = fs::metadata(&trace).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (65534, 0o600));
    // The command gets nothing of what the file gives tcpwatch.
    let output =
        Place::as_nobody("", &place.program, &["run", "--", "grep", "Cap", "/proc/self/status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let command = privileges(&text);
    assert_eq!((&command["CapPrm"][..], &command["CapEff"][..]), (NONE, NONE), "{text}");
}

/// A listener that accepts nobody; so many connect and close as it is told to.
const DEAF: &str = "
import socket
s = socket.create_server(('127.0.0.1', 0), backlog=128)
while True:
    for _ in range(int(input())):
        socket.create_connection(s.getsockname()).close()
    print('done')
";

/// A queue that is too long to be walked from its listener, in a namespace that tcpwatch is not in:
/// what was there at the start, and what comes when it may not enter any more.
fn elsewhere() {
    let (early, late) = (30, 10);
    let mut program = Program::start(DEAF);
    assert_eq!(program.tell(&early.to_string()), "done");
    let namespace = namespace();
    let flags = ["-q", "-j", "--linger", "100ms", "-N", &namespace];
    let mut watch = Watch::start_elsewhere(&flags);
    for _ in 0..early {
        assert_eq!(watch.finding("open")["verdict"], "never-accepted");
    }
    assert_eq!(program.tell(&late.to_string()), "done");
    for _ in 0..late {
        assert_eq!(watch.finding("open")["verdict"], "never-accepted");
    }
    // Looks that go on need to enter it again.
    let looks = Watch::start_elsewhere_unattached(&["leaks", "--watch", "10s", "-N", &namespace]);
    looks.said("watching for");
    has_only(evidence() | SYS_ADMIN, looks.id());
    let done = watch.stop();
    let ended = done.of("finding").iter().filter(|f| f["status"] == "ended").count();
    assert_eq!(ended, 0, "all are still there");
    assert!(!done.stderr.contains("cannot look"), "{}", done.stderr);
    program.kill();
}
