use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll};

use ::axum::body::Body;
use ::axum::routing::{any, get};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::connection::Timed;
use super::open_connections::{Phase, Place};
use super::*;

#[test]
fn only_an_error_of_one_connection_is_passed_over() {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput, Other,
        OutOfMemory, PermissionDenied,
    };
    for kind in [ConnectionAborted, ConnectionReset, ConnectionRefused, Interrupted] {
        assert!(concerns_one_connection(&kind.into()), "{kind}");
    }
    // With these, the next connection would fail as well, at once.
    for kind in [OutOfMemory, PermissionDenied, InvalidInput, Other] {
        assert!(!concerns_one_connection(&kind.into()), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_on_its_way_out_takes_no_place() {
    let open = Arc::new(OpenConnections::new(2));
    let (leaving, busy) = (open.admit().unwrap(), open.admit().unwrap());
    busy.set_phase(Phase::Busy);
    tokio::time::advance(Duration::from_secs(1)).await;
    let third = open.admit().unwrap();
    leaving.told_to_leave().await;
    drop(busy);
    // Two are open, and one of them is being closed, so there is room for a third.
    assert!(open.admit().is_some());
    drop((leaving, third));
}

/// What a call says at once, without waiting.
async fn at_once<T>(
    mut call: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Option<io::Result<T>> {
    poll_fn(|cx| {
        Poll::Ready(match call(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

/// A connection whose peer has yet to take an answer, of which hyper has let go.
struct Full {
    open: Arc<OpenConnections>,
    place: Arc<Place>,
    timed: Timed,
    peer: std::net::TcpStream,
    limits: Limits,
}

static PART: [u8; 64 * 1024] = [b'x'; 64 * 1024];

impl Full {
    async fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let open = Arc::new(OpenConnections::new(1));
        let place = Arc::new(open.admit().unwrap());
        let [body, idle] = [3_600, 75].map(Duration::from_secs);
        let limits = Limits { head: Duration::from_secs(10), body, idle };
        let timed = Timed::new(TcpStream::from_std(stream).unwrap(), Arc::clone(&place), limits);
        let mut full = Self { open, place, timed, peer, limits };
        full.place.set_idle();
        while full.write().await {}
        full
    }

    /// Whether there was room for a part.
    async fn write(&mut self) -> bool {
        at_once(|cx| Pin::new(&mut self.timed).poll_write(cx, &PART)).await.is_some()
    }

    async fn read(&mut self) -> Option<io::Result<()>> {
        self.read_into(&mut ReadBuf::new(&mut [0; 16])).await
    }

    async fn read_into(&mut self, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        at_once(|cx| Pin::new(&mut self.timed).poll_read(cx, buffer)).await
    }

    /// How many bytes a read with this much room brings, once there are any or the stream is at its end.
    async fn bytes_read(&mut self, room: usize) -> usize {
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        while self.read_into(&mut buffer).await.transpose().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        buffer.filled().len()
    }

    /// The peer takes so much that there is room for a part, which hyper writes.
    async fn take(&mut self) {
        let mut taken = vec![0; 1 << 20];
        while !self.write().await {
            let _ = self.peer.read(&mut taken);
            tokio::task::yield_now().await;
        }
    }

    /// hyper has written everything.
    async fn flush(&mut self) {
        at_once(|cx| Pin::new(&mut self.timed).poll_flush(cx)).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_idle_while_its_peer_takes_the_rest_of_an_answer() {
    let mut full = Full::new().await;
    for _ in 0..3 {
        tokio::time::advance(full.limits.idle + Duration::from_secs(1)).await;
        assert!(full.read().await.is_none(), "it is not over");
    }

    // The peer takes it. From now on, the connection is idle.
    full.take().await;
    full.flush().await;
    assert_eq!(full.place.phase(), Phase::Idle { since: Instant::now() });
    tokio::time::advance(full.limits.idle).await;
    let ended = full.read().await.expect("it is over").unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_begins_before_the_answer_was_taken_has_its_time_afterwards() {
    let mut full = Full::new().await;
    full.peer.write_all(b"G").unwrap();
    assert_eq!(full.bytes_read(16).await, 1);
    tokio::time::advance(full.limits.head * 2).await;
    assert!(full.read().await.is_none(), "the peer still takes the answer");
    full.take().await;
    full.flush().await;
    assert_eq!(full.place.phase(), Phase::Head { since: Instant::now() });
    tokio::time::advance(full.limits.head).await;
    let ended = full.read().await.expect("it is over").unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_its_answers_bit_by_bit_makes_room() {
    let mut full = Full::new().await;
    assert!(full.open.admit().is_none(), "it has just begun");
    tokio::time::advance(Duration::from_secs(1)).await;
    full.take().await;
    while full.write().await {}
    assert!(full.place.is_slow());
    assert!(full.open.admit().is_some());
    full.place.told_to_leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ends_the_stream_begins_no_request() {
    let mut full = Full::new().await;
    full.peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(full.bytes_read(16).await, 0);
    assert!(matches!(full.place.phase(), Phase::Idle { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_read_takes_four_kilobytes_and_a_write_takes_several_parts() {
    let mut full = Full::new().await;
    full.peer.write_all(&PART[..8 * 1024]).unwrap();
    assert_eq!(full.bytes_read(16 * 1024).await, 4 * 1024);
    assert!(full.timed.is_write_vectored(), "else hyper would copy the parts together");
}

/// A server of this app.
async fn served(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, app).into_future());
    address
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_that_took_its_time_a_connection_does_not_stay_idle_for_ever() {
    let slow = get(|| tokio::time::sleep(Duration::from_secs(100)));
    let address = served(Router::new().route("/slow", slow)).await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(b"GET /slow HTTP/1.1\r\nhost: as\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        peer.read_buf(&mut answer).await.unwrap();
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let end = timeout(Duration::from_secs(80), peer.read(&mut [0])).await;
    assert_eq!(end.expect("it should be closed after 75 seconds").unwrap(), 0);
}

/// The answer to a request with this method and these last lines.
async fn answer(address: SocketAddr, method: &str, rest: &str) -> String {
    let mut peer = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} / HTTP/1.1\r\nhost: as\r\nconnection: close\r\n{rest}");
    peer.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn an_app_can_tell_a_request_without_a_body() {
    let tell = any(|body: Body| async move { format!("empty: {}", body.is_end_stream()) });
    let address = served(Router::new().route("/", tell)).await;
    for (method, rest, is_empty) in [
        ("GET", "\r\n", true),
        ("POST", "content-length: 0\r\n\r\n", true),
        ("POST", "content-length: 5\r\n\r\nhello", false),
    ] {
        let answer = answer(address, method, rest).await;
        assert!(answer.ends_with(&format!("empty: {is_empty}")), "{method} {rest}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_body_is_at_its_end_has_no_chunks() {
    // One that does not say how long it is.
    let body = || Body::new(Empty::<Bytes>::new().map_frame(|frame| frame));
    assert_eq!(body().size_hint().exact(), None);
    let address = served(Router::new().route("/", get(move || async move { body() }))).await;
    let answer = answer(address, "GET", "\r\n").await;
    assert!(answer.contains("content-length: 0\r\n"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
}
