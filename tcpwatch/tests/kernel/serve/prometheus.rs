//! Prometheus itself: its checker of pages, and a server that scrapes two agents and fires our rules.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{agent::Agent, hostile};
use crate::{
    peers::{Kind, listen, pair},
    real::{Daemon, eventually, free_port},
};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/tcpwatch.rules.yml");

pub(super) fn checked() {
    let hostile = hostile();
    let agent = Agent::start(&["--linger", "100ms"]);
    let found = agent.until_finding();
    assert_eq!(found["owner"]["pid"], hostile.pid());
    let page = agent.metrics();
    assert!(
        page.contains(r#"process="a\"b\\\\\\n\\xff{} 1""#) || page.contains(r#"process="a\"b"#),
        "{page}"
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.stderr.is_empty(),
        "it has remarks: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    hostile.kill();
    agent.stop();
}

/// `promtool test rules` on the tests that are shipped with the rules, and its own opinion of those.
pub(super) fn rules() {
    for command in
        [["check", "rules", "tcpwatch.rules.yml"], ["test", "rules", "tcpwatch.test.yml"]]
    {
        let output = Command::new("promtool")
            .args(command)
            .current_dir(Path::new(RULES).parent().unwrap())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

/// Two agents in two namespaces, in one of which something leaks, and one Prometheus that reaches both.
/// The rules are those that are shipped, but do not wait before they fire.
pub(super) fn alert() {
    let (leaking, calm) = (Agent::start(&["--linger", "200ms"]), Agent::start_next_door(&[]));
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    configure(directory.path(), &[leaking.address.to_string(), calm.address.to_string()]);
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let _prometheus = Daemon::start(
        port,
        &[
            "prometheus".to_owned(),
            flag("config.file", &path("prometheus.yml")),
            flag("storage.tsdb.path", &path("data")),
            flag("web.listen-address", &format!("127.0.0.1:{port}")),
        ],
    );
    let listener = listen(Kind::V4);
    let mut leaked = Vec::new();
    // A leak is growth, and growth takes time.
    let alert = eventually("no alert", || {
        let (client, server) = pair(Kind::V4, &listener);
        drop(client);
        leaked.push(server);
        std::thread::sleep(Duration::from_millis(150));
        let alerts = query(port, "/api/v1/alerts");
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().find(|alert| {
            alert["labels"]["alertname"] == "TcpwatchConnectionLeak" && alert["state"] == "firing"
        })
    });
    let labels = &alert["labels"];
    assert_eq!(labels["instance"], leaking.address.to_string(), "the one that leaks");
    assert_eq!(labels["verdict"], "not-reading");
    assert_eq!(labels["service"], listener.local_addr().unwrap().to_string());
    let up = query(port, "/api/v1/query?query=up");
    let values: Vec<_> =
        up["data"]["result"].as_array().unwrap().iter().map(|r| r["value"][1].clone()).collect();
    assert_eq!(values, ["1", "1"], "both are scraped");
    // What Prometheus has of a scrape is what the page says: it asks for OpenMetrics.
    let types = query(port, "/api/v1/metadata?metric=tcpwatch_lost_transitions");
    assert_eq!(types["data"]["tcpwatch_lost_transitions"][0]["type"], "counter", "{types}");
}

fn configure(directory: &Path, targets: &[String]) {
    let rules = fs::read_to_string(RULES).unwrap();
    let at_once = rules
        .lines()
        .map(|line| if line.trim().starts_with("for:") { "        for: 0s" } else { line });
    fs::write(directory.join("rules.yml"), at_once.collect::<Vec<_>>().join("\n")).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: tcpwatch\n  static_configs: [{{targets: {targets:?}}}]\n"
    );
    fs::write(directory.join("prometheus.yml"), config).unwrap();
}

fn query(port: u16, path: &str) -> Value {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Value::Null };
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}
