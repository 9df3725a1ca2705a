//! A server for the endpoints, for apps that do not have their own.

mod connection;
mod open_connections;

pub(in crate::http) use connection::BodyTimeout;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::serve::connection::Connection;
use crate::http::serve::open_connections::OpenConnections;

/// How many refused connections are told so at once; any more are closed without a word.
const MAX_REFUSALS: usize = 32;

/// How long a refused client may take to read that it is refused.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// How long accepting pauses when the system has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves an app over HTTP/1.1 on a listener, with limits that a server on the Internet needs. It
/// has no TLS: put a proxy in front of it.
///
/// The head of a request may have at most 32 KiB and 100 headers. A request without exactly one
/// valid `Host` is refused (RFC 9112 §3.2), and so is any transfer coding but `chunked`.
///
/// Takes [`Endpoints`](crate::http::Endpoints), or an [`axum::Router`] that they were merged into.
/// Await it; without [`graceful_shutdown`](Server::graceful_shutdown) it runs until the task ends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::http::{Endpoints, serve};
/// use cloakroom::{Client, Issuer};
///
/// let issuer = Issuer::dev().static_clients([Client::public("app")])?.build().await?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let stop = async { /* tokio::signal::ctrl_c().await */ };
/// serve(listener, Endpoints::new(issuer)).graceful_shutdown(stop).await?;
/// # Ok(()) }
/// ```
pub fn serve(listener: TcpListener, app: impl Into<Router>) -> Server {
    Server {
        listener,
        app: app.into(),
        limits: Limits {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        },
        max_connections: open_connections::default_limit(),
        drain: Duration::from_secs(10),
        shutdown: None,
    }
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    head: Duration,
    body: Duration,
    idle: Duration,
}

/// A server that [`serve`] has made, before it is awaited.
#[must_use = "a server serves once it is awaited"]
pub struct Server {
    listener: TcpListener,
    app: Router,
    limits: Limits,
    max_connections: usize,
    drain: Duration,
    shutdown: Option<Shutdown>,
}

impl Server {
    /// How long a client may take to send the head of a request, from its first byte: 10 s by
    /// default. Then the connection is closed.
    pub const fn head_timeout(mut self, limit: Duration) -> Self {
        self.limits.head = limit;
        self
    }

    /// How long a client may take to send a whole body: 10 s by default. After that, the endpoints of this
    /// crate answer 408, and a handler of yours gets an error from the body. The same limit applies while a
    /// part of the response waits for the client to read. Uploads that are passed on need a higher one.
    pub const fn body_timeout(mut self, limit: Duration) -> Self {
        self.limits.body = limit;
        self
    }

    /// How long a connection may be idle between two requests: 75 s by default.
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.limits.idle = limit;
        self
    }

    /// How many connections may be open at once. The default is the process's limit of file
    /// descriptors minus 64, and 10,000 at most. If that many are open, a new one replaces the
    /// connection that has been idle longest, if it has been idle for at least a second. Failing
    /// that, it replaces the one that has been sending a request longest, if it has done so for at
    /// least a second. Otherwise the response is 503.
    pub const fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit;
        self
    }

    /// Shuts the server down when `signal` completes: it accepts no more connections, closes idle
    /// ones, and finishes the requests under way within [`drain_timeout`](Self::drain_timeout).
    pub fn graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(signal));
        self
    }

    /// How long requests may take to finish after the signal: 10 s by default.
    pub const fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    async fn run(self) -> io::Result<()> {
        let Self { listener, app, limits, max_connections, drain, shutdown } = self;
        let open = Arc::new(OpenConnections::new(max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut shutdown = shutdown.unwrap_or_else(|| Box::pin(std::future::pending()));
        loop {
            let accepted = tokio::select! {
                // Before anything else: under load, accepting is always ready.
                biased;
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    open.make_room();
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Answers are small: none waits to be sent together with the next.
            let _ = stream.set_nodelay(true);
            match open.admit() {
                Some(place) => {
                    let connection = Connection::new(stream, place, limits);
                    tasks.spawn(connection.serve(app.clone(), stopped.clone()));
                }
                None => {
                    tracing::warn!(max_connections, "a connection is refused: none is idle");
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        tokio::spawn(async move {
                            let _ = timeout(REFUSAL_TIME, refuse(stream)).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
        drop(listener);
        let _ = stop.send(true);
        let ended = timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!(requests = tasks.len(), "the shutdown interrupted requests");
        }
        Ok(())
    }
}

impl IntoFuture for Server {
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// Whether the next connection may be accepted all the same, at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Says that there is no place. What the client sends is read away: a connection that is closed
/// over unread bytes is reset, and the answer lost.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
        cache-control: no-store\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(ANSWER).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
