use std::future::poll_fn;
use std::io::Read as _;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::connection::Timed;
use super::open_connections::Phase;
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
    // Two are there, and one of them goes: nobody else has to.
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

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_idle_while_its_peer_takes_the_rest_of_an_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    peer.set_nonblocking(true).unwrap();
    let open = Arc::new(OpenConnections::new(1));
    let place = Arc::new(open.admit().unwrap());
    let hour = Duration::from_secs(3_600);
    let limits = Limits { head: hour, body: hour, idle: Duration::from_secs(75) };
    let mut timed = Timed::new(TcpStream::from_std(stream).unwrap(), Arc::clone(&place), limits);

    // hyper has let go of the answer, and the peer has not taken it yet.
    place.set_idle();
    let part = [b'x'; 64 * 1024];
    while at_once(|cx| Pin::new(&mut timed).poll_write(cx, &part)).await.is_some() {}
    let mut bytes = [0; 16];
    for _ in 0..3 {
        tokio::time::advance(limits.idle + Duration::from_secs(1)).await;
        let read = at_once(|cx| Pin::new(&mut timed).poll_read(cx, &mut ReadBuf::new(&mut bytes)));
        assert!(read.await.is_none(), "it is not over");
        assert!(open.admit().is_none(), "and it need not make room");
    }

    // The peer takes it. From now on, the connection is idle.
    let mut taken = vec![0; 1 << 20];
    while at_once(|cx| Pin::new(&mut timed).poll_write(cx, &part)).await.is_none() {
        let _ = peer.read(&mut taken);
        tokio::task::yield_now().await;
    }
    assert_eq!(place.phase(), Phase::Idle { since: Instant::now() });
    tokio::time::advance(limits.idle).await;
    let read = at_once(|cx| Pin::new(&mut timed).poll_read(cx, &mut ReadBuf::new(&mut bytes)));
    let ended = read.await.expect("it is over").unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
}
