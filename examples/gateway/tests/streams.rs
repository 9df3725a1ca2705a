//! The seat of a client that speaks HTTP/2: its connection ends when nothing is open on it.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};

use super::*;

struct Http2 {
    requests: http2::SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    /// `window` is how much of a body comes before the client has read any of it.
    async fn connect(world: &World, window: u32) -> Self {
        let io = TokioIo::new(world.raw_client());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (requests, connection) = builder.handshake(io).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// A request, and the service that is asked.
    async fn ask(&mut self, world: &mut World) -> (JoinHandle<Response<Incoming>>, Wire) {
        self.send(world, Body::empty()).await
    }

    async fn send(
        &mut self,
        world: &mut World,
        body: Body,
    ) -> (JoinHandle<Response<Incoming>>, Wire) {
        let request = Request::post("https://api.example/")
            .header("authorization", format!("Bearer {HANDLE}"))
            .body(body)
            .unwrap();
        let answer = self.requests.send_request(request);
        let answer = tokio::spawn(async { answer.await.unwrap() });
        let mut service = world.service().await;
        service.head().await;
        (answer, service)
    }

    async fn exchange(&mut self, world: &mut World) {
        let (answer, mut service) = self.ask(world).await;
        service.answer("ok").await;
        let answer = in_time(answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(in_time(answer.into_body().collect()).await.unwrap().to_bytes(), "ok");
    }
}

async fn is_free(world: &World) {
    while world.seats.available_permits() < LIMITS.connections {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_stream_is_closed() {
    let mut world = World::new();
    let mut client = Http2::connect(&world, 65_535).await;
    for _ in 0..3 {
        client.exchange(&mut world).await;
        sleep(LIMITS.next - Duration::from_secs(1)).await;
        assert!(!client.connection.is_finished());
    }
    client.exchange(&mut world).await;
    let began = Instant::now();
    in_time(client.connection).await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), LIMITS.next.as_secs());
    in_time(is_free(&world)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_connection() {
    let mut world = World::new();
    let mut client = Http2::connect(&world, 65_535).await;
    let (answer, mut service) = client.ask(&mut world).await;
    service.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\n").await;
    let mut body = in_time(answer).await.unwrap().into_body();
    for _ in 0..4 {
        sleep(TIMEOUTS.idle - Duration::from_secs(1)).await;
        service.send("ev").await;
        assert_eq!(in_time(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "ev");
    }
    assert!(in_time(body.frame()).await.is_none());
    // It has not been told to go away, either.
    client.exchange(&mut world).await;
    let began = Instant::now();
    in_time(client.connection).await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), LIMITS.next.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_no_answer_that_nobody_takes() {
    let mut world = World::new();
    let mut client = Http2::connect(&world, 65_535).await;
    let (mut upload, body) = Channel::<Bytes>::new(1);
    let (answer, mut service) = client.send(&mut world, Body::new(body)).await;
    for _ in 0..4 {
        sleep(LIMITS.stuck - Duration::from_secs(1)).await;
        upload.send_data("ha".into()).await.unwrap();
        service.take("2\r\nha\r\n").await;
    }
    drop(upload);
    service.answer("ok").await;
    assert_eq!(in_time(answer).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_end_is_finished() {
    let mut world = World::new();
    let mut client = Http2::connect(&world, 65_535).await;
    let (answer, mut service) = client.ask(&mut world).await;
    world.ending.send(()).unwrap();
    sleep(TIMEOUTS.head - Duration::from_secs(1)).await;
    service.answer("final").await;
    let body = in_time(answer).await.unwrap().into_body();
    assert_eq!(in_time(body.collect()).await.unwrap().to_bytes(), "final");
    let began = Instant::now();
    in_time(client.connection).await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    in_time(world.ending.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_leave_is_cut_off() {
    /// Says that the connection will end; what follows tells the server that this has arrived.
    const LAST_PING: &[u8] = &[0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    const PING: u8 = 6;
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let world = World::new();
    let mut wire = BufReader::new(world.raw_client());
    // GET https://api.example/, without a token, in the words of RFC 7541.
    let head = [&[0x82, 0x87, 0x84, 0x41, 11], &b"api.example"[..]].concat();
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    wire.write_all(&[hello, frame(1, 5, 1, &head)].concat()).await.unwrap();

    let (began, mut kinds) = (Instant::now(), Vec::new());
    loop {
        assert!(began.elapsed().as_secs() < 3600, "it is never cut off: {kinds:?}");
        let Ok(read) = timeout(Duration::from_secs(10), wire.fill_buf()).await else {
            // What it says about the connection is no use of it.
            wire.write_all(&frame(PING, 0, 0, b"still on")).await.unwrap();
            continue;
        };
        if read.unwrap_or_default().is_empty() {
            break;
        }
        let mut start = [0; 9];
        wire.read_exact(&mut start).await.unwrap();
        let mut payload = vec![0; usize::from(start[1]) * 256 + usize::from(start[2])];
        wire.read_exact(&mut payload).await.unwrap();
        kinds.push(start[3]);
        if start[3] == PING && start[4] == 0 && payload != LAST_PING {
            wire.write_all(&frame(PING, 1, 0, &payload)).await.unwrap();
        }
    }
    // Or before: its silence may be taken for that of a machine that is gone.
    let latest = LIMITS.next + LIMITS.stuck;
    assert!(began.elapsed().as_secs() <= latest.as_secs(), "{:?}, {kinds:?}", began.elapsed());
    in_time(is_free(&world)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_takes_is_reset_and_no_other() {
    let mut world = World::new();
    let mut client = Http2::connect(&world, 100).await;
    let (answer, mut service) = client.ask(&mut world).await;
    service.send("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await;
    let left = in_time(answer).await.unwrap();
    let began = Instant::now();
    let stuck = tokio::spawn(async move {
        while service.0.get_mut().write_all(&[b'x'; 1024]).await.is_ok() {}
        began.elapsed()
    });
    for _ in 0..3 {
        sleep(LIMITS.stuck / 4).await;
        client.exchange(&mut world).await;
    }
    assert!(!stuck.is_finished());
    // The service is let go.
    assert_eq!(in_time(stuck).await.unwrap().as_secs(), LIMITS.stuck.as_secs());
    client.exchange(&mut world).await;
    // And what has come is not passed off as the whole.
    assert!(in_time(left.into_body().collect()).await.is_err());
    in_time(client.connection).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_keeps_no_seat() {
    // One is reset; of the other, all is with the connection, which waits for room for the rest.
    for (window, ends) in [(0, LIMITS.stuck + LIMITS.next), (5, LIMITS.next + LIMITS.stuck)] {
        let mut world = World::new();
        let mut client = Http2::connect(&world, window).await;
        let (answer, mut service) = client.ask(&mut world).await;
        service.answer("ten bytes!").await;
        let _left = in_time(answer).await.unwrap();
        let began = Instant::now();
        let _ = in_time(client.connection).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), ends.as_secs(), "{window}");
        in_time(is_free(&world)).await;
    }
}
