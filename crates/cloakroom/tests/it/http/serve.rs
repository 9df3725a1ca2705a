//! The server with limits, over real sockets, while time stands still: where nothing else can
//! happen, the clock jumps to the next limit.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use cloakroom::http::{Endpoints, serve};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::server::Server;

pub(super) const METADATA: &str =
    "GET /.well-known/oauth-authorization-server HTTP/1.1\r\nhost: as\r\n\r\n";

/// Its body comes once the server has asked for it.
const EXPECTS: &str = "POST /token HTTP/1.1\r\nhost: as\r\nexpect: 100-continue\r\n\
    content-length: 29\r\n\r\n";

/// A server under way.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(super) async fn with(
        endpoints: impl FnOnce(Endpoints) -> Endpoints,
        limits: impl FnOnce(cloakroom::http::Server) -> cloakroom::http::Server,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoints = Server::new().await.mounted(endpoints).endpoints.clone();
        let large = get(|| async { "x".repeat(64 << 20) });
        // Reads a part of the body, and takes its time before it asks for the rest.
        let slow = post(|body: Body| async {
            let mut body = body.into_data_stream();
            body.next().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(body);
        });
        // Does not wait for the body for long, and takes its time without it.
        let impatient = post(|body: Body| async {
            let mut body = body.into_data_stream();
            let _ = tokio::time::timeout(Duration::from_secs(1), body.next()).await;
            drop(body);
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        let app = Router::new().merge(endpoints.router());
        let app = app.route("/large", large).route("/slow", slow).route("/impatient", impatient);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = limits(serve(listener, app)).graceful_shutdown(async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(server.into_future());
        Self { address, stop: Some(stop), task }
    }

    pub(super) async fn new() -> Self {
        Self::with(|endpoints| endpoints, |server| server).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// What comes until the server closes the connection; a reset ends it, too.
pub(super) async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

/// One answer on a connection that stays.
pub(super) async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "{text}");
        text.push(char::from(byte[0]));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    text
}

async fn takes<T>(expected: Duration, what: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = what.await;
    let taken = start.elapsed();
    let least = expected.saturating_sub(Duration::from_millis(100));
    assert!((least..expected + Duration::from_secs(2)).contains(&taken), "{taken:?}");
    result
}

#[tokio::test(start_paused = true)]
async fn heads_that_do_not_come_to_an_end_are_cut_off() {
    let served = Served::new().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(served.sent("POST /token HTTP/1.1\r\nhost: a").await);
    }
    takes(Duration::from_secs(10), async {
        for stream in streams {
            assert_eq!(rest(stream).await, "");
        }
    })
    .await;
    // A byte now and then buys no time.
    let mut stream = served.sent("P").await;
    let is_closed = async {
        while stream.write_all(b"o").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    takes(Duration::from_secs(11), is_closed).await;
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_come_are_answered_and_cut_off() {
    let served = Served::new().await;
    let head = "POST /token HTTP/1.1\r\nhost: as\r\ncontent-length: 500\r\n\r\ngrant_type=";
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(served.sent(head).await);
    }
    takes(Duration::from_secs(10), async {
        for stream in streams {
            let text = rest(stream).await;
            assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
            assert!(text.contains("connection: close"), "{text}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_stays_between_requests_for_a_while() {
    let served = Served::new().await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        stream.write_all(METADATA.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
    takes(Duration::from_secs(75), async { assert_eq!(rest(stream).await, "") }).await;
    let silent = served.connect().await;
    takes(Duration::from_secs(75), async { assert_eq!(rest(silent).await, "") }).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlives_a_request_that_is_refused_before_its_body_has_come() {
    let served = Served::new().await;
    for head in ["content-length: 5", "transfer-encoding: chunked"] {
        let head = format!("POST /nowhere HTTP/1.1\r\nhost: as\r\n{head}\r\n\r\n");
        let mut stream = served.sent(&head).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let body = if head.contains("chunked") { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" };
        stream.write_all(body.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404 "));
        stream.write_all(METADATA.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "), "{head}");
    }
    // One that never comes is answered when its time is over, and one that is large at once, as is one
    // that the client holds back.
    let head = "POST /nowhere HTTP/1.1\r\nhost: as\r\n";
    for (more, limit) in [
        ("content-length: 5", 10),
        ("content-length: 65537", 0),
        ("expect: 100-continue\r\ncontent-length: 5", 0),
    ] {
        let stream = served.sent(&format!("{head}{more}\r\n\r\n")).await;
        let text = takes(Duration::from_secs(limit), rest(stream)).await;
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
    }
    let chunk = format!("ffff\r\n{}\r\n", "x".repeat(0xffff));
    let text = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    let text = takes(Duration::ZERO, rest(served.sent(&text).await)).await;
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_need_not_come() {
    let served =
        Served::with(|it| it.allow_origin("https://app.example").unwrap(), |server| server).await;
    let head = "POST /token HTTP/1.1\r\nhost: as\r\norigin: https://app.example\r\n";
    let text = rest(served.sent(&format!("{head}content-length: 70000\r\n\r\n")).await).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.contains("access-control-allow-origin: https://app.example"), "{text}");
    // Nor does one that does not say how large it is.
    let chunk = format!("ffff\r\n{}\r\n", "x".repeat(0xffff));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let text = rest(served.sent(&format!("{chunked}{chunk}{chunk}")).await).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    // A chunk that is none.
    let text = rest(served.sent(&format!("{chunked}zz\r\nx\r\n")).await).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("access-control-allow-origin"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_could_be_read_in_two_ways_is_refused() {
    let served = Served::new().await;
    let body = "grant_type=client_credentials";
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let plain = format!("content-length: {}\r\n\r\n{body}", body.len());
    let coded = |coding: &str| format!("host: as\r\n{coding}\r\n{chunks}");
    for (head, status) in [
        // RFC 9112 §3.2
        (format!("HTTP/1.1\r\n{plain}"), 400),
        (format!("HTTP/1.1\r\nhost: as\r\nhost: as\r\n{plain}"), 400),
        (format!("HTTP/1.1\r\nhost: a b\r\n{plain}"), 400),
        (format!("HTTP/1.1\r\nhost: as/x\r\n{plain}"), 400),
        (format!("HTTP/1.1\r\nhost: me@as\r\n{plain}"), 400),
        (format!("HTTP/1.0\r\nhost: as\r\nhost: as\r\n{plain}"), 400),
        // RFC 9112 §6.1
        (format!("HTTP/1.1\r\n{}", coded("transfer-encoding: chunked, chunked\r\n")), 501),
        (format!("HTTP/1.1\r\n{}", coded("transfer-encoding: gzip, chunked\r\n")), 501),
        (
            format!(
                "HTTP/1.1\r\n{}",
                coded("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n")
            ),
            501,
        ),
    ] {
        let text = rest(served.sent(&format!("POST /token {head}")).await).await;
        let (version, _) = head.split_once("\r\n").unwrap();
        assert!(text.starts_with(&format!("{version} {status} ")), "{head}: {text}");
        assert!(text.contains("connection: close"), "{head}: {text}");
    }
    // These get as far as the endpoint, which misses the content type.
    for head in [
        format!("HTTP/1.1\r\nhost: as:8443\r\n{plain}"),
        format!("HTTP/1.1\r\nhost: [::1]:8443\r\n{plain}"),
        format!("HTTP/1.1\r\nhost:\r\n{plain}"),
        format!("HTTP/1.1\r\n{}", coded("transfer-encoding: Chunked\r\n")),
    ] {
        let mut stream = served.sent(&format!("POST /token {head}")).await;
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{head}: {text}");
        assert!(!text.contains("connection: close"), "{head}: {text}");
    }
    let text = rest(served.sent(&format!("POST /token HTTP/1.0\r\n{plain}")).await).await;
    assert!(text.contains("the content type must be"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_head_has_a_limit() {
    let served = Served::new().await;
    let head = |length| {
        let value = "x".repeat(length);
        format!("GET /.well-known/jwks.json HTTP/1.1\r\nhost: as\r\nx: {value}\r\n\r\n")
    };
    let mut stream = served.sent(&head(24 * 1024)).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    for length in [33 * 1024, 400 * 1024] {
        let text = rest(served.sent(&head(length)).await).await;
        assert!(text.starts_with("HTTP/1.1 431 ") || text.is_empty(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_come_in_any_parts() {
    let served = Served::new().await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let body = format!("grant_type=client_credentials&x={}", "y".repeat(60_000));
    let split = |size: usize| {
        let chunks = body.as_bytes().chunks(size);
        let chunks = chunks.map(|part| std::str::from_utf8(part).unwrap());
        chunks.map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect::<String>()
    };
    for sent in [
        format!("content-length: {}\r\n\r\n{body}", body.len()),
        format!("transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", split(1)),
        format!("transfer-encoding: chunked\r\n\r\n{}0\r\nx: y\r\n\r\n", split(5_000)),
    ] {
        let request = format!("POST /token HTTP/1.1\r\nhost: as\r\n{form}{sent}");
        let text = answer(&mut served.sent(&request).await).await;
        // The whole form was read, and it names no client.
        assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_places_are_taken_the_idle_go_first() {
    let served = Served::with(|it| it, |server| server.max_connections(2)).await;
    let mut first = served.sent(METADATA).await;
    answer(&mut first).await;
    let mut second = served.sent(METADATA).await;
    answer(&mut second).await;
    // The first has been idle for longer, and for a second at least.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut third = served.sent(METADATA).await;
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 200 "));
    takes(Duration::ZERO, async { assert_eq!(rest(first).await, "") }).await;
    // Now both are busy: the server has asked for their bodies.
    for busy in [&mut second, &mut third] {
        busy.write_all(EXPECTS.as_bytes()).await.unwrap();
        assert!(answer(busy).await.starts_with("HTTP/1.1 100 "));
    }
    let refused = rest(served.sent(METADATA).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    // Once they are cut off, there is room again.
    drop((second, third));
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut last = served.sent(METADATA).await;
    assert!(answer(&mut last).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn requests_that_do_not_come_in_make_room() {
    let head = "POST /token HTTP/1.1\r\nhost: as\r\ncontent-length: 500\r\n\r\n";
    for half in [head, &head[..20], &format!("{head}grant_type")] {
        let served = Served::with(|it| it, |server| server.max_connections(3)).await;
        let mut slow = Vec::new();
        for _ in 0..3 {
            slow.push(served.sent(half).await);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let refused = rest(served.sent(METADATA).await).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{half}: {refused}");
        // Those that have been at it for a second go, the first one first.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut answered = Vec::new();
        for slow in slow {
            let mut next = served.sent(METADATA).await;
            assert!(answer(&mut next).await.starts_with("HTTP/1.1 200 "), "{half}");
            takes(Duration::ZERO, async { assert_eq!(rest(slow).await, "", "{half}") }).await;
            answered.push(next);
        }
        let refused = rest(served.sent(METADATA).await).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{half}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_app_is_not_held_against_its_client() {
    let served = Served::with(|it| it, |server| server.max_connections(1)).await;
    let head = "POST /slow HTTP/1.1\r\nhost: as\r\ncontent-length: 10\r\n\r\n";
    let mut client = served.sent(head).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    client.write_all(b"12345").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = rest(served.sent(METADATA).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_cut_off() {
    let mut served = Served::new().await;
    let mut deaf = served.sent("GET /large HTTP/1.1\r\nhost: as\r\n\r\n").await;
    let mut beginning = [0; 1024];
    deaf.read_exact(&mut beginning).await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    // No request is under way any more.
    served.stop.take().unwrap().send(()).unwrap();
    takes(Duration::ZERO, async { served.task.await.unwrap().unwrap() }).await;
    drop(deaf);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_requests_end() {
    let mut served = Served::new().await;
    let mut idle = served.sent(METADATA).await;
    answer(&mut idle).await;
    let body = "grant_type=authorization_code";
    let head =
        format!("POST /token HTTP/1.1\r\nhost: as\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut under_way = served.sent(&head).await;
    // It is under way once it has been read.
    tokio::time::sleep(Duration::from_millis(10)).await;
    served.stop.take().unwrap().send(()).unwrap();
    takes(Duration::ZERO, async { assert_eq!(rest(idle).await, "") }).await;
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens");
    under_way.write_all(body.as_bytes()).await.unwrap();
    let text = rest(under_way).await;
    assert!(text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 401 "), "{text}");
    served.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut served = Served::with(
        |it| it,
        |server| {
            server.body_timeout(Duration::from_secs(600)).drain_timeout(Duration::from_secs(3))
        },
    )
    .await;
    let mut stream = served.sent(EXPECTS).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 100 "));
    served.stop.take().unwrap().send(()).unwrap();
    takes(Duration::from_secs(3), async { served.task.await.unwrap().unwrap() }).await;
    assert_eq!(rest(stream).await, "");
}
