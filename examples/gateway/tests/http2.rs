//! HTTP/2 on the outside, HTTP/1.1 inside.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;

use super::*;

async fn connect(world: &World) -> http2::SendRequest<Body> {
    let io = TokioIo::new(world.raw_client());
    let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn get(uri: &str) -> axum::http::request::Builder {
    Request::get(uri).header("authorization", format!("Bearer {HANDLE}"))
}

#[tokio::test(start_paused = true)]
async fn an_authority_is_a_host_and_cookies_become_one() {
    let rules = Rules { hosts: vec!["api.example".into()], ..Rules::default() };
    let mut world = World::with(rules, Service::Up);
    let mut requests = connect(&world).await;
    let request = get("https://api.example/orders")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(Body::empty());
    let answer = tokio::spawn(requests.send_request(request.unwrap()));
    let mut service = world.service().await;
    let seen = service.head().await;
    assert_eq!(seen.line(), "GET /orders HTTP/1.1");
    assert_eq!(seen.all("host"), ["orders.internal:9100"]);
    assert_eq!(seen.all("x-forwarded-host"), ["api.example"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.all("te"), ["trailers"]);
    assert_eq!(seen.all("via"), ["2.0 gateway"]);
    assert!(!seen.has("transfer-encoding"));
    let answers = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\
                   trailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n";
    service.send(answers).await;
    let answer = in_time(answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("connection"));
    let body = in_time(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "hi");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_the_authority_is_refused() {
    let mut world = World::new();
    let mut requests = connect(&world).await;
    for (host, expected) in [("api.example", 502), ("evil.example", 400)] {
        let request = get("https://api.example/").header("host", host).body(Body::empty());
        let answer = requests.send_request(request.unwrap());
        if expected == 502 {
            let answer = tokio::spawn(answer);
            // It is tried on two connections.
            drop(world.service().await);
            drop(world.service().await);
            assert_eq!(in_time(answer).await.unwrap().unwrap().status(), expected);
        } else {
            assert_eq!(in_time(answer).await.unwrap().status(), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_unknown_length_is_chunked() {
    let mut world = World::new();
    let mut requests = connect(&world).await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
    let request = Request::post("https://api.example/orders")
        .header("authorization", format!("Bearer {HANDLE}"))
        .body(Body::new(body));
    let answer = tokio::spawn(requests.send_request(request.unwrap()));
    let mut service = world.service().await;
    assert_eq!(service.head().await.all("transfer-encoding"), ["chunked"]);
    sender.send_data("first".into()).await.unwrap();
    service.take("5\r\nfirst\r\n").await;
    drop(sender);
    service.take("0\r\n\r\n").await;
    service.answer("").await;
    assert_eq!(in_time(answer).await.unwrap().unwrap().status(), StatusCode::OK);
}

/// RFC 9110 §8.6: a sender must not send two lengths, and a service may go by the wrong one.
#[tokio::test(start_paused = true)]
async fn of_two_equal_lengths_one_goes_on() {
    let mut world = World::new();
    let mut requests = connect(&world).await;
    let request = Request::post("https://api.example/orders")
        .header("authorization", format!("Bearer {HANDLE}"))
        .header("content-length", "5")
        .header("content-length", "5")
        .body(Body::from("hello"));
    let answer = tokio::spawn(requests.send_request(request.unwrap()));
    let mut service = world.service().await;
    let head = service.head().await;
    assert_eq!(head.all("content-length"), ["5"]);
    assert!(!head.has("transfer-encoding"));
    service.take("hello").await;
    service.answer("").await;
    assert_eq!(in_time(answer).await.unwrap().unwrap().status(), StatusCode::OK);
}
