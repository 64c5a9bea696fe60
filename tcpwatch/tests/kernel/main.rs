//! tcpwatch against the real kernel: real sockets in network namespaces of their own.
//!
//! Without the privilege to load BPF programs the tests show as ignored, never as passed.
//! Nothing here sleeps to wait for tcpwatch: its output is awaited line by line.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod cost;
mod errors;
mod findings;
mod leaks;
mod owners;
mod peers;
mod transitions;
mod watch;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let allowed =
        tcpwatch::kernel::privilege::missing().is_none() && rustix::process::geteuid().is_root();
    let trials = [
        transitions::tests(),
        findings::tests(),
        owners::tests(),
        errors::tests(),
        leaks::tests(),
        cost::tests(),
    ]
    .into_iter()
    .flatten()
    .map(|test| {
        Trial::test(test.name, move || run(test.body))
            .with_ignored_flag(!allowed || !(test.possible)())
    })
    .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test and whether this machine can run it.
struct Test {
    name: &'static str,
    body: fn(),
    possible: fn() -> bool,
}

impl Test {
    fn new(name: &'static str, body: fn()) -> Self {
        Self { name, body, possible: || true }
    }

    /// Shown as ignored where it is not possible.
    fn only_if(self, possible: fn() -> bool) -> Self {
        Self { possible, ..self }
    }
}

/// Each test gets a thread in a fresh network namespace.
fn run(body: fn()) -> Result<(), Failed> {
    let thread = std::thread::spawn(move || {
        peers::enter_new_namespace();
        body();
    });
    thread.join().map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panicked");
        Failed::from(text)
    })
}
