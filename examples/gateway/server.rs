//! The listener: accepts connections, bounds each of them, and shuts down gracefully.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::streams::Streams;
use crate::tunnel::Tunnels;

/// The service that handles every request.
pub(crate) type App = BoxCloneSyncService<Request, Response, Infallible>;

/// Limits for one client, and for all of them together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at a time; others wait in the operating system's queue.
    pub(crate) connections: usize,
    /// For the first request of a connection.
    pub(crate) first: Duration,
    /// For each further request: from the previous answer (with HTTP/2, from the end of the last
    /// stream) until its head is there. A load balancer in front should keep connections for less.
    pub(crate) next: Duration,
    /// For a client that stops reading an answer, or does not close when it is asked to.
    pub(crate) stuck: Duration,
    /// The size of a request's head in bytes, at least 8,192: a longer one is answered with 431.
    pub(crate) head: usize,
    /// For connections that are open at shutdown.
    pub(crate) grace: Duration,
}

/// Serves until `stop`. Then it accepts no more connections, and open ones end after their current
/// request; tunnels stay open. Returns when none is left, or when the time for that is over.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    limits: Limits,
    tunnels: Tunnels,
    stop: impl Future<Output = ()>,
) {
    let open = Arc::new(Semaphore::new(limits.connections));
    let ending = watch::Sender::new(());
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&open).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true);
                let peer = Peer { address, seat: permit.ok().map(Arc::new) };
                tokio::spawn(connection(stream, peer, app.clone(), limits, ending.subscribe()));
            }
            Err(error) => {
                // Most likely out of file descriptors: give other connections time to end.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async {
        let _ = ending.send(());
        ending.closed().await;
        tunnels.closed().await;
    };
    if timeout(limits.grace, ended).await.is_err() {
        tracing::warn!("what is still open is cut off");
    }
}

/// The peer of a connection, and its place.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) seat: Seat,
}

/// A place among the connections that may be open, freed when the last clone is dropped.
pub(crate) type Seat = Option<Arc<OwnedSemaphorePermit>>;

/// Serves one connection, HTTP/1.1 or HTTP/2, to its end; after `ending`, no further request.
pub(crate) async fn connection<I>(
    io: I,
    peer: Peer,
    app: App,
    limits: Limits,
    mut ending: watch::Receiver<()>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    gauge!("gateway_connections").increment(1);
    let arrived = AtomicBool::new(false);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        arrived.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        let answer = app.clone().oneshot(request.map(Body::new));
        async { answer.await.map(Streams::watched) }
    });
    let streams = Streams::new(limits.stuck);
    let builder = builder(limits, streams.clone());
    let io = TokioIo::new(Impatient { inner: io, stuck: limits.stuck, timer: None });
    let mut served = pin!(builder.serve_connection_with_upgrades(io, service));

    let unused = Notify::new();
    let served = async {
        tokio::select! {
            end = &mut served => return end,
            _ = ending.changed() => {}
            () = unused.notified() => {}
        }
        served.as_mut().graceful_shutdown();
        served.await
    };
    // The first bytes show the version, and hyper would wait for them for ever.
    let silent = async {
        sleep(limits.first).await;
        if arrived.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    // hyper ends an idle HTTP/1.1 connection, but keeps an HTTP/2 connection that answers pings. A
    // client that is asked to close still has time to read what it was sent.
    let seated = async {
        streams.unused_for(limits.next).await;
        unused.notify_one();
        streams.unused_for(limits.stuck).await;
    };
    let end = tokio::select! {
        end = served => end,
        () = silent => Ok(()),
        () = seated => Ok(()),
    };
    gauge!("gateway_connections").decrement(1);
    if let Err(error) = end {
        tracing::debug!(error = &*error, "a connection breaks");
    }
}

fn builder(limits: Limits, streams: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.next)
        .max_buf_size(limits.head)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_concurrent_streams(100)
        .keep_alive_interval(limits.next)
        .keep_alive_timeout(limits.first);
    builder
}

/// A stream that breaks if the peer reads nothing for too long: a client that requests much and reads
/// nothing would hold its request for ever.
#[derive(Debug)]
struct Impatient<I> {
    inner: I,
    stuck: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<I> Impatient<I> {
    fn patience<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.stuck)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Impatient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Impatient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.patience(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.patience(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.patience(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.patience(cx, shut)
    }
}
