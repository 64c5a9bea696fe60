//! Where findings go and how: flags first, then the variables that OpenTelemetry names.
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};

const DEFAULT: &str = "http://localhost:4318";
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Findings.
    Logs,
    /// Counts and measures.
    Metrics,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Logs, Self::Metrics];

    /// Where a collector takes it.
    fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// What variables call it.
    fn name(self) -> &'static str {
        match self {
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }
}

/// What the exporter needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    /// Certificates to trust instead of the system's.
    pub(super) certificates: Option<PathBuf>,
    /// What the environment says of this service.
    pub(super) resource: Vec<(String, String)>,
}

/// The value of a variable, unless it is empty.
struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    signal: Signal,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.trim().is_empty())
    }

    /// What the one for this signal is called.
    fn own(&self, name: &str) -> String {
        format!("OTEL_EXPORTER_OTLP_{}_{name}", self.signal.name())
    }

    /// The one for this signal, or the one for everything.
    fn either(&self, name: &str) -> Option<String> {
        self.get(&self.own(name)).or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }
}

impl Config {
    /// From what was typed (`url` is empty if none was) and the environment.
    pub(crate) fn new(
        signal: Signal,
        url: &str,
        headers: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let variables = Variables { get: &variable, signal };
        Ok(Self {
            url: endpoint(url, &variables)?,
            headers: all_headers(headers, &variables)?,
            timeout: timeout(&variables)?,
            gzip: gzip(&variables)?,
            certificates: variables.either("CERTIFICATE").map(PathBuf::from),
            resource: resource(&variables)?,
        })
    }

    /// The address as people may see it: what follows `?` may be secret.
    pub(crate) fn endpoint(&self) -> String {
        let url = &self.url;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}{}", url.scheme_str().unwrap_or("http"), url.path())
    }
}

fn endpoint(typed: &str, variables: &Variables<'_>) -> Result<Uri> {
    let own = variables.own("ENDPOINT");
    match (typed, variables.get(&own)) {
        ("", Some(exactly)) => {
            let url = parse(&exactly).context(own)?;
            require_http(variables).map(|()| url)
        }
        ("", None) => {
            let base = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT");
            require_http(variables)?;
            with_path(variables.signal, base.as_deref().unwrap_or(DEFAULT))
                .context("OTEL_EXPORTER_OTLP_ENDPOINT")
        }
        (typed, _) => with_path(variables.signal, typed).context("--otlp"),
    }
}

/// The environment may be meant for an exporter that speaks gRPC, to a port that knows nothing else.
fn require_http(variables: &Variables<'_>) -> Result<()> {
    match variables.either("PROTOCOL").as_deref() {
        None | Some("http/protobuf") => Ok(()),
        Some(other) => bail!(
            "OTEL_EXPORTER_OTLP_PROTOCOL is {other}, and tcpwatch speaks http/protobuf: give its address, as in --otlp http://collector:4318"
        ),
    }
}

/// An address that ends in the path of one signal is the collector's for the others, too.
fn with_path(signal: Signal, base: &str) -> Result<Uri> {
    let url = parse(base)?;
    let path = url.path();
    let base = Signal::ALL.into_iter().find_map(|signal| path.strip_suffix(signal.path()));
    let path = format!("{}{}", base.unwrap_or(path).trim_end_matches('/'), signal.path());
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = url.into_parts();
    parts.path_and_query = Some(format!("{path}{query}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

fn parse(text: &str) -> Result<Uri> {
    let wrong = || format!("'{text}' is no address of a collector, such as http://localhost:4318");
    let url: Uri = text.trim().parse().with_context(wrong)?;
    let host = url.host().filter(|host| !host.is_empty());
    if !matches!(url.scheme_str(), Some("http" | "https")) || host.is_none() {
        bail!(wrong());
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        bail!("an address must hold no password; use OTEL_EXPORTER_OTLP_HEADERS=Authorization=…");
    }
    Ok(url)
}

/// Flags replace what the variable for the signal says, and that what the one for everything says.
fn all_headers(typed: &[String], variables: &Variables<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for name in ["OTEL_EXPORTER_OTLP_HEADERS".to_owned(), variables.own("HEADERS")] {
        let typed = variables.get(&name).unwrap_or_default();
        for (key, value) in pairs(&typed).with_context(|| name.clone())? {
            insert(&mut headers, &key, &value).with_context(|| name.clone())?;
        }
    }
    for header in typed {
        let (key, value) = header
            .split_once('=')
            .with_context(|| "--otlp-header: use KEY=VALUE, such as X-Scope-OrgID=ops")?;
        insert(&mut headers, key, value).context("--otlp-header")?;
    }
    Ok(headers)
}

/// A value is not repeated in an error: it may be secret.
fn insert(headers: &mut HeaderMap, key: &str, value: &str) -> Result<()> {
    let name: HeaderName =
        key.trim().parse().with_context(|| format!("'{key}' is no name of a header"))?;
    let mut value = HeaderValue::from_str(value.trim())
        .with_context(|| format!("the value of {name} cannot be sent in a header"))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

fn timeout(variables: &Variables<'_>) -> Result<Duration> {
    let Some(text) = variables.either("TIMEOUT") else { return Ok(TIMEOUT) };
    let ms = text.trim().parse().ok().filter(|&ms| ms > 0);
    ms.map(Duration::from_millis).with_context(|| {
        format!("OTEL_EXPORTER_OTLP_TIMEOUT is '{text}': use milliseconds, such as 10000")
    })
}

fn gzip(variables: &Variables<'_>) -> Result<bool> {
    match variables.either("COMPRESSION").as_deref() {
        Some("gzip") => Ok(true),
        None | Some("none") => Ok(false),
        Some(other) => bail!("OTEL_EXPORTER_OTLP_COMPRESSION is '{other}': use gzip or none"),
    }
}

fn resource(variables: &Variables<'_>) -> Result<Vec<(String, String)>> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut attributes = pairs(&variables.get(NAME).unwrap_or_default()).context(NAME)?;
    if let Some(name) = variables.get("OTEL_SERVICE_NAME") {
        attributes.retain(|(key, _)| key != "service.name");
        attributes.push(("service.name".to_owned(), name));
    }
    Ok(attributes)
}

/// `key=value,key=value`, percent-encoded.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').context("use KEY=VALUE,KEY=VALUE")?;
            Ok((decode(key.trim())?, decode(value.trim())?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).context("a value is not UTF-8")
}

#[cfg(test)]
mod tests;
