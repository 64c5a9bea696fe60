//! A collector that is not ours, in every mood.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::{LINGER, leak, us};
use crate::{
    peers::{Kind, listen, pair, port},
    serve::agent::Agent,
    watch::{Done, Watch},
};

fn python() -> PathBuf {
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
    };
    let made = || cache().map(|cache| cache.join("tcpwatch/python/bin/python"));
    let named = std::env::var_os("TCPWATCH_PYTHON").map(PathBuf::from);
    named.or_else(made).unwrap_or_else(|| "python3".into())
}

pub(super) fn is_possible() -> bool {
    let mut command = Command::new(python());
    command.args(["-c", "import opentelemetry.proto.collector.logs.v1.logs_service_pb2"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// One that runs.
struct Collector {
    child: Child,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Collector {
    fn start(answers: &[&str]) -> Self {
        Self::start_with(answers, None)
    }

    /// The same with TLS, with the certificate in a directory.
    fn start_with(answers: &[&str], certificate: Option<&Path>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/notify/collector.py");
        let mut child = Command::new(python())
            .args([script, "0"])
            .args(answers)
            .envs(certificate.map(|directory| ("COLLECTOR_TLS", directory)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut collector = Self { child, output, url: String::new() };
        let scheme = if certificate.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        collector.url = format!("{scheme}:{}", collector.next()["port"]);
        collector
    }

    /// What it gets next.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn watch(&self, flags: &[&str]) -> Watch {
        Watch::start(&[&LINGER[..], &["--otlp", &self.url], flags].concat())
    }

    /// Everything else that it has got.
    fn rest(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        let lines = self.output.by_ref().lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What tells one record of a request from all others.
fn which(request: &Value) -> Vec<[Value; 3]> {
    let records = request["records"].as_array().unwrap();
    let of = |record: &Value| {
        let attributes = &record["attributes"];
        [&attributes["tcpwatch.socket"], &attributes["tcpwatch.status"], &record["time"]]
            .map(Value::clone)
    };
    records.iter().map(of).collect()
}

fn undelivered(done: &Done) -> bool {
    done.stderr.contains("not delivered")
}

pub(super) fn log_record() {
    let mut collector = Collector::start(&["200"]);
    let mut watch = collector.watch(&[]);
    let listener = listen(Kind::V4);
    let (mut client, server) = pair(Kind::V4, &listener);
    client.write_all(b"0123456789").unwrap();
    let from = port(&client);
    drop(client);
    let finding = watch.finding("open");
    let got = collector.next();
    assert_eq!(got["path"], "/v1/logs");
    assert_eq!(got["headers"]["content-type"], "application/x-protobuf");
    let record = &got["records"][0];
    assert_eq!(record["event"], "tcpwatch.finding");
    assert_eq!(record["body"], finding["summary"]);
    assert_eq!((&record["severity"], &record["severity_text"]), (&json!(13), &json!("warning")));
    let found: jiff::Timestamp = finding["ts"].as_str().unwrap().parse().unwrap();
    assert_eq!(record["time"].as_i64().map(i128::from), Some(found.as_nanosecond()));
    assert!(record["observed"].as_u64() >= record["time"].as_u64(), "{record}");
    assert_eq!(record["resource"]["service.name"], "tcpwatch");
    assert_eq!(
        record["resource"]["host.name"],
        rustix::system::uname().nodename().to_str().unwrap()
    );
    let expected = json!({
        "network.transport": "tcp", "network.type": "ipv4",
        "network.local.address": "127.0.0.1", "network.peer.address": "127.0.0.1",
        "network.local.port": listener.local_addr().unwrap().port(), "network.peer.port": from,
        "network.connection.state": "close_wait",
        "process.pid": us(), "process.executable.name": finding["owner"]["comm"],
        "tcpwatch.verdict": "not-reading", "tcpwatch.status": "open", "tcpwatch.role": "server",
        "tcpwatch.linger_s": 0.3, "tcpwatch.unread": 11, "tcpwatch.unsent": 0,
        "tcpwatch.holders": finding["holders"], "tcpwatch.cookie": finding["cookie"],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&record["attributes"][name], value, "{name}: {record}");
    }
    drop(server);
    watch.finding("ended");
    let done = watch.stop();
    let ended = collector.rest();
    let ended = ended.iter().flat_map(|got| got["records"].as_array().unwrap()).last().unwrap();
    assert_eq!(
        (&ended["severity"], &ended["attributes"]["tcpwatch.status"]),
        (&json!(9), &json!("ended"))
    );
    assert_eq!(ended["attributes"]["tcpwatch.ended.how"], "aborted");
    assert_eq!(ended["attributes"]["tcpwatch.ended.by_pid"], us());
    assert!(done.stderr.is_empty(), "{}", done.stderr);
}

/// Every family that is served is sent, with the same labels; a collector that is busy gets the next.
pub(super) fn metrics() {
    let mut collector = Collector::start(&["503", "200"]);
    let flags = ["--linger", "300ms", "--otlp-metrics", "200ms", "--otlp", &collector.url];
    let agent = Agent::start(&flags);
    let servers = leak(2);
    let of = |sent: &[Value], name: &str| {
        sent.iter().find(|metric| metric["name"] == name).cloned().unwrap_or_default()
    };
    let lingering = |sent: &[Value]| of(sent, "tcpwatch_lingering_sockets")["points"][0].clone();
    let sent = loop {
        let got = collector.next();
        let Some(sent) = got["metrics"].as_array().filter(|_| got["answer"] == "200") else {
            continue;
        };
        assert_eq!(got["path"], "/v1/metrics");
        if lingering(sent)["value"] == 2 {
            break sent.clone();
        }
    };
    let labels = &lingering(&sent)["attributes"];
    assert_eq!((&labels["verdict"], &labels["role"]), (&json!("not-reading"), &json!("server")));
    assert!(labels.get("pod").is_none(), "{labels}");
    assert_eq!(sent[0]["resource"]["service.name"], "tcpwatch");
    let transitions = of(&sent, "tcpwatch_transitions");
    assert_eq!((&transitions["kind"], &transitions["cumulative"]), (&json!("sum"), &json!(true)));
    let spread = of(&sent, "tcpwatch_connection_lifetime");
    assert_eq!((&spread["kind"], &spread["unit"]), (&json!("histogram"), &json!("s")));
    // Names as Prometheus makes them.
    let full = |metric: &Value| {
        let unit = match metric["unit"].as_str() {
            Some("s") => "_seconds",
            Some("By") => "_bytes",
            _ => "",
        };
        let total = if metric["kind"] == "sum" { "_total" } else { "" };
        format!("{}{unit}{total}", metric["name"].as_str().unwrap())
    };
    let sent: BTreeSet<String> = sent.iter().map(full).collect();
    let page = agent.metrics();
    let served: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "tcpwatch_build_info")
        .collect();
    assert_eq!(sent, served);
    drop(servers);
    let done = agent.stop();
    assert_eq!(done.stderr.matches("metrics for http://").count(), 1, "{}", done.stderr);
}

pub(super) fn again() {
    let mut collector = Collector::start(&["503", "502", "200"]);
    let mut watch = collector.watch(&[]);
    let server = leak(1);
    watch.finding("open");
    let tries: Vec<_> = (0..3).map(|_| collector.next()).collect();
    let answers: Vec<_> = tries.iter().map(|got| &got["answer"]).collect();
    assert_eq!(answers, ["503", "502", "200"]);
    assert!(tries.iter().all(|got| which(got) == which(&tries[0])), "{tries:#?}");
    watch.said("503");
    drop(server);
    watch.finding("ended");
    let done = watch.stop();
    let later: Vec<_> = collector.rest().iter().flat_map(which).collect();
    assert!(later.iter().all(|one| !which(&tries[0]).contains(one)), "once: {later:?}");
    assert!(!undelivered(&done), "{}", done.stderr);
}

pub(super) fn retry_after() {
    let mut collector = Collector::start(&["429:2", "200"]);
    let mut watch = collector.watch(&[]);
    let server = leak(1);
    watch.finding("open");
    let (first, second) = (collector.next(), collector.next());
    let waited = second["at"].as_f64().unwrap() - first["at"].as_f64().unwrap();
    assert!(waited >= 2.0, "{waited}");
    assert_eq!(which(&first), which(&second));
    drop(server);
    assert!(!undelivered(&watch.stop()));
}

pub(super) fn rejected() {
    let mut collector = Collector::start(&["200:1"]);
    let mut watch = collector.watch(&[]);
    let servers = leak(3);
    for _ in 0..3 {
        watch.finding("open");
    }
    collector.next();
    let said = watch.said("rejected");
    assert!(said.contains(r"1 finding rejected: too \x1b[31mold"), "{said}");
    drop(servers);
    assert!(undelivered(&watch.stop()));
}

pub(super) fn refused() {
    let mut collector = Collector::start(&["400"]);
    let mut watch = collector.watch(&[]);
    let server = leak(1);
    watch.finding("open");
    let got = collector.next();
    watch.said("the collector answers 400 Bad Request");
    drop(server);
    watch.finding("ended");
    let done = watch.stop();
    let later: Vec<_> = collector.rest().iter().flat_map(which).collect();
    assert!(later.iter().all(|one| !which(&got).contains(one)), "not again: {later:?}");
    assert!(undelivered(&done) && done.status.success(), "{}", done.stderr);
}

pub(super) fn silent() {
    let mut collector = Collector::start(&["silent"]);
    let mut watch = Watch::start(&["--linger", "300ms", "--otlp", &collector.url]);
    let listener = listen(Kind::V4);
    let first = leak(1);
    watch.finding("open");
    collector.next();
    // From here on it waits for an answer.
    let mut kept = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..300 {
        let (client, server) = pair(Kind::V4, &listener);
        ports.push(port(&client));
        kept.push(server);
    }
    let at = listener.local_addr().unwrap().port();
    let mut open = std::collections::BTreeSet::new();
    while open.len() < kept.len() {
        open.insert(watch.finding("open")["socket"].as_u64());
    }
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let done = watch.stop();
    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(began);
    assert!(took < std::time::Duration::from_secs(8), "{took:?}");
    assert!(undelivered(&done) && done.status.success(), "{}", done.stderr);
    assert_eq!(done.summary()["lost"], 0);
    for from in ports {
        let path = done.path(at, from);
        assert!(path.contains(&"ESTABLISHED>CLOSE_WAIT".to_owned()), "{path:?}");
    }
    drop((first, kept));
}

pub(super) fn environment() {
    let mut collector = Collector::start(&["200"]);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/base", collector.url)),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc,x-a=1".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_SERVICE_NAME", "watcher".to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let flags = [&LINGER[..], &["--otlp-header", "x-a=2", "--otlp"]].concat();
    let mut watch = Watch::start_with(&flags, &variables);
    let server = leak(1);
    watch.finding("open");
    let got = collector.next();
    assert_eq!(got["path"], "/base/v1/logs");
    let headers = &got["headers"];
    assert_eq!(headers["authorization"], "Basic abc");
    assert_eq!((&headers["x-a"], &headers["content-encoding"]), (&json!("2"), &json!("gzip")));
    assert_eq!(got["records"][0]["resource"]["service.name"], "watcher");
    drop(server);
}

pub(super) fn closes() {
    let mut collector = Collector::start(&["200"]);
    let mut watch = collector.watch(&[]);
    let server = leak(1);
    watch.finding("open");
    collector.next();
    drop(collector);
    // Long enough for a connection of its own to be a finding.
    let second = leak(1);
    watch.finding("open");
    watch.finding("still");
    let pid = watch.pid();
    let done = watch.stop();
    for finding in done.of("finding") {
        assert_ne!(finding["owner"]["pid"], pid, "it leaks itself: {finding}");
    }
    drop((server, second));
}

pub(super) fn absent() {
    let nobody = listen(Kind::V4);
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let flags = [&LINGER[..], &["--otlp", &url]].concat();
    let mut watch = Watch::start(&flags);
    let server = leak(1);
    watch.finding("open");
    let said = watch.said("Connection refused");
    assert!(said.contains(&format!("findings for {url}/v1/logs")), "{said}");
    let done = watch.stop();
    assert!(done.stderr.contains("not delivered (client error"), "{}", done.stderr);
    assert!(done.status.success());
    drop(server);
}

/// A certificate for localhost, and that of whoever signed it.
const CERTIFICATES: &str = r#"
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca
openssl req $new -keyout key.pem -out request -subj /CN=localhost
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >extensions
openssl x509 -req -in request -CA ca.pem -CAkey ca.key -days 2 -extfile extensions -out cert.pem
"#;

pub(super) fn tls() {
    let directory = tempfile::tempdir().unwrap();
    let mut openssl = Command::new("sh");
    openssl.args(["-ec", CERTIFICATES]).current_dir(directory.path()).stderr(Stdio::null());
    assert!(openssl.status().unwrap().success());
    let mut collector = Collector::start_with(&["200"], Some(directory.path()));
    let signer = directory.path().join("ca.pem").to_str().unwrap().to_owned();
    let server = leak(1);

    let flags = [&LINGER[..], &["--otlp", &collector.url]].concat();
    let stranger = Watch::start(&flags);
    stranger.said("invalid peer certificate: UnknownIssuer");
    assert!(undelivered(&stranger.stop()));

    let trusting = Watch::start_with(&flags, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &signer)]);
    assert_eq!(collector.next()["records"][0]["attributes"]["process.pid"], us());
    assert!(!undelivered(&trusting.stop()));
    drop(server);
}
