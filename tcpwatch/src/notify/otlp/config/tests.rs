use super::*;

fn config(url: &str, headers: &[&str], variables: &[(&str, &str)]) -> Result<Config> {
    let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
    Config::new(Signal::Logs, url, &headers, |name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn url(typed: &str, variables: &[(&str, &str)]) -> String {
    config(typed, &[], variables).unwrap().url.to_string()
}

const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const LOGS: &str = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT";

#[test]
fn the_path_is_added_where_the_specification_adds_it() {
    assert_eq!(url("", &[]), "http://localhost:4318/v1/logs");
    assert_eq!(url("http://c:4318", &[]), "http://c:4318/v1/logs");
    assert_eq!(url("https://c/", &[]), "https://c/v1/logs");
    assert_eq!(url("http://loki:3100/otlp", &[]), "http://loki:3100/otlp/v1/logs");
    assert_eq!(url("http://c/otlp/v1/logs", &[]), "http://c/otlp/v1/logs");
    assert_eq!(url("http://c/in?key=k", &[]), "http://c/in/v1/logs?key=k");
    assert_eq!(url("http://[::1]:4318", &[]), "http://[::1]:4318/v1/logs");
    assert_eq!(url("", &[(ALL, "http://all:1/base/")]), "http://all:1/base/v1/logs");
    assert_eq!(url("", &[(ALL, "http://all:1"), (LOGS, "http://logs:2/x")]), "http://logs:2/x");
    assert_eq!(url("http://typed:3", &[(LOGS, "http://logs:2/x")]), "http://typed:3/v1/logs");
}

#[test]
fn each_signal_has_its_path_and_its_variables() {
    let url = |typed: &str, variables: &[(&str, &str)]| {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::new(Signal::Metrics, typed, &[], variable).unwrap().url.to_string()
    };
    assert_eq!(url("", &[]), "http://localhost:4318/v1/metrics");
    assert_eq!(url("http://c/otlp/v1/logs", &[]), "http://c/otlp/v1/metrics");
    assert_eq!(url("http://c/otlp/v1/metrics", &[]), "http://c/otlp/v1/metrics");
    assert_eq!(url("", &[(LOGS, "http://logs:2/x")]), "http://localhost:4318/v1/metrics");
    let own = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
    assert_eq!(url("", &[(own, "http://metrics:2/x"), (LOGS, "http://l")]), "http://metrics:2/x");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_name() {
    let refused = |url: &str, headers: &[&str], variables: &[(&str, &str)], word: &str| {
        let said = format!("{:#}", config(url, headers, variables).unwrap_err());
        assert!(said.contains(word), "{said}");
        assert!(!said.contains("secret"), "{said}");
    };
    refused("collector:4318", &[], &[], "--otlp");
    refused("grpc://collector:4317", &[], &[], "no address of a collector");
    refused("http://", &[], &[], "--otlp");
    refused("http://me:secret@c", &[], &[], "no password");
    refused("", &[], &[(LOGS, "nonsense")], LOGS);
    refused("", &[], &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "http/protobuf");
    refused("http://c", &["secret"], &[], "KEY=VALUE");
    refused("http://c", &["a b=secret"], &[], "no name of a header");
    refused("http://c", &["a=secret\0"], &[], "cannot be sent");
    refused("http://c", &[], &[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")], "milliseconds");
    refused("http://c", &[], &[("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")], "gzip");
    // An address that was typed is for us, whatever the environment speaks.
    config("http://c", &[], &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap();
}

#[test]
fn headers_of_the_flag_come_before_those_of_the_environment() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-a=all"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "X-A=logs,x-b=1"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod%2C1,service.name=x"),
        ("OTEL_SERVICE_NAME", "watcher"),
    ];
    let config = config("http://c", &["x-b=typed=2"], &variables).unwrap();
    let get = |name: &str| config.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(get("authorization"), Some("Bearer abc"));
    assert_eq!((get("x-a"), get("x-b")), (Some("logs"), Some("typed=2")));
    assert_eq!((config.timeout, config.gzip), (Duration::from_millis(250), true));
    let resource: Vec<_> =
        config.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(resource, [("deployment.environment.name", "prod,1"), ("service.name", "watcher")]);
    assert!(!format!("{config:?}").contains("Bearer"), "a secret is in no log");
}

#[test]
fn an_address_is_shown_without_what_may_be_secret() {
    let config = config("https://c:1/in?key=secret", &[], &[]).unwrap();
    assert_eq!(config.endpoint(), "https://c:1/in/v1/logs");
}

#[test]
fn percent_signs_that_mean_nothing_stay() {
    assert_eq!(decode("100%").unwrap(), "100%");
    assert_eq!(decode("%zz%2").unwrap(), "%zz%2");
    assert_eq!(decode("%c3%a9").unwrap(), "é");
    assert!(decode("%ff").is_err());
}
