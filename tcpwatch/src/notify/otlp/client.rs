//! One request and what its answer means.

use std::{
    error::Error,
    fs,
    io::Write as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

use super::{Collector, config::Config, message};
use crate::{core::comm::escape, notify::notice::Notice};

const AGENT: &str = concat!("tcpwatch/", env!("CARGO_PKG_VERSION"));
const PROTOBUF: &str = "application/x-protobuf";
/// More of an answer is not read.
const LONGEST_ANSWER: usize = 64 << 10;
/// More of a reason is not shown.
const LONGEST_REASON: usize = 200;
/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What a collector says.
#[derive(Debug)]
pub(in crate::notify) enum Answer {
    /// It has all of it.
    Taken,
    /// It has all but these.
    TakenInPart { rejected: u64, why: String },
    /// It will never take it.
    Refused(String),
    /// It may take it later.
    Later { why: String, after: Option<Duration> },
}

/// What is of use in `google.rpc.Status`, which tells why a request failed.
#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(string, tag = "2")]
    message: String,
}

/// Sends batches to one collector.
pub(crate) struct Client {
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: Config,
}

impl Client {
    pub(crate) fn new(config: Config) -> Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&config)?)
            .https_or_http()
            .enable_http1()
            .build();
        let http = Http::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { http, config })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Compressed, if that is asked for.
    pub(super) fn request_body(&self, body: Vec<u8>) -> Bytes {
        if !self.config.gzip {
            return body.into();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(&body).and_then(|()| encoder.finish());
        packed.unwrap_or(body).into()
    }

    async fn exchange(&self, body: Bytes) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let mut request = Request::builder().method(Method::POST).uri(&self.config.url);
        if let Some(headers) = request.headers_mut() {
            headers.insert(header::USER_AGENT, header::HeaderValue::from_static(AGENT));
            headers.extend(self.config.headers.clone());
        }
        let mut request = request.header(header::CONTENT_TYPE, PROTOBUF);
        if self.config.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let response = self.http.request(request.body(Full::new(body))?).await?;
        Ok(understand(response).await)
    }
}

impl Collector for Client {
    type Body = Bytes;

    fn pack(&self, batch: &[Arc<Notice>]) -> Bytes {
        let resource = message::resource(&self.config);
        self.request_body(message::encode(&resource, batch))
    }

    async fn send(&self, body: Bytes) -> Answer {
        match timeout(self.config.timeout, self.exchange(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Later { why: causes(&*error), after: None },
            Err(_) => {
                let why = format!("no answer within {:?}", self.config.timeout);
                Answer::Later { why, after: None }
            }
        }
    }
}

/// Trusts whom the system trusts, or the certificates of a file.
fn tls(config: &Config) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if config.url.scheme_str() == Some("https") {
        if let Some(path) = &config.certificates {
            let what =
                || format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {}", crate::core::comm::shown(path));
            let pem = fs::read(path).with_context(what)?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.with_context(what)?).with_context(what)?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            bail!(
                "there are no certificates to check the collector's with; install ca-certificates, or name a file in OTEL_EXPORTER_OTLP_CERTIFICATE"
            );
        }
    }
    let provider = ring::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.into());
    let builder = builder.with_safe_default_protocol_versions().context("set up TLS")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn understand(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let content = parts.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    let status = parts.status;
    if status.is_success() {
        return if content == Some(PROTOBUF.as_bytes()) { taken(&body) } else { Answer::Taken };
    }
    let reason = match content {
        Some(kind) if kind == PROTOBUF.as_bytes() => {
            shown(Failure::decode(body).unwrap_or_default().message.as_bytes())
        }
        Some(kind) if kind.starts_with(b"text/plain") || kind.starts_with(b"application/json") => {
            shown(&body)
        }
        _ => String::new(),
    };
    let colon = if reason.is_empty() { "" } else { ": " };
    let why = format!("the collector answers {status}{colon}{reason}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = parts
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, wall_now()));
            Answer::Later { why, after }
        }
        _ => Answer::Refused(why),
    }
}

/// The answers for other signals have the same fields with other names.
fn taken(body: &[u8]) -> Answer {
    let answer = ExportLogsServiceResponse::decode(body).unwrap_or_default();
    match answer.partial_success {
        None => Answer::Taken,
        Some(partial) => Answer::TakenInPart {
            rejected: u64::try_from(partial.rejected_log_records).unwrap_or(0),
            why: shown(partial.error_message.as_bytes()),
        },
    }
}

/// Seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn wall_now() -> SystemTime {
    let ns = crate::kernel::clock::mark().real_ns;
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

/// What a stranger says, made harmless and short.
fn shown(text: &[u8]) -> String {
    let short = &text[..text.len().min(LONGEST_REASON)];
    escape(short.trim_ascii())
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(date, now + Duration::from_mins(1)), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }

    #[test]
    fn what_a_collector_says_is_harmless_and_short() {
        let said = shown(&[b"\x1b[2J".as_slice(), &[b'x'; 1000]].concat());
        assert!(!said.contains('\x1b') && said.len() < 300, "{said}");
    }

    #[test]
    fn an_answer_that_is_no_message_takes_nothing_back() {
        assert!(matches!(taken(b""), Answer::Taken));
        assert!(matches!(taken(&[0xff; 9]), Answer::Taken));
    }
}
