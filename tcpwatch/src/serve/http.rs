//! The HTTP server, on a thread of its own: whatever its clients do, the run goes on.
//!
//! Everything that a client may take is bounded: time, bytes of a request, and connections.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    auth::Auth,
    connections::{Admitted, Connections, Source},
    routes::{self, Routes},
    tls::Tls,
};

/// Connections at a time.
const MOST_CONNECTIONS: usize = 64;
/// Bytes of a request's head, and headers in it.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// How long a head may take, from the connection or from the last answer on.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may last, whatever happens on it. Who scrapes opens another.
const CONNECTION_LASTS: Duration = Duration::from_mins(5);
/// How long the handshake of TLS may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait after `accept` has failed, as when there are no descriptors left.
const REST: Duration = Duration::from_millis(100);
/// Threads for what blocks: a password check, and look-ups of a collector's name.
const BLOCKING_THREADS: usize = 4;

/// What is answered, to whom, and how.
pub(super) struct Server {
    /// Answers.
    pub(super) routes: Routes,
    /// Who may ask.
    pub(super) auth: Arc<Auth>,
    /// `None` in the clear.
    pub(super) tls: Option<Tls>,
}

/// What is done on that thread besides, while the process lasts.
pub(super) type Beside = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The address, taken; nothing is answered yet.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("listen on {address}; --listen takes another address or port"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers from now on, until the process ends.
pub(super) fn start(listener: TcpListener, server: Server, beside: Option<Beside>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let serve = move || {
        if let Some(task) = beside {
            drop(runtime.spawn(task));
        }
        if let Err(error) = runtime.block_on(serve(listener, Arc::new(server))) {
            log::error!("cannot serve any more: {error}");
        }
    };
    thread::Builder::new().name("http".to_owned()).spawn(serve).context("start a thread")?;
    Ok(())
}

async fn serve(listener: TcpListener, server: Arc<Server>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = Connections::new(MOST_CONNECTIONS);
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::debug!("accept: {error}");
                sleep(REST).await;
                continue;
            }
        };
        connections.make_room();
        let (source, admitted) = (Source::from(client.ip()), Admitted::default());
        let answers = connection(stream, Arc::clone(&server), source, admitted.clone());
        connections.add(source, admitted, tokio::spawn(answers).abort_handle());
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>, source: Source, admitted: Admitted) {
    let answered = async {
        let Some(tls) = &server.tls else {
            return answer(stream, &server, source, admitted).await;
        };
        match timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => answer(stream, &server, source, admitted).await,
            Ok(Err(error)) => log::debug!("a client: {error}"),
            Err(_) => {}
        }
    };
    let _ = timeout(CONNECTION_LASTS, answered).await;
}

async fn answer<S>(stream: S, server: &Arc<Server>, source: Source, admitted: Admitted)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let (server, admitted) = (Arc::clone(server), admitted.clone());
        async move {
            let admits = server.auth.admits(request.headers(), source).await;
            Ok::<_, std::convert::Infallible>(if admits {
                admitted.now();
                server.routes.answer(&request)
            } else {
                routes::unauthorized()
            })
        }
    });
    let done = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = done.await {
        log::debug!("a client: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        core::time::Nanos,
        serve::model::{Model, Options},
    };

    fn server() -> Arc<Server> {
        let options = Options { linger: Nanos::SECOND, top: 1, count_every: Nanos::SECOND };
        let routes = Routes::new(Arc::new(Model::new(options, None)));
        Arc::new(Server { routes, auth: Arc::new(Auth::new(BTreeMap::new()).unwrap()), tls: None })
    }

    /// A client, and what becomes of its connection.
    async fn connected() -> (TcpStream, impl Future<Output = Duration>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let served = connection(stream, server(), address.ip().into(), Admitted::default());
        let lasted = async {
            let begun = Instant::now();
            served.await;
            begun.elapsed()
        };
        (client, lasted)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_and_a_connection_has() {
        let (silent, lasted) = connected().await;
        assert_eq!(lasted.await, HEAD_WITHIN);
        drop(silent);

        let (client, lasted) = connected().await;
        let asks = async {
            while client.try_write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {
                sleep(HEAD_WITHIN / 2).await;
            }
        };
        tokio::select! {
            lasted = lasted => assert_eq!(lasted, CONNECTION_LASTS),
            () = asks => panic!("it was closed"),
        }
    }
}
