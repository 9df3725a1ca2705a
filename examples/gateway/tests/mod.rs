//! The gateway between two ends of memory. Time stands still until nobody can go on without it, so
//! that time-outs are exact, and cost nothing.

mod counting;
mod entry;
mod failures;
mod framing;
mod headers;
mod http2;
mod junk;
mod server;
mod settings;
mod streaming;
mod streams;
mod swap;
mod traces;
mod tunnel;

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Uri;
use cloakroom_resource::{
    Introspection, Introspector, PhantomJwt, PhantomLayer, TokenSecret, UnavailableError,
};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
    ReadBuf, duplex,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower::service_fn;

use crate::allowed::Allowed;
use crate::app;
use crate::entry::Rules;
use crate::proxy::{Proxy, Timeouts, limited};
use crate::server::{App, Limits, Peer, connection};
use crate::tunnel::Tunnels;

/// The one handle that is active.
const HANDLE: &str = "cr_at_good";
/// `{}` . `{}` . `sig`
const JWT: &str = "e30.e30.c2ln";
/// The fields that are forwarded besides the standard ones.
const NAMED: [&str; 9] = [
    "x-api-key",
    "X-Client-Version",
    "x-csrf-token",
    "x-mine",
    "x-also-mine",
    "x-third",
    "x-stays",
    "http2-settings",
    "x-long",
];
/// How much a wire holds that nobody reads.
const WIRE: usize = 1024;

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    head: Duration::from_secs(30),
    idle: Duration::from_secs(60),
    keep: Duration::from_secs(4),
};
const LIMITS: Limits = Limits {
    connections: 100,
    first: Duration::from_secs(10),
    next: Duration::from_secs(75),
    stuck: Duration::from_secs(60),
    head: 8 * 1024,
    grace: Duration::from_secs(25),
};
const TUNNEL_IDLE: Duration = Duration::from_secs(60);
const TUNNEL_LIFETIME: Duration = Duration::from_secs(600);

struct World {
    app: App,
    ending: watch::Sender<()>,
    tunnels: Tunnels,
    opened: UnboundedReceiver<Wire>,
    swaps: Arc<AtomicUsize>,
    address: SocketAddr,
    seats: Arc<Semaphore>,
}

/// What becomes of a connection to the service.
#[derive(Debug, Clone, Copy)]
enum Service {
    Up,
    Down,
    /// Packets get lost.
    Silent,
}

impl World {
    fn new() -> Self {
        Self::with(Rules::default(), Service::Up)
    }

    fn with(rules: Rules, service: Service) -> Self {
        let swaps = Arc::new(AtomicUsize::new(0));
        let phantom = PhantomLayer::new(Swaps(Arc::clone(&swaps)), "https://orders.example");
        Self::of(rules, service, phantom, swaps)
    }

    fn of(rules: Rules, service: Service, phantom: PhantomLayer, swaps: Arc<AtomicUsize>) -> Self {
        let (open, opened) = unbounded_channel();
        let tunnels = Tunnels::new(TUNNEL_IDLE, TUNNEL_LIFETIME);
        let uri = Uri::from_static("http://orders.internal:9100");
        let connector =
            limited(service_fn(move |_: Uri| dial(service, open.clone())), TIMEOUTS.connect);
        let allowed = Allowed::and(NAMED).unwrap();
        let proxy = Proxy::new(connector, &uri, allowed, TIMEOUTS, tunnels.clone()).unwrap();
        Self {
            app: app(rules, phantom, proxy),
            ending: watch::Sender::new(()),
            tunnels,
            opened,
            swaps,
            address: SocketAddr::from(([192, 0, 2, 7], 50_000)),
            seats: Arc::new(Semaphore::new(LIMITS.connections)),
        }
    }

    /// A client's connection.
    fn client(&self) -> Wire {
        Wire::new(self.raw_client())
    }

    fn raw_client(&self) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        let seat = Arc::clone(&self.seats).try_acquire_owned().unwrap();
        let peer = Peer { address: self.address, seat: Some(Arc::new(seat)) };
        let served = connection(far, peer, self.app.clone(), LIMITS, self.ending.subscribe());
        tokio::spawn(served);
        near
    }

    /// The next connection that the gateway opens.
    async fn service(&mut self) -> Wire {
        in_time(self.opened.recv()).await.unwrap()
    }

    /// How many more it has opened.
    fn more_connections(&mut self) -> usize {
        std::iter::from_fn(|| self.opened.try_recv().ok()).count()
    }

    fn swaps(&self) -> usize {
        self.swaps.load(Ordering::SeqCst)
    }
}

/// A request with a good handle, up to the end of its head.
fn request(line: &str, fields: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nhost: api.example\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    format!("{head}authorization: Bearer {HANDLE}\r\n\r\n")
}

async fn dial(service: Service, open: UnboundedSender<Wire>) -> io::Result<TokioIo<Pipe>> {
    match service {
        Service::Up => {
            let (near, far) = duplex(WIRE);
            open.send(Wire::new(far)).unwrap();
            Ok(TokioIo::new(Pipe(near)))
        }
        Service::Down => Err(io::ErrorKind::ConnectionRefused.into()),
        Service::Silent => pending().await,
    }
}

/// One end of a connection, for a test that speaks HTTP itself.
#[derive(Debug)]
struct Wire(BufReader<DuplexStream>);

impl Wire {
    fn new(stream: DuplexStream) -> Self {
        Self(BufReader::new(stream))
    }

    async fn send(&mut self, text: &str) {
        in_time(self.0.get_mut().write_all(text.as_bytes())).await.unwrap();
    }

    /// The next head, in lower case, but for its values.
    async fn head(&mut self) -> Head {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            let read = in_time(self.0.read_line(&mut text)).await.unwrap();
            assert_ne!(read, 0, "it ends within a head: {text:?}");
        }
        Head(text)
    }

    /// So much of a body.
    async fn take(&mut self, expected: &str) {
        let mut found = vec![0; expected.len()];
        in_time(self.0.read_exact(&mut found)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&found), expected);
    }

    /// All that still comes, until the other side closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        in_time(self.0.read_to_end(&mut rest)).await.unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// Answers a request with 200 and this body.
    async fn answer(&mut self, body: &str) {
        let length = body.len();
        self.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    }
}

#[derive(Debug)]
struct Head(String);

impl Head {
    fn line(&self) -> &str {
        self.0.lines().next().unwrap()
    }

    fn status(&self) -> u16 {
        self.line().split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The values of all fields of this name.
    fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.0.lines().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

/// Whatever takes an hour would take for ever.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(3600), future).await.expect("nothing happens any more")
}

/// An authorization server that knows one handle, and counts.
#[derive(Debug)]
struct Swaps(Arc<AtomicUsize>);

#[async_trait]
impl Introspector for Swaps {
    async fn introspect(&self, _: &TokenSecret) -> Result<Introspection, UnavailableError> {
        Ok(Introspection::Inactive)
    }

    async fn swap(
        &self,
        handle: &TokenSecret,
        _: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let good = handle.expose() == HANDLE;
        good.then(|| PhantomJwt::parse(TokenSecret::new(JWT))).transpose()
    }
}

#[derive(Debug)]
struct Pipe(DuplexStream);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
