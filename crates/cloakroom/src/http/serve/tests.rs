use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::task::{Context, Poll};

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

const PART: [u8; 64 * 1024] = [b'x'; 64 * 1024];

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
        let mut bytes = [0; 16];
        at_once(|cx| Pin::new(&mut self.timed).poll_read(cx, &mut ReadBuf::new(&mut bytes))).await
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
    while full.read().await.is_none() {
        tokio::task::yield_now().await;
    }
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
