//! What `w` writes.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use tcpwatch::top::{
    app::{Action, Key},
    save,
};

use super::{Person, around, screens::leak};

#[test]
fn findings_are_written_to_a_new_file_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("findings.jsonl");
    let model = leak();
    let findings = model.listed(&tcpwatch::top::snapshot::Query::default());
    let written = save::write(&path, &findings, model.clock(), model.now()).unwrap();
    assert_eq!(written, path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 20);
    for (number, line) in (0..).zip(&lines) {
        assert_eq!(line["type"], "finding");
        // As of now, not as they were told last.
        assert_eq!(line["mono_ns"], 60_000_000_000_u64);
        assert_eq!(line["linger_ns"], (60 - number) * 1_000_000_000_u64);
    }
    let error = save::write(&path, &findings, model.clock(), model.now()).unwrap_err();
    assert!(format!("{error:#}").contains("File exists"), "{error:#}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "it stays as it was");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    assert!(save::write(&link, &findings, model.clock(), model.now()).is_err());
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn half_a_file_is_removed() {
    let findings = leak().listed(&tcpwatch::top::snapshot::Query::default());
    let model = leak();
    let full = std::path::Path::new("/dev/full");
    assert!(save::write(full, &findings, model.clock(), model.now()).is_err());
    assert!(full.exists(), "what was there is not removed");
}

#[test]
fn what_is_listed_is_what_is_written() {
    let mut person = Person::new(leak(), around(None), (80, 24));
    let count = |person: &Person<'_>| person.model.listed(&person.app.query()).len();
    assert_eq!(count(&person), 20);
    person.press(Key::Char('/'));
    "nobody".chars().for_each(|c| drop(person.press(Key::Char(c))));
    assert_eq!(count(&person), 0);
    person.press(Key::Escape);
    assert_eq!(count(&person), 20);
    person.press(Key::Enter);
    assert_eq!(count(&person), 20);
    person.press(Key::Enter);
    assert_eq!(count(&person), 1, "a story is of one");
    person.press(Key::Char('w'));
    person.press(Key::Ctrl('u'));
    "x.jsonl".chars().for_each(|c| drop(person.press(Key::Char(c))));
    assert_eq!(person.press(Key::Enter), Some(Action::Save("x.jsonl".into())));
}
