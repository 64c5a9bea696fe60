//! A finding as a log record, under the names of OpenTelemetry's semantic conventions where there are any.
//! <https://opentelemetry.io/docs/specs/semconv/registry/attributes/>

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message as _;

use super::config::Config;
use crate::{
    core::{
        socket::{Holder, Process, Role},
        state::State,
    },
    kernel::clock,
    notify::notice::{Notice, Severity},
};

const EVENT: &str = "tcpwatch.finding";
const SCOPE: &str = "tcpwatch";

/// Who says it: this tool on this host, and what the environment adds or says otherwise.
pub(super) fn resource(config: &Config) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut attributes = vec![
        text("service.name", "tcpwatch"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", host),
        text("os.type", "linux"),
    ];
    attributes.retain(|own| config.resource.iter().all(|(key, _)| *key != own.key));
    attributes.extend(config.resource.iter().map(|(key, value)| text(key, value.as_str())));
    Resource { attributes, ..Resource::default() }
}

/// A request with these findings.
pub(super) fn encode(resource: &Resource, batch: &[Arc<Notice>]) -> Vec<u8> {
    let observed = clock::mark().real_ns;
    let scope_logs = vec![ScopeLogs {
        scope: Some(scope()),
        log_records: batch.iter().map(|notice| record(notice, observed)).collect(),
        schema_url: String::new(),
    }];
    let logs =
        ResourceLogs { resource: Some(resource.clone()), scope_logs, schema_url: String::new() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

/// What measures.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn record(notice: &Notice, observed: u64) -> LogRecord {
    let severity = notice.severity();
    let number = match severity {
        Severity::Info => SeverityNumber::Info,
        Severity::Warning => SeverityNumber::Warn,
        Severity::Error => SeverityNumber::Error,
    };
    LogRecord {
        time_unix_nano: notice.wall_ns(),
        observed_time_unix_nano: observed,
        severity_number: number.into(),
        severity_text: severity.word().to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(notice.summary())) }),
        attributes: attributes(notice),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(notice: &Notice) -> Vec<KeyValue> {
    let mut attributes = connection(notice);
    attributes.extend(whose(notice));
    attributes.extend(conclusion(notice));
    attributes
}

/// What the conventions call `network.*`.
fn connection(notice: &Notice) -> Vec<KeyValue> {
    let finding = &notice.finding;
    let socket = &finding.socket;
    let port = |port: u16| i64::from(port);
    vec![
        text("network.transport", "tcp"),
        text("network.type", if socket.family() == 4 { "ipv4" } else { "ipv6" }),
        text("network.local.address", socket.local.ip().to_string()),
        number("network.local.port", port(socket.local.port())),
        text("network.peer.address", socket.remote.ip().to_string()),
        number("network.peer.port", port(socket.remote.port())),
        text("network.connection.state", state(finding.state)),
    ]
}

/// `process.*`, `container.*` and `k8s.*`: whose connection it is. What is not known is left out.
fn whose(notice: &Notice) -> Vec<KeyValue> {
    let facts = notice.finding.evidence.process.as_deref();
    let container = facts.and_then(|facts| facts.container.as_ref());
    let process = notice.process();
    let name = |process: Process| text("process.executable.name", process.comm.to_string());
    let mut attributes: Vec<KeyValue> = Vec::new();
    attributes.extend(process.map(|process| number("process.pid", process.pid.into())));
    attributes.extend(process.map(name));
    attributes.extend(container.map(|container| text("container.id", container.id.as_str())));
    attributes.extend(
        container.and_then(|container| Some(text("container.runtime.name", container.runtime?))),
    );
    attributes.extend(
        container.and_then(|container| Some(text("k8s.pod.uid", container.pod_uid.as_deref()?))),
    );
    if let Some(names) = container.and_then(|container| container.names.as_ref()) {
        attributes.push(text("k8s.namespace.name", names.namespace.as_str()));
        attributes.push(text("k8s.pod.name", names.pod.as_str()));
        attributes.extend(names.container.as_deref().map(|name| text("k8s.container.name", name)));
    }
    attributes.extend(facts.and_then(|facts| Some(count("tcpwatch.process.fds", facts.fds?))));
    attributes
        .extend(facts.and_then(|facts| Some(count("tcpwatch.process.fd_limit", facts.fd_limit?))));
    attributes
}

/// `tcpwatch.*`: what only tcpwatch knows.
fn conclusion(notice: &Notice) -> Vec<KeyValue> {
    let finding = &notice.finding;
    let socket = &finding.socket;
    let mut attributes = vec![
        text("tcpwatch.verdict", notice.verdict()),
        text("tcpwatch.status", finding.status.word()),
        attribute(
            "tcpwatch.linger_s",
            any_value::Value::DoubleValue(finding.linger.milliseconds() / 1e3),
        ),
        attribute("tcpwatch.linger_at_least", any_value::Value::BoolValue(finding.at_least)),
        attribute("tcpwatch.uncertain", any_value::Value::BoolValue(socket.uncertain)),
        number("tcpwatch.uid", socket.uid.into()),
        number("tcpwatch.netns", socket.netns.into()),
        count("tcpwatch.same_owner", u64::try_from(finding.same_owner).unwrap_or(u64::MAX)),
        attribute("tcpwatch.holders", holders(&finding.holders)),
    ];
    attributes.extend(socket.id.map(|id| count("tcpwatch.socket", id.0)));
    attributes.extend(socket.cookie.map(|cookie| count("tcpwatch.cookie", cookie)));
    attributes.extend(socket.role.map(Role::word).map(|role| text("tcpwatch.role", role)));
    attributes.extend(finding.netns_name.as_deref().map(|name| text("tcpwatch.netns_name", name)));
    attributes.extend(socket.tcp.map(|tcp| number("tcpwatch.unread", tcp.unread.into())));
    attributes.extend(socket.tcp.map(|tcp| number("tcpwatch.unsent", tcp.unsent.into())));
    if let Some(ending) = finding.ending {
        attributes.push(text("tcpwatch.ended.how", ending.cause.word()));
        attributes.extend(ending.by.map(|by| number("tcpwatch.ended.by_pid", by.pid.into())));
    }
    attributes
}

fn holders(holders: &[Holder]) -> any_value::Value {
    let one = |holder: &Holder| {
        let values = vec![
            number("pid", holder.process.pid.into()),
            text("comm", holder.process.comm.to_string()),
            number("fd", holder.fd.into()),
        ];
        AnyValue { value: Some(any_value::Value::KvlistValue(KeyValueList { values })) }
    };
    any_value::Value::ArrayValue(ArrayValue { values: holders.iter().map(one).collect() })
}

/// As the conventions write states.
fn state(state: State) -> &'static str {
    match state {
        State::Established => "established",
        State::SynSent => "syn_sent",
        State::SynRecv => "syn_received",
        State::FinWait1 => "fin_wait_1",
        State::FinWait2 => "fin_wait_2",
        State::TimeWait => "time_wait",
        State::Close => "closed",
        State::CloseWait => "close_wait",
        State::LastAck => "last_ack",
        State::Listen => "listen",
        State::Closing => "closing",
    }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

/// A number that may be too large for the protocol.
fn count(key: &str, value: u64) -> KeyValue {
    number(key, i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{
            container::{Container, Names},
            process::ProcessFacts,
        },
        notify::notice::tests::notice,
    };

    #[test]
    fn a_container_is_called_what_kubernetes_calls_it() {
        let mut notice = notice();
        let mut container = Container::from_cgroup(&format!("/docker/{:064x}", 7)).unwrap();
        container.names = Some(Names {
            namespace: "shop".to_owned(),
            pod: "cart-0".to_owned(),
            container: Some("app".to_owned()),
        });
        let facts = ProcessFacts { container: Some(container), ..ProcessFacts::default() };
        notice.finding.evidence.process = Some(facts.into());
        let found = whose(&notice);
        for (key, value) in [
            ("container.runtime.name", "docker"),
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "cart-0"),
            ("k8s.container.name", "app"),
        ] {
            assert!(found.contains(&text(key, value)), "{key} in {found:#?}");
        }
        assert!(found.iter().all(|attribute| attribute.key != "k8s.pod.uid"));
    }
}
