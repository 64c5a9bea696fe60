//! What is answered to which request.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY, WWW_AUTHENTICATE,
    },
};

use super::{
    exposition,
    findings::Findings,
    model::{Model, OpenFindings},
    negotiate,
};
use crate::{
    core::time::{Nanos, Timestamp},
    kernel::clock,
};

/// A body of whatever kind.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who asks more often than this is told the same again: making a page takes the model for a moment.
const PAGE_EVERY: Nanos = Nanos(200_000_000);

/// What was made last, for everybody who asks within [`PAGE_EVERY`].
struct Latest<T>(Mutex<Option<(Timestamp, T)>>);

impl<T: Clone> Latest<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn or<E>(&self, now: Timestamp, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((at, page)) if now.since(*at) < PAGE_EVERY => Ok(page.clone()),
            _ => {
                let page = make()?;
                *latest = Some((now, page.clone()));
                Ok(page)
            }
        }
    }
}

/// The metrics page in both formats.
#[derive(Clone)]
struct Metrics {
    open: Bytes,
    classic: Bytes,
}

const INDEX: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>tcpwatch</title>\
<h1>tcpwatch</h1><ul>\
<li><a href=\"/metrics\">metrics</a>\
<li><a href=\"/findings\">findings</a>: connections that linger now\
<li><a href=\"/readyz\">readyz</a>: whether it watches\
<li><a href=\"/healthz\">healthz</a>: whether it lives</ul>\n";

/// Answers requests.
pub(super) struct Routes {
    model: Arc<Model>,
    metrics: Latest<Metrics>,
    findings: Latest<Arc<OpenFindings>>,
}

impl Routes {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Self { model, metrics: Latest::new(), findings: Latest::new() }
    }

    /// The answer. Bodies of requests are not looked at.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        if !["/", "/metrics", "/findings", "/healthz", "/readyz"].contains(&path) {
            return text(StatusCode::NOT_FOUND, "there is no such page; see /\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => self.metrics(request.headers()),
            "/findings" => self.findings(request.headers()),
            "/readyz" => match self.model.trouble(clock::now()) {
                None => text(StatusCode::OK, "ready\n"),
                Some(trouble) => unavailable(trouble),
            },
            "/healthz" => text(StatusCode::OK, "alive\n"),
            _ => response(StatusCode::OK, "text/html; charset=utf-8", full(INDEX.into())),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Body> {
        if !self.model.has_begun() {
            return unavailable(NOT_YET);
        }
        let format = negotiate::Metrics::wanted(accept(headers));
        let now = clock::now();
        match self.metrics.or(now, || self.pages(now)) {
            Ok(pages) => {
                let page = match format {
                    negotiate::Metrics::Open => pages.open,
                    negotiate::Metrics::Classic => pages.classic,
                };
                response(StatusCode::OK, format.content_type(), full(page))
            }
            Err(error) => {
                log::error!("cannot write the metrics: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics\n")
            }
        }
    }

    fn pages(&self, now: Timestamp) -> Result<Metrics, std::fmt::Error> {
        let open = exposition::open_metrics(self.model.page(now))?;
        Ok(Metrics { classic: exposition::classic(&open)?.into(), open: open.into() })
    }

    fn findings(&self, headers: &HeaderMap) -> Response<Body> {
        if !self.model.has_begun() {
            return unavailable(NOT_YET);
        }
        let format = negotiate::Findings::wanted(accept(headers));
        let now = clock::now();
        let make = || Ok::<_, Infallible>(Arc::new(self.model.findings(now)));
        let Ok(open) = self.findings.or(now, make);
        let more = open.more;
        let body = Findings::new(open, format).boxed_unsync();
        let mut response = response(StatusCode::OK, format.content_type(), body);
        response.headers_mut().insert("tcpwatch-left-out", HeaderValue::from(more));
        response
    }
}

const NOT_YET: &str = "starting: not every open socket was seen yet";

fn accept(headers: &HeaderMap) -> &str {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

fn unavailable(why: &'static str) -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Whoever has no password, or a wrong one.
pub(super) fn unauthorized() -> Response<Body> {
    let mut refusal = text(StatusCode::UNAUTHORIZED, "a user and a password are needed\n");
    let challenge = HeaderValue::from_static("Basic realm=\"tcpwatch\", charset=\"UTF-8\"");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    refusal
}

/// A few words.
fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", full(words.into()))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::model::Options;

    #[test]
    fn pages_are_made_five_times_a_second_at_most() {
        let latest = Latest::new();
        let at = |ms: u64| {
            let now = Timestamp(Nanos::SECOND.0 + ms * 1_000_000);
            let Ok(page) = latest.or(now, || Ok::<_, Infallible>(ms));
            page
        };
        assert_eq!([0, 1, 100, 199, 200, 399, 400].map(at), [0, 0, 0, 0, 200, 200, 400]);
        assert!(latest.or(Timestamp(u64::MAX), || Err(())).is_err());
    }

    #[test]
    fn there_is_nothing_to_show_until_every_open_socket_was_seen() {
        let options = Options { linger: Nanos::SECOND, top: 1, count_every: Nanos::SECOND };
        let model = Arc::new(Model::new(options, None));
        let routes = Routes::new(Arc::clone(&model));
        let status = |path| routes.answer(&Request::get(path).body(()).unwrap()).status().as_u16();
        let paths = ["/metrics", "/findings", "/readyz", "/healthz", "/"];
        assert_eq!(paths.map(status), [503, 503, 503, 200, 200]);
        model.is_ready();
        assert_eq!(paths.map(status), [200, 200, 503, 200, 200], "nor has it looked of late");
    }
}
