//! The journal: a datagram socket that stands for it.

use std::{
    collections::BTreeMap,
    io,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    process::{Command, Stdio},
    time::Duration,
};

use super::{LINGER, leak, us};
use crate::watch::{Watch, namespace};

fn receive(journal: &UnixDatagram) -> io::Result<BTreeMap<String, String>> {
    let mut entry = vec![0; 65_536];
    let length = journal.recv(&mut entry)?;
    let text = String::from_utf8(entry[..length].to_vec()).unwrap();
    let pairs = text.lines().map(|line| line.split_once('=').unwrap());
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn journal() -> (tempfile::TempDir, String, UnixDatagram) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket").to_str().unwrap().to_owned();
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (directory, path, journal)
}

pub(super) fn fields() {
    let (_directory, path, journal) = journal();
    let flags = [&LINGER[..], &["--journal", "on", "--journal-socket", &path]].concat();
    let mut watch = Watch::start(&flags);
    let server = leak(1);
    let finding = watch.finding("open");
    let entry = receive(&journal).unwrap();
    let get = |name: &str| entry.get(name).map(String::as_str);
    assert_eq!(get("MESSAGE"), finding["summary"].as_str());
    assert_eq!((get("PRIORITY"), get("SYSLOG_IDENTIFIER")), (Some("4"), Some("tcpwatch")));
    assert_eq!(get("MESSAGE_ID").unwrap().len(), 32);
    assert_eq!(get("TCPWATCH_VERDICT"), finding["verdict"].as_str());
    assert_eq!(get("TCPWATCH_PID"), Some(us().to_string().as_str()));
    assert_eq!(get("TCPWATCH_TIME"), finding["ts"].as_str());
    drop(server);
    while receive(&journal).unwrap()["TCPWATCH_STATUS"] != "ended" {}
    assert!(watch.stop().stderr.is_empty());
}

pub(super) fn stream() {
    let (_directory, path, journal) = journal();
    let server = leak(1);
    let stderr = tempfile::tempfile().unwrap();
    let meta = stderr.metadata().unwrap();
    let ours = format!("{}:{}", meta.dev(), meta.ino());
    let run = |stream: &str| {
        let status = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
            .args(
                [&LINGER[..], &["-N", &namespace(), "-d", "1s", "--journal-socket", &path]]
                    .concat(),
            )
            .env("JOURNAL_STREAM", stream)
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap())
            .status();
        assert!(status.unwrap().success());
    };
    run(&ours);
    assert_eq!(receive(&journal).unwrap()["TCPWATCH_STATUS"], "open");
    journal.set_nonblocking(true).unwrap();
    while receive(&journal).is_ok() {}
    run("1:1");
    assert_eq!(receive(&journal).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(server);
}
