//! Files that the user names: who opens them, and who may read what tcpwatch writes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    Test,
    privileges::{Place, said},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("what_the_user_names_is_opened_without_privileges", outputs),
        Test::new("recordings_are_opened_before_privileges_are_given_up", inputs),
        Test::new("what_is_written_is_for_its_owner_only", modes),
    ]
}

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/shop.tcpw");

fn tcpwatch(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch")).args(flags).output().unwrap()
}

/// Every way to write a file: flags, with `OUT` for its name.
const OUTPUTS: [&[&str]; 10] = [
    &["record", "-o", "OUT", "-d", "100ms"],
    &["record", "-o", "OUT", "-d", "100ms", "--rotate-every", "1h"],
    &["-q", "--record", "OUT", "-d", "100ms"],
    &["-q", "--ready-file", "OUT", "-d", "100ms"],
    &["run", "-o", "OUT", "--", "true"],
    &["run", "--record", "OUT", "--", "true"],
    &["export", TRACE, "--to", "csv", "-o", "OUT"],
    &["export", TRACE, "--to", "parquet", "-o", "OUT"],
    &["export", TRACE, "--to", "perfetto", "-o", "OUT"],
    &["export", TRACE, "--to", "parquet", "--partition", "-o", "OUT"],
];

/// The flags with a name in them.
fn to<'a>(flags: &[&'a str], name: &'a str) -> Vec<&'a str> {
    flags.iter().map(|&flag| if flag == "OUT" { name } else { flag }).collect()
}

/// Root's own right to write everywhere is gone by the time an output is opened.
fn outputs() {
    let place = Place::new();
    let theirs = place.of_another();
    let output = theirs.join("output");
    let name = output.to_str().unwrap();
    for flags in OUTPUTS {
        let done = tcpwatch(&to(flags, name));
        let said = said(&done);
        assert_eq!(done.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains("user 65534 owns") && said.contains(name), "{flags:?}: {said}");
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0, "{flags:?}");
    }
    // A file that is there is not touched either.
    fs::write(&output, "before").unwrap();
    chown(&output, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&output, fs::Permissions::from_mode(0o644)).unwrap();
    let done = tcpwatch(&["run", "-o", name, "--", "true"]);
    assert_eq!((done.status.code(), fs::read(&output).unwrap()), (Some(2), b"before".to_vec()));
}

/// Root reads what it may, wherever that is: files are opened first.
fn inputs() {
    let place = Place::new();
    let theirs = place.of_another();
    let (a, b) = (theirs.join("a.tcpw"), theirs.join("b.tcpw"));
    for path in [&a, &b] {
        fs::copy(TRACE, path).unwrap();
        chown(path, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    let [a, b] = [&a, &b].map(|path| path.to_str().unwrap());
    for flags in [
        &["replay", "--from", "+1s", a][..],
        &["report", a],
        &["diff", a, b],
        &["info", a, b],
        &["export", "--to", "jsonl", "-o", "-", a],
    ] {
        let done = tcpwatch(flags);
        assert!(done.status.success() && !done.stdout.is_empty(), "{flags:?}: {}", said(&done));
    }
    let done = Place::as_nobody("", &place.program, &["info", a]);
    assert!(done.status.success(), "{}", said(&done));
}

/// Files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Whatever the caller's umask.
fn modes() {
    for flags in OUTPUTS {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("output");
        let done = Command::new("sh")
            .args(["-c", "umask 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tcpwatch")])
            .args(to(flags, output.to_str().unwrap()))
            .output()
            .unwrap();
        assert!(done.status.success(), "{flags:?}: {}", said(&done));
        let written = files(dir.path());
        assert!(!written.is_empty(), "{flags:?}");
        for path in written {
            let mode = fs::metadata(&path).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{flags:?}");
        }
    }
}
