//! One connection: its requests, and the time that its peer may take for each part of them.

use std::convert::Infallible;
use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::axum::Router;
use ::axum::body::Body;
use ::http::uri::Authority;
use ::http::{Request, Response, StatusCode, Version, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service as _;

use crate::http::respond;
use crate::http::serve::Limits;
use crate::http::serve::open_connections::{Phase, Place};

/// The most bytes that the head of a request may have.
const MAX_HEAD: usize = 32 * 1024;

/// The most bytes that are read at once.
const MAX_READ: usize = 4 * 1024;

/// A connection that was given a place.
pub(super) struct Connection {
    stream: TcpStream,
    place: Arc<Place>,
    limits: Limits,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, place: Place, limits: Limits) -> Self {
        Self { stream, place: Arc::new(place), limits }
    }

    /// Answers requests until the peer or the server has had enough.
    pub(super) async fn serve(self, app: Router, mut stopped: watch::Receiver<bool>) {
        let Self { stream, place, limits } = self;
        let io = Timed::new(stream, Arc::clone(&place), limits);
        let service = service_fn({
            let place = Arc::clone(&place);
            move |request: Request<Incoming>| {
                let under_way = UnderWay::begin(&place);
                let left = Left::default();
                // A client that asks first is not told to go on: it need not send what nobody reads.
                let asks = request.headers().contains_key(header::EXPECT);
                let body = |incoming| {
                    let (since, place) = (Instant::now(), Arc::clone(&place));
                    let body =
                        TimedBody { incoming, since, limit: limits.body, place, timer: None };
                    Body::new(Returned { body: Some(body), reading: None, to: left.clone() })
                };
                let answer = match head_refusal(&request) {
                    None => Ok(app.clone().call(request.map(body))),
                    Some(refused) => Err(refused.map(Body::from)),
                };
                async move {
                    let response = match answer {
                        Ok(answer) => {
                            let response = answer.await?;
                            if !asks {
                                left.read().await;
                            }
                            response
                        }
                        Err(refused) => refused,
                    };
                    Ok::<_, Infallible>(response.map(|body| Answer { body, _under_way: under_way }))
                }
            }
        });
        let connection = http1::Builder::new()
            // The time limits are those of `Timed`.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = &mut connection => result,
            () = place.told_to_leave() => {
                // A request that is still coming is given up, like one of a peer that goes away, and so is an
                // answer that the peer does not take.
                if place.is_slow() {
                    tracing::debug!("a connection of a slow peer was closed to make room");
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = stop(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "a connection failed");
        }
    }
}

/// The refusal of a head that a proxy and this server could read differently.
fn head_refusal<B>(request: &Request<B>) -> Option<Response<Bytes>> {
    let headers = request.headers();
    // RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
    // request message that lacks a Host header field and to any request message that contains more
    // than one Host header field line or a Host header field with an invalid field value."
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_good = match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => {
            let is_authority = Authority::try_from(host.as_bytes()).is_ok();
            host.is_empty() || is_authority && !host.as_bytes().contains(&b'@')
        }
        (Some(_), Some(_)) => false,
    };
    if !is_good {
        let why = "a request must have one valid Host";
        return Some(respond::bad_head(StatusCode::BAD_REQUEST, why));
    }
    // RFC 9112 §6.1: "A server that receives a request message with a transfer coding it does not
    // understand SHOULD respond with 501 (Not Implemented)." hyper looks at the last one alone.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_good = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !is_good {
        let why = "the transfer coding must be chunked and nothing else";
        return Some(respond::bad_head(StatusCode::NOT_IMPLEMENTED, why));
    }
    None
}

/// Waits until the server stops.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // A server that was dropped has stopped, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Marks the connection as busy as long as it lives.
struct UnderWay(Arc<Place>);

impl UnderWay {
    fn begin(place: &Arc<Place>) -> Self {
        place.set_phase(Phase::Busy);
        Self(Arc::clone(place))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set_idle();
    }
}

/// The body of an answer: the request is under way until hyper has taken all of it.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = ::axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, which must have come by a certain time.
struct TimedBody {
    incoming: Incoming,
    since: Instant,
    limit: Duration,
    place: Arc<Place>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The peer took too long for a body.
#[derive(Debug)]
pub(in crate::http) struct BodyTimeout;

impl fmt::Display for BodyTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body took too long to arrive")
    }
}

impl std::error::Error for BodyTimeout {}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.place.body_has_come();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.place.body_is_to_come(self.since);
        let end = self.since + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The most bytes of a body that are read although the app did not want it.
const MAX_UNWANTED: u64 = 64 * 1024;

/// A body that the app did not read. If it answers before the body has come, as with 401, hyper closes
/// the connection, which its client believes to be open: the next request would fail. So a small body is
/// read first. One that the app began to read and gave up is not: it was too large, or too slow.
#[derive(Clone, Default)]
struct Left(Arc<Mutex<Option<TimedBody>>>);

impl Left {
    fn slot(&self) -> MutexGuard<'_, Option<TimedBody>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) {
        let body = self.slot().take();
        let Some(mut body) = body.filter(|body| body.size_hint().lower() <= MAX_UNWANTED) else {
            return;
        };
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > MAX_UNWANTED {
                return;
            }
        }
    }
}

/// A body that comes back if the app drops it unread.
struct Returned {
    /// `None` once the app has begun to read: then it is in `reading`.
    body: Option<TimedBody>,
    reading: Option<TimedBody>,
    to: Left,
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(body) = self.body.take() {
            self.reading = Some(body);
        }
        match &mut self.reading {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.either().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.either().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Returned {
    fn either(&self) -> Option<&TimedBody> {
        self.body.as_ref().or(self.reading.as_ref())
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        *self.to.slot() = self.body.take().filter(|body| !body.is_end_stream());
    }
}

/// A body that was dropped is not waited for.
impl Drop for TimedBody {
    fn drop(&mut self) {
        self.place.body_has_come();
    }
}

/// A stream whose peer must not take too long: to begin a request, to send its head, to take an
/// answer.
pub(super) struct Timed {
    stream: TcpStream,
    place: Arc<Place>,
    limits: Limits,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
    /// Whether the peer has yet to take an answer: what the place knows, too, without a lock.
    is_sending: bool,
}

/// Ready with an error when the time is over, and else wakes the task then.
fn poll_end(
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
    end: Instant,
) -> Poll<io::Error> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
    if timer.deadline() != end {
        timer.as_mut().reset(end);
    }
    timer.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
}

impl Timed {
    pub(super) fn new(stream: TcpStream, place: Arc<Place>, limits: Limits) -> Self {
        Self { stream, place, limits, reading: None, writing: None, is_sending: false }
    }

    fn end_of_reading(&self) -> Option<Instant> {
        if self.is_sending {
            return None;
        }
        match self.place.phase() {
            Phase::Idle { since } => Some(since + self.limits.idle),
            Phase::Head { since } => Some(since + self.limits.head),
            // A body has its own.
            Phase::Body { .. } | Phase::Busy => None,
        }
    }

    /// Reads a few bytes at a time. hyper doubles the buffer of a connection whenever a read fills it,
    /// and thousands of peers could make it do so.
    fn poll_read_some(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(MAX_READ);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }

    /// What a write brought, or its end if the peer makes no room.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        if !self.is_sending {
            self.is_sending = true;
            self.place.has_to_send();
        }
        let end = match &self.writing {
            Some(timer) => timer.deadline(),
            None => Instant::now() + self.limits.body,
        };
        poll_end(&mut self.writing, cx, end).map(Err)
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // A peer that sends a byte now and then is not done any sooner.
        if !self.is_sending
            && let Phase::Head { since } = self.place.phase()
            && since.elapsed() >= self.limits.head
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Poll::Ready(read) = self.poll_read_some(cx, buffer) {
            let has_begun = buffer.filled().len() > before;
            if has_begun && matches!(self.place.phase(), Phase::Idle { .. }) {
                self.place.set_phase(Phase::Head { since: Instant::now() });
            }
            return Poll::Ready(read);
        }
        // A client that waits for a response sends nothing. Once that is sent, the connection is idle.
        let end = match self.end_of_reading() {
            None if self.place.wake_when_idle(cx.waker()) => return Poll::Pending,
            None => self.end_of_reading(),
            end => end,
        };
        match end {
            Some(end) => poll_end(&mut self.reading, cx, end).map(Err),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes once it has written everything.
        if self.is_sending {
            self.is_sending = false;
            self.place.has_sent();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
