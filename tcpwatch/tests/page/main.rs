//! The page of a report, in a real browser.
//!
//! Without Chromium the tests show as ignored, never as passed. What needs no browser is among the
//! tests of every trace (`traces.rs`).

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod browser;
mod charts;
mod crowd;
mod looks;
#[path = "../core/notation.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod notation;
mod table;

use std::{
    fs,
    panic::AssertUnwindSafe,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

use self::browser::Browser;

type Body = fn(&mut Page);

fn main() {
    let arguments = Arguments::from_args();
    let installed = browser::is_installed();
    let idle = Arc::new(Mutex::new(Vec::new()));
    let trials = [looks::tests(), charts::tests(), table::tests()]
        .into_iter()
        .flatten()
        .map(|(name, body)| {
            let idle = Arc::clone(&idle);
            Trial::test(name, move || run(&idle, body))
                .with_ignored_flag(!installed)
                .with_kind(if installed { "" } else { "needs chromium" })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // An exit would leave them running.
    idle.lock().unwrap().clear();
    conclusion.exit();
}

/// Browsers that nobody uses: to start one takes longer than most tests.
type Idle = Mutex<Vec<Page>>;

fn run(idle: &Idle, body: Body) -> Result<(), Failed> {
    let known = idle.lock().unwrap().pop();
    let page = known.map_or_else(Page::new, |mut page| page.browser.begin_anew().map(|()| page));
    let mut page = page.map_err(|error| format!("start the browser: {error:#}"))?;
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| body(&mut page)));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Failed::from(text.or_else(|| panic.downcast_ref().copied()).unwrap_or("panicked"))
    })?;
    idle.lock().unwrap().push(page);
    Ok(())
}

/// A browser, and where pages are.
struct Page {
    browser: Browser,
    directory: tempfile::TempDir,
}

impl Page {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let browser = Browser::start(&directory.path().join("profile"))?;
        Ok(Self { browser, directory })
    }

    /// Opens the page of a committed trace.
    fn of_trace(&mut self, name: &str) {
        let path = self.directory.path().join(format!("{name}.html"));
        let _ = fs::remove_file(&path);
        let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
        let output = Command::new(env!("CARGO_BIN_EXE_tcpwatch"))
            .args(["report", &format!("{name}.tcpw"), "--html"])
            .arg(&path)
            .current_dir(traces)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        self.browser.size(1280, 900, 1.0).unwrap();
        self.browser.open(&path).unwrap();
    }

    /// Opens a page of these bytes.
    fn of_bytes(&mut self, page: &[u8]) {
        let path = self.directory.path().join("page.html");
        fs::write(&path, page).unwrap();
        self.browser.size(1280, 900, 1.0).unwrap();
        self.browser.open(&path).unwrap();
    }

    /// The value of an expression.
    fn run(&mut self, script: &str) -> Value {
        self.browser.run(script).unwrap()
    }

    /// Its value as text.
    fn text(&mut self, script: &str) -> String {
        let value = self.run(script);
        value.as_str().unwrap_or_else(|| panic!("{script} is {value}")).to_owned()
    }

    /// Its value as a number.
    fn number(&mut self, script: &str) -> f64 {
        let value = self.run(script);
        value.as_f64().unwrap_or_else(|| panic!("{script} is {value}"))
    }

    /// Nothing went wrong, and nothing but the file was asked for.
    fn is_alone(&self) {
        for event in ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"] {
            let said = self.browser.happened(event);
            assert!(said.is_empty(), "{event}: {said:?}");
        }
        let asked: Vec<_> = self
            .browser
            .happened("Network.requestWillBeSent")
            .iter()
            .map(|event| event["request"]["url"].as_str().unwrap_or_default().to_owned())
            .filter(|url| !url.starts_with("data:"))
            .collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].starts_with("file:///"), "{asked:?}");
    }
}
