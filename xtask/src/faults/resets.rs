//! Connections that linger are reset by their peers; some of their descriptors stay open.

use std::{
    io::Write as _,
    net::{Ipv4Addr, Shutdown, TcpListener},
    process::id,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Fault, Setting, figures::Figures, run::Run};
use crate::load::{pair, quiet};

pub(super) const FAULT: Fault = Fault {
    name: "resets",
    what: "connections that linger are reset by their peers",
    seen: "`dead-fd` for those whose descriptor stays open, ended by `fd-closed`; those that are closed at once end as `reset`",
    seconds: 2,
    quick: None,
    run,
};

/// Of each kind.
const EACH: usize = 100;

fn run(setting: &Setting) -> Result<Figures> {
    let run = Run::start(&["--linger", "500ms"])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..2 * EACH {
        let (client, mut server) = pair(&listener, listener.local_addr()?)?;
        client.shutdown(Shutdown::Write)?;
        // Who closes with this unread resets the connection.
        server.write_all(b"unread")?;
        clients.push(client);
        servers.push(server);
    }
    let pause = Duration::from_secs(setting.seconds);
    thread::sleep(pause);
    drop(clients);
    drop(servers.split_off(EACH));
    thread::sleep(pause);
    drop((servers, listener));
    quiet(0)?;
    thread::sleep(pause);
    let (ledger, _) = run.stop()?;
    ledger.is_complete(ledger.transitions)?;
    let opened = ledger.count_of("open");
    ensure!(opened == 2 * EACH as u64, "{opened} findings");
    let dead =
        ledger.findings.iter().filter(|f| f["verdict"] == "dead-fd" && f["status"] == "still");
    let mut dead_fds = 0;
    for finding in dead {
        ensure!(finding["holders"][0]["pid"] == id(), "another holds it: {finding}");
        dead_fds += 1;
    }
    ensure!(dead_fds >= EACH, "{dead_fds} dead descriptors");
    let ended =
        |how: &str| ledger.with_status("ended").filter(|f| f["ended"]["how"] == *how).count();
    let (closed, reset) = (ended("fd-closed"), ended("reset"));
    ensure!((closed, reset) == (EACH, EACH), "{closed} ended as fd-closed and {reset} as reset");
    let now = &ledger.summary()?["now"];
    ensure!(*now == json!({}), "the table is wrong: {now}");
    Ok(Figures::default().with("dead descriptors", EACH).with("only reset", EACH))
}
