//! A listener is closed whose queue is full of connections that nobody accepted.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::id,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Fault, Setting, figures::Figures, run::Run};
use crate::load::quiet;

pub(super) const FAULT: Fault = Fault {
    name: "queued-children",
    what: "a listener whose queue is full of connections in `CLOSE_WAIT` is closed",
    seen: "`never-accepted` with the listener, its holder and its queue; all end as `listener-closed`",
    seconds: 1,
    quick: None,
    run,
};

/// What the standard library asks the queue to hold.
const QUEUED: usize = 120;

fn run(setting: &Setting) -> Result<Figures> {
    let run = Run::start(&["--linger", "500ms"])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    for _ in 0..QUEUED {
        drop(TcpStream::connect(addr)?);
    }
    thread::sleep(Duration::from_secs(setting.seconds + 1));
    drop(listener);
    quiet(0)?;
    let (ledger, _) = run.stop()?;
    ledger.is_complete(ledger.transitions)?;
    let mut opened = 0;
    for finding in ledger.with_status("open") {
        opened += 1;
        ensure!(finding["verdict"] == "never-accepted", "it was not accepted: {finding}");
        let listener = &finding["listener"];
        ensure!(listener["local"]["port"] == addr.port(), "another listener: {finding}");
        ensure!(listener["holders"][0]["pid"] == id(), "another process listens: {finding}");
        ensure!(listener["queue_len"] == QUEUED, "another queue: {finding}");
    }
    ensure!(opened == QUEUED, "{opened} findings of {QUEUED}");
    let ended: Vec<_> = ledger.with_status("ended").collect();
    ensure!(ended.len() == QUEUED, "{} findings ended", ended.len());
    for finding in ended {
        ensure!(finding["ended"]["how"] == "listener-closed", "its listener closed: {finding}");
    }
    let now = &ledger.summary()?["now"];
    ensure!(*now == json!({}), "the table is wrong: {now}");
    Ok(Figures::default().with("found, and ended with their listener", QUEUED))
}
