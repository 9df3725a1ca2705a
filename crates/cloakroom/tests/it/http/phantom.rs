//! Introspection as `application/jwt`: the phantom JWT alone, for gateways that are simple HTTP
//! clients.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::Grant;
use cloakroom::core::Audience;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::request::{Reply, With, get, post};
use super::server::{BILLING, ORDERS, SECRET, START, Server, Wire, client_id};

fn swap(caller: &str, token: &str, more: &[(&str, &str)]) -> Request<Bytes> {
    post("/introspect", &[&[("token", token)], more].concat())
        .with("accept", "application/jwt")
        .basic(caller, SECRET)
}

/// Checks the whole answer for an inactive token.
#[track_caller]
fn assert_empty(reply: &Reply) {
    assert_eq!((reply.status, reply.text()), (204, ""), "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("content-type"), "");
}

#[tokio::test]
async fn the_body_is_the_jwt_and_nothing_else() {
    let wire = Wire::new().await;
    let server = &wire.server;
    let session = server.session("web-app").await;
    for caller in ["orders-api", "gateway"] {
        let reply = wire.send(swap(caller, &session.access, &[])).await.ok();
        assert_eq!(reply.header("content-type"), "application/jwt");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("content-length"), reply.body.len().to_string());
        assert!(!reply.headers.contains_key("vary"), "{reply:?}");
        assert!(!reply.headers.contains_key("transfer-encoding"), "{reply:?}");

        // Not even a newline is around it: the verifier takes the bytes as they are.
        let verified = server.verifier(ORDERS).verify(&server.keys().await, reply.text()).unwrap();
        assert_eq!(verified.token.subject.unwrap().id(), "alice");
        assert_eq!(verified.token.audience.unwrap().single(), Some(ORDERS));
        assert_eq!(verified.token.client, Some(client_id("web-app")));
        server.verifier(BILLING).verify(&server.keys().await, reply.text()).unwrap_err();
    }
}

#[tokio::test]
async fn nothing_but_a_live_handle_for_this_caller_is_swapped() {
    let wire = Wire::new().await;
    let server = &wire.server;
    let session = server.session("web-app").await;
    let opaque = Grant::user("web-app", "alice").unwrap();
    let opaque = opaque.audience(Audience::one(BILLING).unwrap());
    let opaque = server.session_of(opaque).await;
    let jwt = server.client_token("batch-job", &[]).await;
    let revoked = server.session("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &revoked.refresh)]).await.ok();

    for (what, request) in [
        ("junk", swap("gateway", "junk", &[])),
        ("a refresh token", swap("gateway", &session.refresh, &[])),
        ("a code", swap("gateway", &server.code("web-app").await, &[])),
        ("revoked", swap("gateway", &revoked.access, &[])),
        ("a handle that is not swapped", swap("gateway", &opaque.access, &[])),
        ("a JWT", swap("gateway", &jwt, &[])),
        ("another resource server's", swap("billing-api", &session.access, &[])),
        ("for another resource", swap("gateway", &session.access, &[("resource", BILLING)])),
        (
            "for what it does not serve",
            swap("billing-api", &session.access, &[("resource", ORDERS)]),
        ),
        // The JWT inside is for the inside: the client itself does not get it.
        ("by the client", swap("web-app", &session.access, &[])),
        ("by the client, by name", swap("web-app", &session.access, &[("resource", ORDERS)])),
        ("by another client", swap("other-app", &session.access, &[])),
    ] {
        let reply = wire.send(request).await;
        assert_eq!(reply.status, 204, "{what}");
        assert_empty(&reply);
    }
    let named = swap("gateway", &session.access, &[("resource", ORDERS)]);
    wire.send(named).await.ok();
    server.advance(600);
    assert_empty(&wire.send(swap("gateway", &session.access, &[])).await);
}

#[tokio::test]
async fn a_resource_is_named_at_most_once() {
    let server = Server::new().await;
    let access = server.session("web-app").await.access;
    for more in [&[("resource", ORDERS), ("resource", BILLING)][..], &[("resource", "orders")]] {
        let reply = server.send(swap("gateway", &access, more)).await;
        reply.refused(400, "invalid_target");
    }
}

#[tokio::test]
async fn a_cache_keeps_it_as_long_as_allowed_and_never_beyond_its_life() {
    let minute = Duration::from_secs(60);
    let server = Server::new().await.mounted(|endpoints| endpoints.cache_swapped(minute));
    let access = server.session("web-app").await.access;
    let answer = || server.send(swap("gateway", &access, &[]));
    let reply = answer().await.ok();
    assert_eq!(reply.header("cache-control"), "max-age=60");
    assert_eq!(reply.header("pragma"), "");

    // 29.5 s are left of the handle, and fewer whole seconds of the JWT.
    server.clock.advance(Duration::from_millis(570_500));
    assert_eq!(answer().await.ok().header("cache-control"), "max-age=29");
    server.advance(29);
    // Less than a second: not worth keeping.
    assert_eq!(answer().await.header("cache-control"), "no-store");
    server.advance(1);
    assert_empty(&answer().await);
}

#[tokio::test]
async fn a_generous_bound_is_cut_to_the_life_of_the_jwt() {
    let server = Server::new().await.mounted(|endpoints| endpoints.cache_swapped(Duration::MAX));
    let access = server.session("web-app").await.access;
    let reply = server.send(swap("gateway", &access, &[])).await.ok();
    // Five minutes, less the half second by which the clock is past a whole one.
    assert_eq!(reply.header("cache-control"), "max-age=299");
    let verified = server.verifier(ORDERS).verify(&server.keys().await, reply.text()).unwrap();
    server.advance(299);
    let keys = server.keys().await;
    server.verifier(ORDERS).verify(&keys, reply.text()).expect("it is good for as long");
    assert_eq!(verified.token.expires_at.unwrap().as_secs(), START.as_secs() + 300);
}

#[tokio::test]
async fn nothing_else_of_a_token_is_ever_cached() {
    let server = Server::new().await.mounted(|endpoints| endpoints.cache_swapped(Duration::MAX));
    let access = server.session("web-app").await.access;
    let ask = |accept: &str, token: &str| {
        let request = post("/introspect", &[("token", token)]).with("accept", accept);
        server.send(request.basic("gateway", SECRET))
    };
    let signed = "application/token-introspection+jwt";
    let unknown = post("/introspect", &[("token", &*access)]).with("accept", "application/jwt");
    let credentials = [("grant_type", "client_credentials")];
    let mut replies = vec![
        (200, ask("application/json", &access).await),
        (200, ask(signed, &access).await),
        (200, ask("application/json", "junk").await),
        (200, ask(signed, "junk").await),
        (204, ask("application/jwt", "junk").await),
        (401, server.send(unknown).await),
        (400, server.send(swap("gateway", "", &[])).await),
        (405, server.send(get("/introspect")).await),
        (404, server.send(get("/introspected")).await),
        (200, server.ask("web-app", "/token", &credentials).await),
        (200, server.ask("web-app", "/revoke", &[("token", "junk")]).await),
        (200, server.send(get("/revocations").basic("follower", SECRET)).await),
        (200, server.send(get("/handle-keys").basic("edge", SECRET)).await),
    ];
    server.store.tokens_down(true);
    replies.push((503, ask("application/jwt", &access).await));
    for (number, (status, reply)) in replies.iter().enumerate() {
        assert_eq!(
            (reply.status, reply.header("cache-control")),
            (*status, "no-store"),
            "{number}"
        );
    }
}

#[tokio::test]
async fn the_accept_header_chooses() {
    let server = Server::new().await;
    let access = server.session("web-app").await.access;
    let signed = "application/token-introspection+jwt";
    for (accept, expected) in [
        (&[][..], "application/json"),
        (&["*/*"], "application/json"),
        (&["text/html"], "application/json"),
        (&["application/json"], "application/json"),
        (&["application/jwt;q=0"], "application/json"),
        (&["application/jwt"], "application/jwt"),
        (&["APPLICATION/JWT"], "application/jwt"),
        (&["application/jwt, application/json;q=0.5"], "application/jwt"),
        (&["text/html", "application/jwt"], "application/jwt"),
        (&[signed], signed),
        (&["application/json;q=0.2,application/token-introspection+jwt;q=0.3"], signed),
    ] {
        let mut request = post("/introspect", &[("token", &*access)]).basic("gateway", SECRET);
        for value in accept {
            request = request.with("accept", value);
        }
        let reply = server.send(request).await.ok();
        assert_eq!(reply.header("content-type"), expected, "{accept:?}");
    }
}

/// Sends raw bytes, and reads once.
async fn one_read(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn the_plainest_of_gateways_is_served() {
    let wire = Wire::new().await;
    let server = &wire.server;
    let session = server.session("web-app").await;
    let ask = |token: &str| {
        // The token as it is, no hint, and an HTTP version without chunks or `Host`.
        let body = format!("token={token}");
        format!(
            "POST /introspect HTTP/1.0\r\nAuthorization: Basic {}\r\nAccept: application/jwt\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            STANDARD.encode(format!("gateway:{SECRET}")),
            body.len(),
        )
    };
    // Head and body come in one read.
    let response = one_read(wire.address, &ask(&session.access)).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.0 200 ok\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/jwt"), "{head}");
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    assert!(!head.contains("\r\nvary:") && !head.contains("chunked"), "{head}");
    server.verifier(ORDERS).verify(&server.keys().await, body).unwrap();

    let response = one_read(wire.address, &ask("junk")).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 204 "), "{head}");
    assert_eq!(body, "");
}
