//! What came of a guest, and whether that is what is expected of its kernel.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    boot::{End, now},
    guest::Message,
    kernels::Kernel,
};

/// The oldest kernel that tcpwatch is for; on an older one it must refuse and say why.
const MINIMUM: (u64, u64) = (5, 15);
/// What it must say then.
const REFUSAL: [&str; 3] = ["tcpwatch: error: Linux ", " lacks ", "tcpwatch needs Linux 5.15"];
/// The exit code of tests of which some failed.
const TESTS_FAILED: i32 = 101;
/// What kernels may differ in, as the doctor calls it; Debian's since then have all of it.
pub(super) const FEATURES: [&str; 3] = ["exact acceptor", "accept queues", "MPTCP"];

/// What a guest has told.
pub(super) struct Outcome {
    pub(super) kernel: Kernel,
    pub(super) end: Option<End>,
    pub(super) doctor: Doctor,
    pub(super) watch: Option<(Option<i32>, String)>,
    pub(super) tests: Vec<Test>,
    pub(super) troubles: Vec<String>,
    pub(super) seconds: f64,
    tested: Option<i32>,
    started: Instant,
    running: Option<(String, Instant)>,
}

/// A test and what came of it.
#[derive(Clone, Serialize)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) result: Verdict,
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    #[serde(alias = "ok")]
    Passed,
    Failed,
    Ignored,
}

/// A line of the tests.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "event")]
    what: String,
    name: Option<String>,
    stdout: Option<String>,
}

/// What `tcpwatch doctor` found.
#[derive(Default, Serialize)]
pub(super) struct Doctor {
    pub(super) code: Option<i32>,
    /// Whether it is there, and what the doctor says to it.
    pub(super) features: BTreeMap<String, (bool, String)>,
    /// Fields that this kernel does not have.
    pub(super) without: Vec<String>,
}

impl Outcome {
    pub(super) fn new(kernel: Kernel) -> Self {
        let (end, watch, tested, running) = (None, None, None, None);
        let (doctor, tests, troubles) = (Doctor::default(), Vec::new(), Vec::new());
        let (seconds, started) = (0.0, now());
        Self { kernel, end, doctor, watch, tests, troubles, seconds, tested, started, running }
    }

    /// Takes in a message; returns what a person who waits should see.
    pub(super) fn hear(&mut self, message: Message) -> Option<String> {
        match message {
            Message::Booted { release, cpus } => {
                let seconds = self.started.elapsed().as_secs_f64();
                Some(format!("{release} is up with {cpus} CPUs after {seconds:.1} s"))
            }
            Message::Trouble { text } => {
                self.troubles.push(text.clone());
                Some(text)
            }
            Message::Doctor { code, text } => {
                self.doctor = Doctor::read(code, &text);
                None
            }
            Message::Watch { code, stderr } => {
                self.watch = Some((code, stderr));
                None
            }
            Message::Test { line } => self.test(&line),
            Message::Tested { code } => {
                self.tested = code;
                None
            }
            Message::Done => None,
        }
    }

    /// How it ended, and what the kernel said of itself.
    pub(super) fn ended(&mut self, end: End, console: &[String]) {
        self.seconds = self.started.elapsed().as_secs_f64();
        if let (End::Early { .. }, Some((name, _))) = (&end, &self.running) {
            self.troubles.push(format!("the test {name} was running"));
        }
        let signs = ["BUG:", "WARNING:", "Oops:", "Kernel panic", "stall"];
        let complaints = console.iter().filter(|line| signs.iter().any(|sign| line.contains(sign)));
        self.troubles.extend(complaints.map(|line| format!("console: {line}")));
        self.end = Some(end);
    }

    pub(super) fn count(&self, result: Verdict) -> usize {
        self.tests.iter().filter(|test| test.result == result).count()
    }

    pub(super) fn names(&self, result: Verdict) -> impl Iterator<Item = &str> {
        let such = self.tests.iter().filter(move |test| test.result == result);
        such.map(|test| test.name.as_str())
    }

    /// Whether tcpwatch must refuse this kernel.
    pub(super) fn is_too_old(&self) -> bool {
        self.kernel.numbers() < MINIMUM
    }

    /// The sentence with which tcpwatch refused.
    pub(super) fn refusal(&self) -> Option<&str> {
        let (code, stderr) = self.watch.as_ref()?;
        (*code != Some(0)).then(|| stderr.trim())
    }

    /// What is not as it must be; nothing is the best.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match &self.end {
            Some(End::Done) => {}
            Some(End::Early { why, .. }) => faults.push(why.clone()),
            None => faults.push("it was not booted".to_owned()),
        }
        if self.is_too_old() {
            faults.extend(self.refuses_badly());
        } else {
            faults.extend(self.works_badly());
        }
        let complaints = self.troubles.iter().filter(|text| !text.contains("stall"));
        faults.extend(complaints.cloned());
        faults
    }

    fn refuses_badly(&self) -> Option<String> {
        let said = self.refusal().unwrap_or_default();
        let well = self.watch.as_ref().is_some_and(|(code, _)| *code == Some(2))
            && said.lines().count() == 1
            && REFUSAL.iter().all(|words| said.contains(words))
            && self.doctor.code == Some(2);
        (!well).then(|| format!("it is too old, and tcpwatch does not say so: {said:?}"))
    }

    fn works_badly(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(said) = self.refusal() {
            faults.push(format!("tcpwatch does not work: {said}"));
        }
        if self.doctor.code != Some(0) {
            faults.push(format!("tcpwatch doctor ended with {:?}", self.doctor.code));
        }
        let absent = FEATURES.iter().filter(|name| self.doctor.has(name) != Some(true));
        faults.extend(absent.map(|name| format!("no {name}")));
        let failed = self.count(Verdict::Failed);
        if failed > 0 {
            faults.push(format!("{failed} tests failed"));
        }
        match self.tested {
            Some(0 | TESTS_FAILED) if self.count(Verdict::Passed) > 0 => {}
            Some(0) => faults.push("no test has passed".to_owned()),
            Some(TESTS_FAILED) if failed > 0 => {}
            _ => faults.push("the tests did not come to their end".to_owned()),
        }
        faults
    }

    fn test(&mut self, line: &str) -> Option<String> {
        let event: Event = serde_json::from_str(line).ok()?;
        let name = event.name.filter(|_| event.kind == "test")?;
        if event.what == "started" {
            self.running = Some((name, now()));
            return None;
        }
        let result = serde_json::from_value(event.what.into()).ok()?;
        let running = self.running.take();
        let seconds = running.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
        let word = match result {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Ignored => "ignored",
        };
        let reason = event.stdout.as_deref().unwrap_or_default();
        let shown = format!("{name} {word} ({seconds:.1} s)\n{reason}");
        self.tests.push(Test { name, result, seconds, message: event.stdout });
        Some(shown.trim_end().to_owned())
    }
}

impl Doctor {
    /// Whether a feature is there, as far as it has said so.
    pub(super) fn has(&self, name: &str) -> Option<bool> {
        self.features.get(name).map(|(there, _)| *there)
    }

    /// `ok  name  what it says`, in columns; a line without a name belongs to the one above.
    fn read(code: Option<i32>, text: &str) -> Self {
        let mut doctor = Self { code, ..Self::default() };
        for line in text.lines() {
            let Some((mark, rest)) = line.split_at_checked(4) else { continue };
            let (name, says) = rest.split_at_checked(22).unwrap_or((rest, ""));
            let (name, says) = (name.trim(), says.trim());
            if let Some((field, _)) = says.split_once(" is missing") {
                doctor.without.push(field.to_owned());
            }
            if !name.is_empty() && !says.is_empty() {
                let there = mark.trim() == "ok";
                doctor.features.insert(name.to_owned(), (there, says.to_owned()));
            }
        }
        doctor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCTOR: &str = "\
ok  kernel                 Linux 6.1.0-56-cloud-amd64
ok  BTF                    88 of 89 kernel fields found by name
--                         sock::sk_ino is missing; tcpwatch does without
ok  MPTCP                  the application's socket is shown, its subflows are not
ok  accept queues          sockets nobody has accepted are found
ok  exact acceptor         fexit/inet_csk_accept: the owner of an accepted socket is exact

tcpwatch works here
";

    fn ran(release: &str, messages: impl IntoIterator<Item = Message>) -> Outcome {
        let kernel = Kernel {
            release: release.to_owned(),
            version: String::new(),
            suite: String::new(),
            packages: Vec::new(),
        };
        let mut outcome = Outcome::new(kernel);
        for message in messages {
            outcome.hear(message);
        }
        outcome.ended(End::Done, &[]);
        outcome
    }

    fn works(tests: &[(&str, &str)], code: i32) -> Vec<Message> {
        let line = |(name, event): &(&str, &str)| Message::Test {
            line: format!(r#"{{ "type": "test", "name": "{name}", "event": "{event}" }}"#),
        };
        let doctor = Message::Doctor { code: Some(0), text: DOCTOR.to_owned() };
        let watch = Message::Watch { code: Some(0), stderr: String::new() };
        let mut messages = vec![doctor, watch];
        messages.extend(tests.iter().map(line));
        messages.push(Message::Tested { code: Some(code) });
        messages
    }

    fn refuses(code: i32, stderr: &str) -> Vec<Message> {
        let doctor = Message::Doctor { code: Some(2), text: String::new() };
        vec![doctor, Message::Watch { code: Some(code), stderr: stderr.to_owned() }]
    }

    #[test]
    fn a_kernel_where_all_passes_is_as_expected() {
        let outcome = ran("6.1.0-56", works(&[("a", "ok"), ("b", "ignored")], 0));
        assert_eq!(outcome.faults(), Vec::<String>::new());
        assert_eq!(outcome.doctor.without, ["sock::sk_ino"]);
        assert_eq!(outcome.doctor.has("exact acceptor"), Some(true));
        assert_eq!((outcome.count(Verdict::Passed), outcome.count(Verdict::Ignored)), (1, 1));
    }

    #[test]
    fn failures_silence_and_complaints_are_not() {
        let faulty = |messages: Vec<Message>| ran("6.1.0-56", messages).faults().len();
        assert_eq!(faulty(works(&[("a", "ok"), ("b", "failed")], 101)), 1);
        assert_eq!(faulty(works(&[], 0)), 1, "nothing has passed");
        let mut cut = works(&[("a", "ok")], 0);
        cut.pop();
        assert_eq!(faulty(cut), 1, "no end");
        let mut outcome = ran("6.1.0-56", works(&[("a", "ok")], 0));
        outcome.ended(End::Done, &["[    3.1] WARNING: CPU: 0 at kernel/bpf".to_owned()]);
        assert_eq!(outcome.faults().len(), 1);
    }

    #[test]
    fn an_old_kernel_must_be_refused_well() {
        let said = "tcpwatch: error: Linux 5.10.0-46 lacks bpf_sock_from_file (5.11); tcpwatch needs Linux 5.15 or newer\n";
        let faults = |messages| ran("5.10.0-46", messages).faults().len();
        assert_eq!(faults(refuses(2, said)), 0);
        assert_eq!(faults(refuses(1, said)), 1);
        assert_eq!(faults(refuses(2, "tcpwatch: error: load the kernel program")), 1);
        assert_eq!(faults(works(&[("a", "ok")], 0)), 1, "it is not to work there");
        assert!(!ran("6.1.0-56", refuses(2, said)).faults().is_empty());
    }
}
