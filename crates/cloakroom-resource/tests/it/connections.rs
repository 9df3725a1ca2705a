//! Servers that close connections in every way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::TokenSecret;
use cloakroom_resource::{
    ClientCredentials, HttpClient, HttpTimeouts, IntrospectionClient, Introspector, ReqwestClient,
};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::chain;

/// What a server does with one connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// Answers one request, and closes when the next one arrives.
    CloseAtTheNext,
    /// The same, with a reset.
    ResetAtTheNext,
    /// Answers one request, and closes at once, without notice.
    CloseAfter,
    /// Closes when the first request has arrived.
    Close,
    /// Closes some seconds after that.
    CloseLate(u64),
    Reset,
    /// Sends this, and closes.
    Say(&'static str),
    Silent,
    /// Begins an answer, and sends one more byte of it each second.
    Drip,
    /// Answers all requests.
    Answer,
}

/// A server that treats its connections one after the other as the list says, and then as its last
/// member.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// A connection was closed.
    closed: Arc<Notify>,
}

impl Server {
    async fn start(plan: &'static [Then], answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            url,
            connections: Arc::default(),
            requests: Arc::default(),
            closed: Arc::default(),
        };
        let (connections, requests) =
            (Arc::clone(&server.connections), Arc::clone(&server.requests));
        let closed = Arc::clone(&server.closed);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let then = plan[number.min(plan.len() - 1)];
                let (requests, closed) = (Arc::clone(&requests), Arc::clone(&closed));
                tokio::spawn(async move {
                    treat(stream, then, answer, &requests).await;
                    closed.notify_one();
                });
            }
        });
        server
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

async fn treat(mut stream: TcpStream, then: Then, answer: &str, requests: &AtomicUsize) {
    let mut answered = 0;
    while request(&mut stream).await {
        requests.fetch_add(1, Ordering::SeqCst);
        match (then, answered) {
            (Then::Answer | Then::CloseAtTheNext | Then::ResetAtTheNext, _)
                if then == Then::Answer || answered == 0 =>
            {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            (Then::CloseAfter, _) => {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return;
            }
            (Then::Reset | Then::ResetAtTheNext, _) => {
                stream.set_zero_linger().unwrap();
                return;
            }
            (Then::Say(text), _) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                return;
            }
            (Then::CloseLate(seconds), _) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return;
            }
            (Then::Drip, _) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            (Then::Silent, _) => std::future::pending().await,
            _ => return,
        }
        answered += 1;
    }
}

/// Reads one request; `false` if the client has closed.
async fn request(stream: &mut TcpStream) -> bool {
    let mut text = Vec::new();
    loop {
        let Ok(byte) = stream.read_u8().await else { return false };
        text.push(byte);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let text = String::from_utf8(text).unwrap().to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.is_ok()
}

const INACTIVE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                        content-length: 16\r\n\r\n{\"active\":false}";

fn introspection(server: &Server, client: ReqwestClient) -> IntrospectionClient {
    let endpoint = format!("{}/introspect", server.url);
    IntrospectionClient::new(&endpoint, ClientCredentials::new("api", "secret"), client).unwrap()
}

fn token() -> TokenSecret {
    TokenSecret::new("cr_at_do-not-print")
}

fn get(server: &Server) -> Request<Bytes> {
    Request::get(format!("{}/jwks", server.url)).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_kept_connection_that_ends_costs_no_request() {
    for plan in [
        &[Then::CloseAtTheNext][..],
        &[Then::ResetAtTheNext],
        &[Then::CloseAtTheNext, Then::ResetAtTheNext],
    ] {
        let server = Server::start(plan, INACTIVE).await;
        let client = introspection(&server, ReqwestClient::new().unwrap());
        for number in 1..=6 {
            let answer = client.introspect(&token()).await;
            assert!(!answer.unwrap().is_active(), "{plan:?} {number}");
        }
        // Every second one was sent on a kept connection, and then on a new one.
        assert_eq!(server.counts(), (6, 9), "{plan:?}");

        let server = Server::start(plan, INACTIVE).await;
        let client = ReqwestClient::new().unwrap();
        for number in 1..=6 {
            let answer = client.send(get(&server)).await;
            assert_eq!(answer.unwrap().status(), 200, "{plan:?} {number}");
        }
        assert_eq!(server.counts(), (6, 9), "{plan:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_without_notice_costs_no_request() {
    let server = Server::start(&[Then::CloseAfter], INACTIVE).await;
    let client = introspection(&server, ReqwestClient::new().unwrap());
    for number in 1..=50 {
        let answer = client.introspect(&token()).await;
        assert!(!answer.unwrap().is_active(), "{number}");
        if number % 2 == 0 {
            // The client may have noticed by now, or not.
            server.closed.notified().await;
        }
    }
    assert_eq!(server.counts(), (50, 50));
}

#[tokio::test]
async fn a_request_is_sent_twice_at_most() {
    for plan in [&[Then::Close][..], &[Then::Reset], &[Then::Close, Then::Reset]] {
        let server = Server::start(plan, INACTIVE).await;
        let client = introspection(&server, ReqwestClient::new().unwrap());
        let error = client.introspect(&token()).await.unwrap_err();
        assert_eq!(server.counts(), (2, 2), "{plan:?}");
        let text = format!("{error:?} {}", chain(&error));
        assert!(!text.contains("do-not-print") && !text.contains("secret"), "{text}");
    }
    for plan in [&[Then::Close, Then::Answer][..], &[Then::Reset, Then::Answer]] {
        let server = Server::start(plan, INACTIVE).await;
        let client = introspection(&server, ReqwestClient::new().unwrap());
        client.introspect(&token()).await.unwrap();
        assert_eq!(server.counts(), (2, 2), "{plan:?}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_asked_for_again() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"active\"",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"act\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz",
        "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
    ] {
        let plan: &'static [Then] = vec![Then::Say(text), Then::Answer].leak();
        let server = Server::start(plan, INACTIVE).await;
        let client = introspection(&server, ReqwestClient::new().unwrap());
        let result = client.introspect(&token()).await;
        assert!(result.is_err(), "{text}");
        assert_eq!(server.counts(), (1, 1), "{text}");
    }
}

/// Time stands still until nobody can go on without it.
#[tokio::test(start_paused = true)]
async fn both_attempts_share_one_time_limit() {
    let timeouts = HttpTimeouts::default().total(Duration::from_secs(50));
    for (plan, attempts) in [
        (&[Then::CloseLate(40), Then::Silent][..], 2),
        // One that ran out of time is not tried again.
        (&[Then::Silent], 1),
        (&[Then::Drip], 1),
        (&[Then::CloseLate(40), Then::Drip], 2),
    ] {
        let server = Server::start(plan, INACTIVE).await;
        let client = introspection(&server, ReqwestClient::with_timeouts(timeouts).unwrap());
        let began = tokio::time::Instant::now();
        let error = client.introspect(&token()).await.unwrap_err();
        assert!(chain(&error).contains("timed out"), "{}", chain(&error));
        assert_eq!((began.elapsed().as_secs(), server.counts()), (50, (attempts, attempts)));
    }
}
