//! Every offline command on every trace in `tests/traces`: drop a file in, get the tests.
//!
//! What people read is compared with `NAME.txt` beside the trace; `UPDATE_TRACES=1 cargo test --test
//! traces` writes it anew, and the difference is to be looked at.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

type Check = fn(&Path) -> Result<(), Failed>;

const CHECKS: [(&str, Check); 8] = [
    ("reads_as_expected", reads_as_expected),
    ("is_replayed_whole", is_replayed_whole),
    ("is_reported_as_replayed", is_reported_as_replayed),
    ("does_not_differ_from_itself", does_not_differ_from_itself),
    ("is_exported_whole", is_exported_whole),
    ("has_parts", has_parts),
    ("has_a_page_that_needs_nothing", has_a_page_that_needs_nothing),
    ("has_a_page_that_says_the_same", has_a_page_that_says_the_same),
];

fn main() {
    let arguments = Arguments::from_args();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut traces: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tcpw"))
        .collect();
    traces.sort();
    assert!(!traces.is_empty(), "there are traces");
    let mut trials: Vec<_> = traces
        .iter()
        .flat_map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy();
            CHECKS.map(|(check, body)| {
                let path = path.clone();
                Trial::test(format!("{name}_{check}"), move || body(&path))
            })
        })
        .collect();
    trials.push(Trial::test("every_verb_takes_a_directory", every_verb_takes_a_directory));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs in the traces' directory, so that messages name files and not places.
fn tcpwatch(args: &[&str], trace: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(args)
        .arg(trace.file_name().unwrap())
        .current_dir(trace.parent().unwrap())
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

/// A directory stands for the trace files in it; what is none is said and left out.
fn every_verb_takes_a_directory() -> Result<(), Failed> {
    let dir = tempfile::tempdir().unwrap();
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let recordings = dir.path().join("box");
    fs::create_dir(&recordings).unwrap();
    fs::copy(traces.join("shop.tcpw"), recordings.join("shop.tcpw")).unwrap();
    fs::write(recordings.join("notes.txt"), "none of these").unwrap();
    let table = dir.path().join("out.parquet");
    let page = dir.path().join("out.html");
    let verbs: [&[&str]; 7] = [
        &["info"],
        &["replay"],
        &["report"],
        &["report", "--html", page.to_str().unwrap()],
        &["diff", recordings.to_str().unwrap()],
        &["export", "--to", "parquet", "-o", table.to_str().unwrap()],
        &["top", "--frame", "100x30", "--replay"],
    ];
    for verb in verbs {
        let one = tcpwatch(verb, &recordings.join("shop.tcpw"));
        // A page is never written over another.
        let _ = fs::remove_file(&page);
        let all = tcpwatch(verb, &recordings);
        if !all.status.success() || !all.stderr.is_empty() {
            return Err(format!("{verb:?}: {all:?}").into());
        }
        let named =
            |output: &[u8]| String::from_utf8_lossy(output).replace("box/shop.tcpw", "shop.tcpw");
        assert_eq!(named(&all.stdout), named(&one.stdout), "{verb:?}");
    }
    fs::write(recordings.join("bad.tcpw"), "no trace").unwrap();
    let all = tcpwatch(&["info"], &recordings);
    let said = String::from_utf8_lossy(&all.stderr);
    assert!(
        all.status.success() && said.contains("bad.tcpw") && said.contains("left out"),
        "{said}"
    );
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let none = tcpwatch(&["info"], &empty);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no trace file"));
    Ok(())
}

fn text(args: &[&str], trace: &Path) -> Result<String, Failed> {
    let output = tcpwatch(args, trace);
    if !output.status.success() {
        return Err(format!("{args:?}: {output:?}").into());
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

fn json(args: &[&str], trace: &Path) -> Result<Value, Failed> {
    Ok(serde_json::from_str(&text(args, trace)?).unwrap())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), Failed> {
    if got == expected {
        Ok(())
    } else {
        Err(format!("{what}: got {got:?}, expected {expected:?}").into())
    }
}

/// What people see of it.
fn reads_as_expected(trace: &Path) -> Result<(), Failed> {
    let mut all = String::new();
    for args in [&["info"][..], &["replay", "-q"], &["report"]] {
        let output = tcpwatch(args, trace);
        let _ =
            writeln!(all, "$ tcpwatch {} {}", args.join(" "), trace.file_name().unwrap().display());
        for part in [output.stdout, output.stderr] {
            all += &String::from_utf8(part).unwrap();
        }
        let _ = writeln!(all, "exit code {}\n", output.status.code().unwrap());
    }
    let file = trace.with_extension("txt");
    if std::env::var_os("UPDATE_TRACES").is_some() {
        fs::write(&file, &all).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    let differs = all.lines().zip(expected.lines()).find(|(got, expected)| got != expected);
    if all == expected {
        Ok(())
    } else {
        Err(format!("{} differs, first in {differs:?}:\n{all}", file.display()).into())
    }
}

fn is_replayed_whole(trace: &Path) -> Result<(), Failed> {
    let info = json(&["info", "-j"], trace)?;
    let replay = text(&["replay", "-j"], trace)?;
    let lines: Vec<Value> =
        replay.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let transitions = lines.iter().filter(|line| line["type"] == "transition").count() as u64;
    same("transitions", &transitions, &number(&info["transitions"]))?;
    let summary = lines.last().unwrap();
    same("summary", &number(&summary["transitions"]), &transitions)?;
    let lost = number(&info["lost"]) + number(&info["missing"]);
    same("lost", &number(&summary["lost"]), &lost)
}

fn is_reported_as_replayed(trace: &Path) -> Result<(), Failed> {
    let report = json(&["report", "-j"], trace)?;
    let replay = text(&["replay", "-j"], trace)?;
    let lines: Vec<Value> =
        replay.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |wanted: &dyn Fn(&Value) -> bool| lines.iter().filter(|l| wanted(l)).count() as u64;
    let summary = lines.last().unwrap();
    same(
        "transitions",
        &number(&report["totals"]["transitions"]),
        &number(&summary["transitions"]),
    )?;
    same("lost", &number(&report["gaps"]["lost"]), &number(&summary["lost"]))?;
    let opened =
        count(&|l| l["type"] == "transition" && (l["new"] == "SYN_SENT" || l["new"] == "SYN_RECV"));
    same("opened", &number(&report["totals"]["opened"]), &opened)?;
    let findings = count(&|l| l["type"] == "finding" && l["status"] == "open");
    same("findings", &number(&report["totals"]["findings"]), &findings)
}

fn does_not_differ_from_itself(trace: &Path) -> Result<(), Failed> {
    let name = trace.file_name().unwrap().to_str().unwrap();
    let output = tcpwatch(&["diff", "--fail-on-leak", name], trace);
    same("exit code", &output.status.code(), &Some(0))?;
    let said = String::from_utf8(output.stdout).unwrap();
    same("worse", &said.contains("Worse"), &false)
}

fn is_exported_whole(trace: &Path) -> Result<(), Failed> {
    let transitions = number(&json(&["info", "-j"], trace)?["transitions"]);
    let export = |format| tcpwatch(&["export", "--to", format, "-o", "-"], trace).stdout;
    let lines = |bytes: Vec<u8>, word: &str| {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter(|line| line.contains(word)).count() as u64
    };
    same("jsonl", &lines(export("jsonl"), "{\"type\":\"transition\""), &transitions)?;
    same("csv", &lines(export("csv"), "transition,"), &transitions)?;
    let parquet = export("parquet");
    same("parquet", &(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1")), &true)?;
    same("perfetto", &export("perfetto").is_empty(), &false)
}

/// Two halves have all of it; what is outside is refused.
fn has_parts(trace: &Path) -> Result<(), Failed> {
    let count = |args: &[&str]| -> Result<u64, Failed> {
        let lines = text(&[&["replay", "-j"], args].concat(), trace)?;
        Ok(number(
            &serde_json::from_str::<Value>(lines.lines().last().unwrap()).unwrap()["transitions"],
        ))
    };
    let all = count(&[])?;
    let (first, second) = (count(&["--until", "+700ms"])?, count(&["--from", "+700ms"])?);
    same("both halves", &(first + second), &all)?;
    let outside = tcpwatch(&["replay", "--from", "+1h"], trace);
    same("exit code", &outside.status.code(), &Some(2))?;
    let said = String::from_utf8(outside.stderr).unwrap();
    same("a reason", &said.contains("nothing was recorded between"), &true)
}

/// What is between two texts, the first time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let from = text.find(before).unwrap_or_else(|| panic!("{before} is missing")) + before.len();
    &text[from..][..text[from..].find(after).unwrap_or_else(|| panic!("{after} is missing"))]
}

/// One small file, well formed, that lets nothing run but its own script and loads nothing.
fn has_a_page_that_needs_nothing(trace: &Path) -> Result<(), Failed> {
    let page = text(&["report", "--html", "-"], trace)?;
    same("small", &(page.len() < 3_000_000), &true)?;
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
        .args(["report", "--html", "-"])
        .arg(trace)
        .env("TZ", "Asia/Tokyo")
        .output()
        .unwrap();
    same(
        "the same from another place and in another zone",
        &elsewhere.stdout.as_slice(),
        &page.as_bytes(),
    )?;
    let policy = between(&page, "http-equiv=\"Content-Security-Policy\" content=\"", "\"");
    let hash = |part: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(part)));
    let style = between(&page, "<style>", "</style>");
    let script = between(&page, "<script type=\"module\">", "</script>");
    for part in [
        "default-src 'none'".to_owned(),
        format!("style-src {};", hash(style)),
        format!("script-src {};", hash(script)),
    ] {
        same(&part, &policy.contains(&part), &true)?;
    }
    same("unsafe-inline", &policy.contains("unsafe"), &false)?;
    let markup = page.replace(style, "").replace(script, "");
    for way_out in [" src=", "http://", "https://", "@import", "url("] {
        // The name space of SVG is an address, and nobody goes there.
        let used = markup.replace("http://www.w3.org/2000/svg", "").contains(way_out);
        same(way_out, &used, &false)?;
    }
    same("hrefs", &markup.matches("href=").count(), &1)?;
    is_balanced(&markup)
}

/// Every element that is opened is closed, in order.
fn is_balanced(markup: &str) -> Result<(), Failed> {
    const VOID: [&str; 6] = ["!doctype", "meta", "link", "br", "img", "input"];
    let mut open: Vec<&str> = Vec::new();
    for tag in markup.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').ok_or("a tag does not end")?;
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            same("the element that ends", &Some(name), &open.pop())?;
        } else if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    same("left open", &open, &Vec::new())
}

/// The page has the words of the text and the numbers of the JSON.
fn has_a_page_that_says_the_same(trace: &Path) -> Result<(), Failed> {
    let page = text(&["report", "--html", "-"], trace)?;
    let read = |id| serde_json::from_str::<Value>(between(&page, id, "</script>")).unwrap();
    let (data, findings) = (read("id=\"data\">"), read("id=\"findings\">"));
    let report = json(&["report", "-j"], trace)?;
    for field in ["totals", "rates", "spreads", "duration_ns", "linger_ns"] {
        same(field, &data[field], &report[field])?;
    }
    for field in ["lost", "count", "unknown", "first"] {
        same(field, &data["gaps"][field], &report["gaps"][field])?;
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for part in ["culprits", "groups"] {
        same(part, &list(&data[part]).len(), &list(&report[part]).len())?;
    }
    for (shown, culprit) in list(&data["culprits"]).iter().zip(list(&report["culprits"])) {
        for field in ["opened", "open", "longest_ns"] {
            same(field, &shown[field], &culprit[field])?;
        }
        same("example", &shown["example"], &culprit["example"]["summary"])?;
    }
    for (shown, group) in list(&data["groups"]).iter().zip(list(&report["groups"])) {
        for field in ["opened", "closed", "failed", "lifetime", "close_wait", "close_wait_now"] {
            same(field, &shown[field], &group[field])?;
        }
    }
    for field in ["opened", "closed"] {
        let sum: u64 = list(&data["timeline"][field]).iter().map(number).sum();
        same(field, &sum, &number(&report["totals"][field]))?;
    }
    same("findings", &(list(&findings).len() as u64), &number(&report["totals"]["findings"]))?;
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = plain(&text(&["report"], trace)?);
    for words in ["happened", "traffic"] {
        let words = plain(data["story"][words].as_str().unwrap());
        same(&words, &said.contains(&words), &true)?;
    }
    Ok(())
}
