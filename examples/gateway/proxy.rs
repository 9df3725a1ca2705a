//! The reverse proxy: it forwards a request to the service, and returns the answer.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, uri};
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::counter;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::allowed::Allowed;
use crate::body::{Activity, Interrupted, Watched};
use crate::headers::{Caller, is_websocket, remove_hop_by_hop, to_service};
use crate::server::{Peer, Seat};
use crate::tunnel::Tunnels;

/// How long the gateway waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For a connection to the service, including the lookup of its name.
    pub(crate) connect: Duration,
    /// For the head of the answer, once the request is sent. Time spent waiting for a client that
    /// uploads does not count.
    pub(crate) head: Duration,
    /// For the next piece of a body.
    pub(crate) idle: Duration,
    /// How long an idle connection is kept for the next request. It must be less than the service's
    /// keep-alive time-out; otherwise a request that may not be repeated now and then meets a closing
    /// connection (502).
    pub(crate) keep: Duration,
}

/// Forwards requests to one service. Connections are shared and reused.
#[derive(Debug)]
pub(crate) struct Proxy<C> {
    client: Client<C, Body>,
    /// Opens a connection for each request.
    fresh: Client<C, Body>,
    authority: uri::Authority,
    allowed: Allowed,
    timeouts: Timeouts,
    tunnels: Tunnels,
}

/// Why there is no answer. The client gets only the status.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no layer in front says who is calling")]
    Unannounced,
    #[error("the target of the request is no path")]
    Target,
    #[error("the service sent no answer for {0:?}")]
    Slow(Duration),
    #[error("the service switched to a protocol that nobody asked for")]
    Switched,
    #[error("the request could not be sent on")]
    Exchange(#[from] hyper_util::client::legacy::Error),
}

impl<C: Connect + Clone + Send + Sync + 'static> Proxy<C> {
    /// `service` is `http://` and a host, with or without a port, and nothing else.
    pub(crate) fn new(
        connector: C,
        service: &Uri,
        allowed: Allowed,
        timeouts: Timeouts,
        tunnels: Tunnels,
    ) -> Result<Arc<Self>, BoxError> {
        let is_plain = service.scheme() == Some(&uri::Scheme::HTTP) && service.path() == "/";
        let host = service.authority().filter(|host| is_plain && !host.as_str().contains('@'));
        let Some(authority) = host.cloned() else {
            return Err(format!("`{service}` is not http:// and a host alone").into());
        };
        let mut builder = Client::builder(TokioExecutor::new());
        let fresh = builder.pool_max_idle_per_host(0).build(connector.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(timeouts.keep)
            .build(connector);
        // Shared, so that the future of a request holds a pointer and no clients.
        Ok(Arc::new(Self { client, fresh, authority, allowed, timeouts, tunnels }))
    }

    /// The answer of the service, or the gateway's error if there is none.
    pub(crate) async fn forward(&self, request: Request) -> Response {
        self.exchange(request).await.unwrap_or_else(|failure| {
            let error: &dyn Error = &failure;
            let (status, kind) = failure.status();
            if status.is_server_error() {
                tracing::warn!(error, "a request gets no answer");
            } else {
                tracing::debug!(error, "a request does not arrive");
            }
            counter!("gateway_failures_total", "kind" => kind).increment(1);
            status.into_response()
        })
    }

    async fn exchange(&self, mut request: Request) -> Result<Response, Failure> {
        let waiting = is_websocket(&request).then(|| upgrade::on(&mut request));
        let activity = Activity::new();
        let (mut parts, body) = request.into_parts();
        let seat = parts.extensions.get::<Peer>().and_then(|peer| peer.seat.clone());
        self.address(&mut parts, waiting.is_some(), &body)?;
        let mut onward = Request::new(Watched::upload(body, self.timeouts.idle, activity.clone()));
        // No extensions are passed on: the client's pool must not see what a layer in front added. The
        // version is that of the connection to the service.
        *onward.method_mut() = parts.method;
        *onward.uri_mut() = parts.uri;
        *onward.headers_mut() = parts.headers;
        let again = may_be_repeated(&onward, waiting.is_some()).then(|| copy_without_body(&onward));
        let exchange = async {
            match (self.client.request(onward).await, again) {
                (Err(error), Some(again)) if is_closed(&error) => {
                    tracing::debug!(error = &error as &dyn Error, "trying a new connection");
                    self.fresh.request(*again).await
                }
                (outcome, _) => outcome,
            }
        };
        let mut response = tokio::select! {
            response = exchange => response?,
            () = activity.stalled(self.timeouts.head) => {
                return Err(Failure::Slow(self.timeouts.head));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let service = upgrade::on(&mut response);
            let headers = response.headers().clone();
            return self.switch(waiting, service, headers, seat);
        }
        remove_hop_by_hop(response.headers_mut());
        Ok(response.map(|body| Watched::download(Body::new(body), self.timeouts.idle)))
    }

    /// Turns the head of a request into one for the service.
    fn address(&self, parts: &mut Parts, websocket: bool, body: &Body) -> Result<(), Failure> {
        let path = parts.uri.path_and_query().filter(|path| path.as_str().starts_with('/'));
        // Built from parts, so that no path can change the host.
        let mut uri = uri::Parts::default();
        uri.scheme = Some(uri::Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(path.ok_or(Failure::Target)?.clone());
        parts.uri = Uri::from_parts(uri).map_err(|_| Failure::Target)?;

        let caller = parts.extensions.get::<Caller>().ok_or(Failure::Unannounced)?;
        let had_length = parts.headers.contains_key(header::CONTENT_LENGTH);
        to_service(&mut parts.headers, &self.allowed, parts.version, caller);
        if websocket {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        } else if let Some(length) = body.size_hint().exact() {
            if length > 0 || had_length {
                parts.headers.insert(header::CONTENT_LENGTH, length.into());
            }
        } else if !body.is_end_stream() {
            // Otherwise the client would send a GET without its body.
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        Ok(())
    }

    /// RFC 9110 §7.8: 101 may answer only a request for an upgrade, with the requested protocol.
    fn switch(
        &self,
        client: Option<OnUpgrade>,
        service: OnUpgrade,
        mut headers: HeaderMap,
        seat: Seat,
    ) -> Result<Response, Failure> {
        let to = headers.get(header::UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        let (Some(client), true) = (client, to.eq_ignore_ascii_case(b"websocket")) else {
            return Err(Failure::Switched);
        };
        self.tunnels.open(client, service, seat);
        remove_hop_by_hop(&mut headers);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }
}

impl Failure {
    /// The status for the client, and the label by which failures are counted.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unannounced => (StatusCode::INTERNAL_SERVER_ERROR, "setup"),
            Self::Target => (StatusCode::BAD_REQUEST, "target"),
            Self::Slow(_) => (StatusCode::GATEWAY_TIMEOUT, "head"),
            Self::Switched => (StatusCode::BAD_GATEWAY, "upgrade"),
            Self::Exchange(error) => match cause(error) {
                Some(Interrupted::Idle(_)) => (StatusCode::REQUEST_TIMEOUT, "upload"),
                Some(Interrupted::Broken(_)) => (StatusCode::BAD_REQUEST, "upload"),
                None if cause::<Elapsed>(error).is_some() => {
                    (StatusCode::GATEWAY_TIMEOUT, "connect")
                }
                None if error.is_connect() => (StatusCode::BAD_GATEWAY, "connect"),
                None => (StatusCode::BAD_GATEWAY, "exchange"),
            },
        }
    }
}

/// RFC 9110 §9.2.2: "A client SHOULD NOT automatically retry a request with a non-idempotent method".
/// Bodies are not kept, so a request with one is not repeated, either.
fn may_be_repeated(request: &Request, websocket: bool) -> bool {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    is_safe && !websocket && request.body().is_end_stream()
}

/// On the heap, since hardly any request needs it: the future stays small.
fn copy_without_body(request: &Request) -> Box<Request> {
    let mut copy = Box::new(Request::new(Body::empty()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Whether the service ended a connection before an answer: it may close one that was kept just as a
/// request goes out.
fn is_closed(error: &hyper_util::client::legacy::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let gone = [BrokenPipe, ConnectionAborted, ConnectionReset];
    !error.is_connect()
        && (cause::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || cause::<io::Error>(error).is_some_and(|error| gone.contains(&error.kind())))
}

/// The first of this type among the causes of an error.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let found = error.downcast_ref();
    found.or_else(|| cause(error.source()?))
}

/// Connects over TCP. TLS to the services would come in here.
pub(crate) fn tcp(timeout: Duration) -> impl Connect + Clone + Send + Sync + 'static {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // Detects a service whose machine has vanished, and closes its connections.
    connector.set_keepalive(Some(Duration::from_secs(60)));
    limited(connector, timeout)
}

/// Bounds the time of connecting, including the lookup of the name, and counts connections.
pub(crate) fn limited<C>(
    connector: C,
    timeout: Duration,
) -> BoxCloneSyncService<Uri, C::Response, BoxError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    let connector = ServiceBuilder::new().layer(TimeoutLayer::new(timeout)).service(connector);
    BoxCloneSyncService::new(connector.map_response(|connection| {
        counter!("gateway_connections_to_service_total").increment(1);
        connection
    }))
}
