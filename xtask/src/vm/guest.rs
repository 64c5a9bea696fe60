//! The other side: what this program does as the first process of a guest.
//!
//! It prepares what a distribution would, runs tcpwatch and the tests, tells over the second serial
//! line how they came out, and switches the machine off. It knows nothing of what is expected.

use std::{
    ffi::CStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
    system::{RebootCommand, finit_module, reboot, sethostname},
};
use serde::{Deserialize, Serialize};

use super::initramfs::PATH;

/// Where the orders are in the guest.
pub(super) const ORDERS: &str = "/orders.json";
/// The line that has nothing but messages; the first is the kernel's console.
const LINE: &str = "/dev/ttyS1";

/// Where a kernel's module is in the guest.
pub(super) fn module(release: &str, number: usize) -> String {
    format!("/modules/{release}/{number}.ko")
}

/// What the guest is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) tcpwatch: PathBuf,
    pub(super) tests: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// What a guest says, a line each.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// It is up.
    Booted { release: String, cpus: usize },
    /// Something could not be prepared; what needs it will fail.
    Trouble { text: String },
    /// What `tcpwatch doctor` says.
    Doctor { code: Option<i32>, text: String },
    /// How a short run of tcpwatch ended.
    Watch { code: Option<i32>, stderr: String },
    /// A line of the tests, of which the format is theirs.
    Test { line: String },
    /// The tests have ended.
    Tested { code: Option<i32> },
    /// All is done.
    Done,
}

/// The first process, and the one that works.
pub(crate) fn run() -> Result<()> {
    if std::process::id() == 1 { first_process() } else { work() }
}

/// Prepares, waits for whoever ends, and ends with the one that works.
fn first_process() -> Result<()> {
    prepare();
    match Command::new("/proc/self/exe").arg("guest").env_clear().envs(ENVIRONMENT).spawn() {
        Ok(worker) => reap_until(&worker),
        Err(error) => eprintln!("guest: cannot start itself again: {error}"),
    }
    reboot(RebootCommand::PowerOff).context("power off")
}

const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

fn reap_until(worker: &Child) {
    let worker = rustix::process::Pid::from_child(worker);
    while let Ok(ended) = wait(WaitOptions::empty()) {
        if ended.is_some_and(|(pid, _)| pid == worker) {
            break;
        }
    }
}

/// What is mounted, where, and with what options.
const MOUNTS: [(&str, &str, &CStr); 10] = [
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("devtmpfs", "/dev", c""),
    ("devpts", "/dev/pts", c""),
    ("tmpfs", "/dev/shm", c"mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", c""),
    ("bpf", "/sys/fs/bpf", c""),
    ("debugfs", "/sys/kernel/debug", c""),
    ("tracefs", "/sys/kernel/tracing", c""),
    ("securityfs", "/sys/kernel/security", c""),
];

/// Whatever fails here shows on the console and in the tests that need it.
fn prepare() {
    let said = |what: &str, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            eprintln!("guest: {what}: {error}");
        }
    };
    for (kind, place, options) in MOUNTS {
        // Those of /sys are there, and cannot be made.
        let _ = fs::create_dir_all(place);
        said(place, mount(kind, place, kind, MountFlags::empty(), options));
    }
    for (place, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        said(place, rustix::fs::symlink(target, place));
    }
    said("host name", sethostname(b"guest"));
}

/// Does what the orders say.
fn work() -> Result<()> {
    let mut line = Line(fs::File::options().write(true).open(LINE).context("open the line")?);
    let read = fs::read(ORDERS).context("read the orders")?;
    let orders: Orders = serde_json::from_slice(&read).context("read the orders")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(1, Into::into);
    line.say(&Message::Booted { release: release.clone(), cpus })?;
    if let Err(error) = connect(&release) {
        line.say(&Message::Trouble { text: format!("{error:#}") })?;
    }
    std::env::set_current_dir("/root").context("enter /root")?;
    let doctor = Command::new(&orders.tcpwatch).arg("doctor").output().context("run tcpwatch")?;
    line.say(&Message::Doctor {
        code: doctor.status.code(),
        text: String::from_utf8_lossy(&doctor.stdout).into_owned(),
    })?;
    let watch = ["-q", "--duration", "100ms"];
    let watch = Command::new(&orders.tcpwatch).args(watch).output().context("run tcpwatch")?;
    line.say(&Message::Watch {
        code: watch.status.code(),
        stderr: String::from_utf8_lossy(&watch.stderr).into_owned(),
    })?;
    if watch.status.success() {
        test(&orders, &mut line)?;
    }
    line.say(&Message::Done)
}

/// Loopback, and what `ss` asks.
fn connect(release: &str) -> Result<()> {
    crate::exec(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let modules = (0..).map(|number| module(release, number));
    for path in modules.take_while(|path| Path::new(path).exists()) {
        let file = fs::File::open(&path).with_context(|| format!("open {path}"))?;
        finit_module(file, c"", 0).with_context(|| format!("load {path}"))?;
    }
    Ok(())
}

fn test(orders: &Orders, line: &mut Line) -> Result<()> {
    let mut tests = Command::new(&orders.tests)
        .args(&orders.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run the tests")?;
    let output = tests.stdout.take().context("take their output")?;
    for text in BufReader::new(output).split(b'\n') {
        let text = String::from_utf8_lossy(&text.context("read their output")?).into_owned();
        line.say(&Message::Test { line: text })?;
    }
    let code = tests.wait().context("wait for the tests")?.code();
    line.say(&Message::Tested { code })
}

/// The line to whoever started the guest.
struct Line(fs::File);

impl Line {
    fn say(&mut self, message: &Message) -> Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        self.0.write_all(&text).context("write to the line")
    }
}
