//! Everything comes and goes: listeners at addresses that are never used again, processes, network namespaces
//! and connections, while something always lingers. What is known of what is gone must go, too.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{Fault, Setting, figures::Figures, run::Run, soak::Growth};
use crate::{
    hold::Holder,
    load::{Churn, in_namespace},
    tool::{Background, now},
};

pub(super) const FAULT: Fault = Fault {
    name: "turnover",
    what: "listeners at addresses of their own, processes that leak, their network namespaces and connections come and go, thousands a second, with `-q`, which never looks at everything",
    seen: "memory that does not grow: resident memory in the last quarter is that of the second",
    seconds: 120,
    quick: None,
    run,
};

/// Listeners at a time.
const LISTENERS: u32 = 1_000;
/// How long they listen, and how often somebody else leaks.
const PAUSE: Duration = Duration::from_millis(250);
const CONNECTIONS_PER_SECOND: u32 = 500;
const SAMPLE: Duration = Duration::from_secs(1);
/// Fewer samples than this show nothing.
const LEAST: u64 = 40;

fn run(setting: &Setting) -> Result<Figures> {
    ensure!(setting.seconds >= LEAST, "shorter than {LEAST} s says nothing about growth");
    let run = Run::start_on_host(&["-q", "--linger", "1s"])?;
    // Something lingers all the time, so what lingers is looked at, and nothing else is.
    let holder = Holder::filled(0, 100, 100)?;
    let churn = Churn::start(Some(CONNECTIONS_PER_SECOND))?;
    let listeners = Background::start(listeners);
    let namespaces = Background::start(namespaces);
    let (start, mut memory) = (now(), Vec::new());
    while start.elapsed() < Duration::from_secs(setting.seconds) {
        thread::sleep(SAMPLE);
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        memory.push(run.tool.memory()? as f64);
    }
    let (listeners, namespaces) = (listeners.stop()?, namespaces.stop()?);
    let connections = churn.stop()?;
    holder.close()?;
    let (ledger, ended) = run.stop()?;
    ensure!(ended.stderr.is_empty(), "it says: {}", ended.stderr);
    ledger.is_consistent()?;
    let growth = Growth::of(&memory)?;
    growth.is_none("tcpwatch -q")?;
    Ok(Figures::default()
        .with("listeners", listeners)
        .with("processes and namespaces", namespaces)
        .with("connections", connections)
        .with("memory", growth))
}

/// Opens and closes listeners, each at another address, until it is over; says how many.
fn listeners(over: &AtomicBool) -> Result<u32> {
    let mut count: u32 = 0;
    while !over.load(Relaxed) {
        let mut open = Vec::new();
        for _ in 0..LISTENERS {
            // Not those of loads and holders, which are 127.0 to 127.3.
            let [_, a, b, c] = count.to_be_bytes();
            open.push(TcpListener::bind((Ipv4Addr::new(127, 4 + a % 250, b, c), 0))?);
            count += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(count)
}

/// Has a process leak in a network namespace of its own and die, again and again; says how often.
fn namespaces(over: &AtomicBool) -> Result<u32> {
    let mut count = 0;
    while !over.load(Relaxed) {
        in_namespace(|| {
            let holder = Holder::filled(u16::try_from(count % 60_000)?, 3, 3)?;
            // Nobody accepts this one.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            drop(TcpStream::connect(listener.local_addr()?)?);
            thread::sleep(PAUSE * 6);
            holder.kill()
        })?;
        count += 1;
    }
    Ok(count)
}
