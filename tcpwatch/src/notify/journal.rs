//! Findings as entries of the systemd journal, each with fields of its own.
//!
//! The protocol is a datagram per entry: lines of `NAME=value`, and a length where a value has lines of
//! its own. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixDatagram, time::timeout};

use super::{
    notice::{Notice, Severity},
    queue::Inbox,
};
use crate::cli::Journal;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// What entries of this kind have in common: `journalctl MESSAGE_ID=…`.
const MESSAGE_ID: &str = "c20bef3e0a9c4c1db849bf4f3f1b4232";
/// How long the journal may leave an entry waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether findings go there.
pub(super) fn is_wanted(journal: Journal) -> bool {
    match journal {
        Journal::On => true,
        Journal::Off => false,
        Journal::Auto => {
            let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
            std::fs::metadata("/proc/self/fd/2")
                .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
        }
    }
}

/// Sends what comes until nothing more does.
pub(super) async fn run(mut inbox: Inbox, path: PathBuf) {
    let mut journal = None;
    while let Some(notice) = inbox.next().await {
        let entry = entry(&notice);
        match timeout(PATIENCE, send(&mut journal, &path, &entry)).await {
            Ok(Ok(())) => inbox.tally.delivered(1),
            Ok(Err(error)) => inbox.warn(&format!("{}: {error}", crate::core::comm::shown(&path))),
            Err(_) => inbox.warn(&format!("{} takes no entry", crate::core::comm::shown(&path))),
        }
    }
}

/// Sends it, once more if the journal was started anew since the last one.
async fn send(journal: &mut Option<UnixDatagram>, path: &Path, entry: &[u8]) -> io::Result<()> {
    if let Some(socket) = journal.take()
        && socket.send(entry).await.is_ok()
    {
        *journal = Some(socket);
        return Ok(());
    }
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.send(entry).await?;
    *journal = Some(socket);
    Ok(())
}

fn entry(notice: &Notice) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2048);
    let priority = match notice.severity() {
        Severity::Error => "3",
        Severity::Warning => "4",
        Severity::Info => "6",
    };
    field(&mut entry, "MESSAGE", &notice.summary());
    field(&mut entry, "PRIORITY", priority);
    field(&mut entry, "MESSAGE_ID", MESSAGE_ID);
    field(&mut entry, "SYSLOG_IDENTIFIER", "tcpwatch");
    for (name, value) in notice.fields() {
        field(&mut entry, name, &value);
    }
    entry
}

fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_lines_cannot_make_a_field() {
        let mut entry = Vec::new();
        field(&mut entry, "A", "1\nPRIORITY=0");
        field(&mut entry, "B", "2");
        assert_eq!(entry, b"A\n\x0c\0\0\0\0\0\0\x001\nPRIORITY=0\nB=2\n");
    }
}
