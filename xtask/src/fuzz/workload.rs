//! A recording of real connections, for fuzzing to begin with.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{prepare, tool::tcpwatch};

/// Records connections on loopback, in a network namespace of its own; without root there is none.
pub(crate) fn record(path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("xtask: without a recording of this machine: that needs root");
        return Ok(());
    }
    prepare()?;
    let mut agent = tcpwatch()
        .args(["record", "--linger", "1s", "-d", "5", "-N", "/proc/self/ns/net", "--output"])
        .arg(path)
        .args(["--ready-file", "/dev/stdout"])
        .stdout(Stdio::piped())
        .spawn()
        .context("start tcpwatch")?;
    let mut ready = [0; 1];
    agent.stdout.take().context("talk to tcpwatch")?.read_exact(&mut ready)?;
    let held = connections()?;
    if !agent.wait()?.success() {
        bail!("tcpwatch could not record");
    }
    drop(held);
    Ok(())
}

/// Some that end as they should, and some that do not.
fn connections() -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for ip in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
        let listener = TcpListener::bind(ip)?;
        let addr = listener.local_addr()?;
        for number in 0..12 {
            let mut client = TcpStream::connect(addr)?;
            let (mut server, _) = listener.accept()?;
            client.write_all(b"question")?;
            match number % 4 {
                // The client goes first, and the server follows.
                0 => drop((client, server)),
                // It never closes, with something unread.
                1 => {
                    drop(client);
                    held.push(server);
                }
                // A deliberate half-close.
                2 => {
                    client.shutdown(Shutdown::Write)?;
                    server.read_to_end(&mut Vec::new())?;
                    held.extend([client, server]);
                }
                // Reset: what the client sent was not read.
                _ => drop((server, client)),
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        // Nobody accepts this one, and nobody listens there later.
        held.push(TcpStream::connect(addr)?);
        drop(listener);
        let _ = TcpStream::connect(addr);
    }
    Ok(held)
}
