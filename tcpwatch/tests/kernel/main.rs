//! tcpwatch against the real kernel: real sockets in network namespaces of their own.
//!
//! Without the privilege to load BPF programs the tests show as ignored, never as passed.
//! Nothing here sleeps to wait for tcpwatch: its output is awaited line by line.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod accept;
mod cost;
mod errors;
mod evidence;
mod files;
mod findings;
mod gaps;
#[path = "../export/harmless.rs"]
mod harmless;
mod holders;
mod hostile;
mod leaks;
mod notify;
mod odd;
mod owners;
mod peers;
mod privileges;
mod queues;
mod real;
mod record;
mod run;
mod serve;
#[path = "../screen/tmux.rs"]
mod tmux;
mod top;
mod transitions;
mod watch;

use std::{
    fmt,
    process::{Command, Stdio},
};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let mut tests = tests();
    if let Some(name) = std::env::var_os(ONE) {
        tests.retain(|test| name == test.name);
        return tests.iter().for_each(|test| run(test.body));
    }
    let arguments = Arguments::from_args();
    let allowed =
        tcpwatch::kernel::privilege::missing().is_none() && rustix::process::geteuid().is_root();
    let trial = |test: Test| {
        let missing = test.needs.into_iter().find(|need| allowed && !need.is_met());
        Trial::test(test.name, move || run_apart(test.name))
            .with_ignored_flag(!allowed || missing.is_some() || !(test.possible)())
            .with_kind(missing.map_or_else(String::new, |need| format!("needs {need}")))
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit();
}

/// Names the one test that this process runs.
const ONE: &str = "TCPWATCH_KERNEL_TEST";

fn tests() -> Vec<Test> {
    [
        transitions::tests(),
        findings::tests(),
        owners::tests(),
        accept::tests(),
        errors::tests(),
        privileges::tests(),
        files::tests(),
        leaks::tests(),
        cost::tests(),
        gaps::tests(),
        queues::tests(),
        real::tests(),
        evidence::tests(),
        run::tests(),
        record::tests(),
        odd::tests(),
        hostile::tests(),
        holders::tests(),
        top::tests(),
        notify::tests(),
        serve::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A test and whether this machine can run it.
struct Test {
    name: &'static str,
    body: fn(),
    possible: fn() -> bool,
    needs: Vec<Need>,
}

impl Test {
    fn new(name: &'static str, body: fn()) -> Self {
        Self { name, body, possible: || true, needs: Vec::new() }
    }

    /// Shown as ignored where it is not possible.
    fn only_if(self, possible: fn() -> bool) -> Self {
        Self { possible, ..self }
    }

    /// Shown as ignored, with the reason, where a program is not installed.
    fn needs(mut self, program: &'static str) -> Self {
        self.needs.push(Need::Program(program));
        self
    }

    /// The same for something that not every kernel allows.
    fn needs_kernel(mut self, what: &'static str, allows: fn() -> bool) -> Self {
        self.needs.push(Need::Kernel(what, allows));
        self
    }

    /// The same for a module of Debian's Python.
    fn needs_module(mut self, module: &'static str) -> Self {
        self.needs.push(Need::Module(module));
        self
    }
}

/// What a test needs of the machine.
enum Need {
    Kernel(&'static str, fn() -> bool),
    Program(&'static str),
    Module(&'static str),
}

impl Need {
    fn is_met(&self) -> bool {
        let mut command = match self {
            Self::Kernel(_, allows) => return allows(),
            Self::Program(program) => {
                let mut command = Command::new("sh");
                command.args(["-c", "command -v \"$0\"", program]);
                command
            }
            Self::Module(module) => {
                let mut command = Command::new(real::PYTHON);
                command.args(["-c", &format!("import {module}")]);
                command
            }
        };
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(what, _) => write!(f, "{what}"),
            Self::Program(program) => write!(f, "{program}"),
            Self::Module(module) => write!(f, "{} with {module}", real::PYTHON),
        }
    }
}

/// Runs a test in a process of its own: whatever another test starts would have this one's descriptors
/// for a moment, and could be the one that closes a connection.
fn run_apart(name: &str) -> Result<(), Failed> {
    let status = Command::new(std::env::current_exe()?).env(ONE, name).status()?;
    status.success().then_some(()).ok_or_else(|| format!("{status}, see above").into())
}

/// Runs it on a thread in a fresh network namespace; its panic ends the process.
fn run(body: fn()) {
    let thread = std::thread::spawn(move || {
        peers::enter_new_namespace();
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
