//! That clippy refuses in `tcpwatch-core` what would read a clock, a file, a socket or the environment.

use std::{fs, process::Command};

use crate::root;

const REACHES_OUT: [&str; 14] = [
    "pub fn f() -> std::io::Result<Vec<u8>> { std::fs::read(\"x\") }",
    "use std as s; pub fn f() -> s::io::Result<Vec<u8>> { s::fs::read(\"x\") }",
    "use std::{fs::{self, File}}; pub fn f() -> std::io::Result<File> { fs::File::open(\"x\") }",
    "use std::time::Instant as Moment; pub fn f() -> Moment { Moment::now() }",
    "use std::time; pub fn f() -> u64 { time::Instant::now().elapsed().as_secs() }",
    "use std::{time as t}; pub fn f() { let _ = t::SystemTime::now(); }",
    "use std::io; pub fn f() -> impl io::Write { io::stdout() }",
    "pub fn f() -> bool { ::std::env::var(\"x\").is_ok() }",
    "pub fn f() -> Vec<std::process::Command> { Vec::new() }",
    "pub type T = std::net::UdpSocket;",
    "pub fn f() -> bool { std::path::Path::new(\"x\").exists() }",
    "pub fn f() { std::thread::spawn(|| ()); }",
    "pub fn f() { println!(\"x\"); }",
    "macro_rules! m { () => { std::fs::read(\"x\") } } pub fn f() -> bool { m!().is_ok() }",
];

const COMPUTES: [&str; 3] = [
    "use std::{collections::BTreeMap, net::SocketAddr}; pub type T = BTreeMap<u8, SocketAddr>;",
    "pub fn f(d: std::time::Duration) -> u64 { d.as_secs() }",
    "/// See `std::fs`.\npub fn f() -> &'static str { \"std::fs\" }",
];

/// Whether clippy passes this as part of the core.
fn passes(text: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lib.rs");
    fs::write(&file, text).unwrap();
    let mut clippy = Command::new("clippy-driver");
    clippy.args([
        "--crate-type",
        "lib",
        "--edition",
        "2024",
        "--emit",
        "metadata",
        "-D",
        "warnings",
    ]);
    clippy.arg(&file).arg("--out-dir").arg(dir.path());
    let output = clippy.env("CLIPPY_CONF_DIR", root().join("tcpwatch-core")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let refused = said.contains("disallowed");
    assert!(output.status.success() || refused, "{text}: {said}");
    !refused
}

#[test]
fn whatever_reaches_out_is_refused() {
    let passed: Vec<_> = REACHES_OUT.into_iter().filter(|text| passes(text)).collect();
    assert!(passed.is_empty(), "{passed:#?}");
}

#[test]
fn what_only_computes_passes() {
    for text in COMPUTES {
        assert!(passes(text), "{text}");
    }
}
