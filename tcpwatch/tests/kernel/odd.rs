//! Processes in unusual places: containers, frozen, without a main thread, behind pid namespaces.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Test,
    leaks::lines,
    peers::{Kind, LEAK, Program, accept, connect, listen},
    watch::{Watch, change, namespace},
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
        Test::new("an_mptcp_listener_is_named_by_its_plain_connections", mptcp_listener),
        Test::new("an_mptcp_socket_that_connects_again_has_no_old_ports", mptcp_reconnects),
        Test::new("a_program_that_disconnects_keeps_its_fd", disconnected),
        Test::new("a_namespace_without_a_name_is_shown_to_its_last_transition", unnamed),
        Test::new("a_thread_with_files_of_its_own_is_not_its_process", thread_ends),
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

/// A connection in `CLOSE_WAIT` that its own program disconnects; and then it connects the same socket again.
const DISCONNECTS: &str = "
import ctypes, socket, struct
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
c.close()
print(a.getsockname()[1])
input()
assert ctypes.CDLL(None).connect(a.fileno(), struct.pack('H14x', 0), 16) == 0
a.connect(s.getsockname())
print('connected')
input()
";

fn disconnected() {
    let mut watch = Watch::start(&["--linger", "200ms"]);
    let mut program = Program::start(DISCONNECTS);
    let at: u16 = program.answer().parse().unwrap();
    assert_eq!(watch.finding("open")["verdict"], "not-reading");
    assert_eq!(program.tell(""), "connected");
    let ended = watch.finding("ended");
    assert_eq!(ended["ended"]["how"], "disconnected", "{ended:#}");
    assert_eq!(ended["ended"]["by"]["pid"], program.pid());
    assert!(ended["summary"].as_str().unwrap().contains("fd stays open"), "{ended:#}");
    let closed = watch.lines.iter().find(|t| t["old"] == "CLOSE_WAIT" && t["new"] == "CLOSE");
    assert_eq!(closed.unwrap()["by"]["pid"], program.pid());
    // It is in use again, and no dead descriptor.
    watch.until("its next life", |t| {
        t["old"] == "SYN_SENT" && t["new"] == "ESTABLISHED" && t["remote"]["port"] == at
    });
    assert_eq!(program.tell(""), "");
    let done = watch.stop();
    assert_eq!(done.of("finding").iter().filter(|f| f["status"] == "open").count(), 1);
}

/// A network namespace that loses its name, then its process, and last the connections of that, whose segments
/// go nowhere: the kernel gives up after three seconds (`tcp_orphan_retries`).
const UNNAMED: &str = "
import ctypes, os, socket, subprocess, sys
def ip(*args): subprocess.run(['ip', *args], check=True)
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
ip('link', 'set', 'lo', 'up')
open('/proc/sys/net/ipv4/tcp_orphan_retries', 'w').write('3')
name = f'tcpwatch-test-{os.getpid()}'
ip('netns', 'attach', name, str(os.getpid()))
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
print(name)
input()
ip('netns', 'delete', name)
print('unnamed')
input()
ip('link', 'set', 'lo', 'down')
";

fn unnamed() {
    let mut program = Program::start(UNNAMED);
    let name = program.answer();
    let mut watch = Watch::start_raw(&["-j", "-N", &name]);
    assert_eq!(program.tell(""), "unnamed");
    program.order("");
    for end in ["one end", "the other"] {
        watch.until(end, |t| t["old"] == "FIN_WAIT1" && t["new"] == "CLOSE");
    }
    watch.said(&format!("network namespace {name} was deleted"));
    let done = watch.stop();
    assert_eq!((&done.summary()["lost"], &done.summary()["now"]), (&json!(0), &json!({})));
}

/// A thread with a descriptor table of its own keeps what the process has closed, and ends alone; then one ends
/// with its process.
const THREAD_WITH_FILES: &str = "
import ctypes, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
def pair():
    s = socket.create_server(('127.0.0.1', 0))
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    s.close()
    return c, a
def keep(c, mine, kept, over):
    assert libc.unshare(0x400) == 0  # CLONE_FILES
    os.close(c.fileno()); mine.set(); over.wait()
for last in (False, True):
    c, a = pair()
    mine, over = threading.Event(), threading.Event()
    t = threading.Thread(target=keep, args=(c, mine, a, over), daemon=True)
    t.start(); mine.wait(); a.close(); c.close()
    print('left')
    input()
    if last: os._exit(0)
    over.set(); t.join()
";

fn thread_ends() {
    let mut program = Program::start(THREAD_WITH_FILES);
    let mut watch = Watch::start(&["--linger", "200ms"]);
    for (answer, how) in [("left", "closed"), ("left", "exited")] {
        assert_eq!(program.answer(), answer);
        let finding = watch.finding("open");
        program.order("");
        let ended = watch.finding("ended");
        assert_eq!(ended["socket"], finding["socket"]);
        assert_eq!(ended["ended"]["how"], how, "{ended:#}");
        assert_eq!(ended["ended"]["by"]["pid"], program.pid());
    }
    watch.stop();
}

/// MPTCP listeners that are opened while tcpwatch watches, as every server in Go from 1.24 on; their clients
/// are plain TCP.
fn mptcp_listener() {
    let mut watch = Watch::start(&["--linger", "200ms"]);
    let anywhere = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
    anywhere.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    anywhere.listen(5).unwrap();
    let listeners = [TcpListener::from(anywhere), listen(Kind::Mptcp)];
    for listener in &listeners {
        drop(connect(Kind::V4, listener));
    }
    let findings = [watch.finding("open"), watch.finding("open")];
    let mut named: Vec<String> = Vec::new();
    for finding in &findings {
        assert_eq!(finding["verdict"], "never-accepted", "{finding:#}");
        assert_eq!(finding["protocol"], "tcp");
        let listener = &finding["listener"];
        assert_eq!(listener["holders"][0]["pid"], std::process::id(), "{finding:#}");
        let local = &listener["local"];
        named.push(format!("{}:{}", local["addr"].as_str().unwrap(), local["port"]));
    }
    named.sort();
    let mut expected: Vec<_> =
        listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    expected.sort();
    assert_eq!(named, expected);
    watch.stop();
}

/// An MPTCP socket that is disconnected and connected again: first to nobody, then to a listener.
const RECONNECTS: &str = "
import ctypes, socket, struct
def disconnect(s): assert ctypes.CDLL(None).connect(s.fileno(), struct.pack('H14x', 0), 16) == 0
def listen():
    s = socket.socket(2, 1, 262); s.bind(('127.0.0.1', 0)); s.listen(5)
    return s
first, last = listen(), listen()
free = socket.socket(); free.bind(('127.0.0.1', 0))
input()
c = socket.socket(2, 1, 262); c.connect(first.getsockname())
print(c.getsockname()[1], first.getsockname()[1])
disconnect(c)
try: c.connect(free.getsockname())
except ConnectionRefusedError: pass
print(free.getsockname()[1])
c.connect(last.getsockname())
print(c.getsockname()[1], last.getsockname()[1])
c.close()
print('closed')
input()
";

fn mptcp_reconnects() {
    let mut program = Program::start(RECONNECTS);
    let mut watch = Watch::start(&[]);
    let mut numbers = |order: bool| -> Vec<u16> {
        let line = if order { program.tell("") } else { program.answer() };
        line.split(' ').map(|word| word.parse().unwrap()).collect()
    };
    let [first, to_first] = numbers(true)[..] else { panic!() };
    let [refusing] = numbers(false)[..] else { panic!() };
    let [last, to_last] = numbers(false)[..] else { panic!() };
    assert_eq!(program.answer(), "closed");
    watch.until("its close", |t| {
        t["new"] == "CLOSE" && t["local"]["port"] == last && t["old"] != "CLOSE"
    });
    let done = watch.stop();
    let transitions = done.of("transition");
    let connects: Vec<_> = transitions.iter().filter(|t| change(t) == "CLOSE>SYN_SENT").collect();
    assert_eq!(connects.len(), 3);
    for connect in &connects {
        let ports = (&connect["local"]["port"], &connect["remote"]["port"]);
        assert_eq!(ports, (&json!(0), &json!(0)), "not known yet: {connect}");
    }
    let lives = [(Some(first), to_first), (None, refusing), (Some(last), to_last)];
    for (connect, (local, remote)) in connects.iter().zip(lives) {
        let rest = transitions
            .iter()
            .filter(|t| t["socket"] == connect["socket"] && change(t) != "CLOSE>SYN_SENT");
        for t in rest {
            assert_eq!(t["remote"]["port"], remote, "{t}");
            let port = t["local"]["port"].as_u64().unwrap();
            match local {
                Some(local) => assert_eq!(port, u64::from(local), "{t}"),
                None => assert!(![0, u64::from(first)].contains(&port), "{t}"),
            }
        }
    }
}
