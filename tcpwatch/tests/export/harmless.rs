//! Texts that others may choose, and what must not come through of them, in any format.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The first fifteen bytes of each are a process's name, too.
pub(crate) const HOSTILE: [&[u8]; 12] = [
    b"\x1b[2J\x1b[31mowned",
    b"\x1b]0;title\x07",
    b"a\ntcpwatch: forged line",
    b"b\rtcpwatch: forged line",
    b"\xff\xfe\x80 no UTF-8",
    "\u{9b}31mC1".as_bytes(),
    "\u{202e}gpj.exe\u{2066}".as_bytes(),
    "\u{200b}\u{feff}\u{2028}\u{e0041}".as_bytes(),
    b"\x7f\x08\x08\x08\t\x0b",
    b"=1+1|'/C x'!A0",
    b"@\",;\\\\' \"\" \\",
    b"-<img src=x>&amp;",
];

/// A directory with that name, as far as a name can be that.
pub(crate) fn directory(parent: &Path, text: &[u8]) -> PathBuf {
    let name: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'/').collect();
    let path = parent.join(OsStr::from_bytes(&name));
    std::fs::create_dir(&path).unwrap();
    path
}

/// What moves a cursor, hides, or turns text round.
fn does_harm(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// One line, or one value.
#[track_caller]
pub(crate) fn line(text: &str) {
    let found = text.chars().find(|&c| does_harm(c));
    assert!(found.is_none(), "{found:?} in {text:?}");
}

/// For people. What others chose begins no line.
#[track_caller]
pub(crate) fn human(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    for shown in text.lines() {
        line(shown);
        assert!(!shown.starts_with("tcpwatch: forged"), "{text}");
    }
}

/// JSON lines, or one object.
#[track_caller]
pub(crate) fn json(bytes: &[u8]) {
    human(bytes);
    let mut count = 0;
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        value.expect("JSON");
        count += 1;
    }
    assert!(count > 0, "no JSON at all");
}

/// CSV that no spreadsheet computes anything from.
#[track_caller]
pub(crate) fn csv(bytes: &[u8]) {
    human(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(bytes);
    let mut count = 0;
    for record in reader.records() {
        for field in &record.expect("as many fields as the header has") {
            assert!(!field.starts_with(['=', '+', '-', '@']), "{field}");
        }
        count += 1;
    }
    assert!(count > 0, "no row at all");
}
