//! Processes in unusual places: containers, frozen, without a main thread, behind pid namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    Test,
    leaks::lines,
    peers::{Kind, LEAK, Program, accept, connect, listen},
    watch::namespace,
};

/// Where the unified hierarchy is mounted.
fn cgroups() -> &'static Path {
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    places.into_iter().find(|place| place.join("cgroup.procs").exists()).unwrap_or(places[1])
}

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("a_container_is_known_by_its_cgroup", container).only_if(has_cgroups),
        Test::new("a_frozen_process_is_seen", frozen).only_if(has_cgroups),
        Test::new("a_process_without_its_main_thread_is_watched", no_main_thread),
        Test::new("a_pid_namespace_is_no_place_to_look_from", pid_namespace),
        Test::new("mptcp_connections_are_told_apart", mptcp),
    ]
}

/// The unified hierarchy, and leave to make groups in it.
pub(crate) fn has_cgroups() -> bool {
    let probe = cgroups().join(format!("tcpwatch-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe).is_ok();
    let works = probe.join("cgroup.freeze").exists();
    made && fs::remove_dir(&probe).is_ok() && works
}

/// A cgroup that goes with the test.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(name: impl AsRef<Path>, pid: u32) -> Self {
        let path = cgroups().join(name);
        fs::create_dir(&path).unwrap();
        let group = Self(path);
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).unwrap();
        group
    }

    fn freeze(&self, on: bool) {
        fs::write(self.0.join("cgroup.freeze"), if on { "1" } else { "0" }).unwrap();
        let wanted = if on { "frozen 1" } else { "frozen 0" };
        while !fs::read_to_string(self.0.join("cgroup.events")).unwrap().contains(wanted) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        // Whoever was in it goes away in its own time.
        let gone = || fs::remove_dir(&self.0).is_ok();
        (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            gone()
        });
    }
}

fn one(flags: &[&str]) -> Value {
    let mut found = lines(flags, "finding");
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn container() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let id = format!("{:064x}", program.pid());
    let group = Cgroup::new(format!("docker-{id}.scope"), program.pid());
    let finding = one(&[]);
    let process = &finding["process"];
    let expected = json!({"id": id, "runtime": "docker", "pod_uid": null, "namespace": null, "pod": null, "name": null});
    assert_eq!(process["container"], expected);
    assert!(process["cgroup_path"].as_str().unwrap().ends_with(&format!("docker-{id}.scope")));
    program.kill();
    drop(group);
}

fn frozen() {
    let mut program = Program::start(LEAK);
    assert_eq!(program.answer(), "ready");
    let group = Cgroup::new(format!("tcpwatch-frozen-{}", program.pid()), program.pid());
    group.freeze(true);
    let finding = one(&[]);
    group.freeze(false);
    assert_eq!(finding["process"]["frozen"], true, "{finding:#}");
    assert!(finding["summary"].as_str().unwrap().contains("frozen"), "{finding:#}");
    program.kill();
    drop(group);
}

/// Three threads, one of which leaks; the main thread ends alone.
const THREADS: &str = "
import ctypes, os, socket, threading, time
def leak():
    s = socket.create_server(('127.0.0.1', 0))
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    c.close()
    while open('/proc/self/stat').read().split()[2] != 'Z': time.sleep(0.01)
    print('ready')
    time.sleep(60)
for work in (leak, lambda: time.sleep(60), lambda: time.sleep(60)):
    threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(60, 0)
";

fn no_main_thread() {
    let mut program = Program::start(THREADS);
    assert_eq!(program.answer(), "ready");
    let pid = program.pid().to_string();
    let finding = one(&["-p", &pid]);
    assert_eq!(finding["owner"]["pid"], program.pid());
    assert_eq!(finding["holders"].as_array().unwrap().len(), 1, "{finding:#}");
    program.kill();
}

fn pid_namespace() {
    let run = |flags: &[&str]| {
        Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_tcpwatch")])
            .args(flags)
            .output()
            .unwrap()
    };
    let output = run(&["leaks", "-N", &namespace()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pid namespace"), "{output:?}");
    for refused in [&["-p", "1"][..], &["run", "--", "true"]] {
        let output = run(refused);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("hostPID"), "{output:?}");
    }
}

/// Several MPTCP sockets may have the same cookie.
fn mptcp() {
    let listener = listen(Kind::Mptcp);
    let kept: Vec<_> = (0..4)
        .map(|_| {
            let (client, server) = accept(connect(Kind::Mptcp, &listener), &listener);
            drop(client);
            server
        })
        .collect();
    let found = lines(&[], "finding");
    assert_eq!(found.len(), kept.len(), "{found:#?}");
    for finding in &found {
        assert_eq!(finding["holders"].as_array().unwrap().len(), 1, "{finding:#}");
        assert_eq!(finding["protocol"], "mptcp");
    }
}
