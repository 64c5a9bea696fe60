//! Names that processes, cgroups and network namespaces give themselves, shown live in every format.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    Test, harmless,
    odd::{Cgroup, has_cgroups},
    peers::Program,
    watch::namespace,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("hostile_names_do_no_harm_in_any_live_format", live).only_if(has_cgroups),
        Test::new("hostile_names_do_no_harm_in_what_run_says", run),
    ]
}

/// Calls itself one after the other, and leaks a connection each time.
fn leaky(names: &[&[u8]]) -> String {
    let mut list = String::new();
    for name in names {
        let bytes = name.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\x{byte:02x}");
            out
        });
        let _ = write!(list, "b'{bytes}', ");
    }
    format!(
        "
import socket, sys, time
kept = []
for name in [{list}]:
    open('/proc/self/comm', 'wb').write(name)
    s = socket.create_server(('127.0.0.1', 0))
    c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()
    kept += [s, a]
print('ready', flush=True)
# Long enough to be found, if nobody tells it to end.
time.sleep(4)
sys.stdin.read()
"
    )
}

/// A network namespace that has a name for as long as this lives.
struct Named<'a>(&'a OsStr);

impl<'a> Named<'a> {
    fn new(name: &'a OsStr, pid: u32) -> Self {
        let mut ip = Command::new("ip");
        let done = ip.args(["netns", "attach"]).arg(name).arg(pid.to_string()).status();
        assert!(done.unwrap().success());
        Self(name)
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete"]).arg(self.0).status();
    }
}

fn checked(what: &[&str], output: &Output, check: Check) {
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{what:?}");
    assert!(output.status.success(), "{said}");
    check(&output.stdout);
    harmless::human(&output.stderr);
}

/// All of them in one, without what no file's name may have.
fn name() -> Vec<u8> {
    let all = harmless::HOSTILE.concat();
    all.into_iter().filter(|byte| *byte != b'/').collect()
}

/// How a format's output is checked.
type Check = fn(&[u8]);

fn live() {
    let formats: [(&[&str], Check); 8] = [
        (&["-wtT", "--linger", "50ms", "-d", "300ms"], harmless::human),
        (&["--linger", "50ms", "-d", "300ms"], harmless::human),
        (&["-j", "--linger", "50ms", "-d", "300ms"], harmless::json),
        (&["-s", "--linger", "50ms", "-d", "300ms"], harmless::csv),
        (&["leaks", "--linger", "0s", "--top", "99"], harmless::human),
        (&["leaks", "--linger", "0s", "-j"], harmless::json),
        (&["states"], harmless::human),
        (&["states", "-j"], harmless::json),
    ];
    let mut programs = Vec::new();
    let mut groups = Vec::new();
    for text in harmless::HOSTILE {
        let mut program = Program::start(&leaky(&[text]));
        assert_eq!(program.answer(), "ready");
        // The kernel refuses a line feed in a cgroup's name.
        let path: Vec<u8> = text.iter().copied().filter(|byte| !b"\n/".contains(byte)).collect();
        let path = [&path[..], program.pid().to_string().as_bytes()].concat();
        groups.push(Cgroup::new(Path::new(OsStr::from_bytes(&path)), program.pid()));
        programs.push(program);
    }
    let name = name();
    let named = Named::new(OsStr::from_bytes(&name), programs[0].pid());
    let namespace = namespace();
    for (flags, check) in formats {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
        let output = command.args(flags).args(["-N", &namespace]).output().unwrap();
        checked(flags, &output, check);
        let shown = String::from_utf8_lossy(&output.stdout);
        for program in &programs {
            assert!(shown.contains(&program.pid().to_string()), "{flags:?} misses one: {shown}");
        }
    }
    drop(named);
    programs.into_iter().for_each(Program::kill);
    drop(groups);
}

/// What a command calls itself, and what it is called.
fn run() {
    let source = leaky(&harmless::HOSTILE);
    let flags = ["run", "-a", "--linger", "50ms", "--", "python3", "-c", &source];
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    checked(&flags[..4], &output, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    for words in ["\\x1b[2J", "\\xff\\xfe", "FINDING", "CLOSE_WAIT"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let dir = tempfile::tempdir().unwrap();
    let program = harmless::directory(dir.path(), &name()).join("no such program");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcpwatch"));
    let output = command.args(["run", "--"]).arg(&program).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such program"), "{output:?}");
    harmless::human(&output.stderr);
}
