//! Paths and methods that are not served.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::request::{With as _, get, post};
use super::server::{SECRET, Server, Wire};

#[tokio::test]
async fn every_endpoint_has_its_methods() {
    let wire = Wire::new().await;
    for (path, allow) in [
        ("/token", "POST"),
        ("/introspect", "POST"),
        ("/revoke", "POST"),
        ("/revocations", "GET, POST"),
        ("/handle-keys", "GET, POST"),
        ("/.well-known/jwks.json", "GET, HEAD"),
        ("/.well-known/oauth-authorization-server", "GET, HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let request = || {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                Request::builder().method(method).uri(path).body(Bytes::new()).unwrap()
            };
            for reply in [wire.send(request()).await, wire.server.send(request()).await] {
                assert_eq!(reply.status, 405, "{method} {path}");
                assert_eq!(reply.header("allow"), allow);
                assert_eq!(reply.text(), "");
            }
        }
    }
}

#[tokio::test]
async fn other_paths_are_the_apps() {
    let wire = Wire::new().await;
    for path in [
        "/",
        "/token/",
        "/Token",
        "/%74oken",
        "//token",
        "/introspect.json",
        "/.well-known/jwks.json/",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/",
    ] {
        assert_eq!(wire.send(get(path)).await.status, 404, "{path}");
        assert_eq!(wire.server.send(get(path)).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let wire = Wire::new().await;
    let form = |length: usize| {
        let body = Bytes::from(vec![b'a'; length]);
        post("/token", &[]).map(|_| body)
    };
    wire.send(form(64 * 1024)).await.refused(401, "invalid_client");
    wire.send(form(64 * 1024 + 1)).await.refused(413, "invalid_request");
}

/// A buffer that grew with the square of what has come could not be had.
#[tokio::test]
async fn a_large_body_may_come_in_large_parts() {
    let server = Server::new().await.mounted(|endpoints| endpoints.body_limit(4 << 20));
    let part = "x".repeat(1 << 20);
    let parts = ["grant_type=client_credentials&x=", &part, &part, &part];
    let parts = parts.map(|part| Ok::<_, std::io::Error>(Bytes::from(part.to_owned())));
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let request = post("/token", &[]).basic("web-app", SECRET).map(|_| body);
    let response = server.endpoints.clone().router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_body_is_not_read_beyond_the_limit() {
    let wire = Wire::new().await;
    let mut stream = TcpStream::connect(wire.address).await.unwrap();
    let head = "POST /token HTTP/1.1\r\nHost: as\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'a'; 64 * 1024 + 1]).await.unwrap();
    // The rest never comes; a server that waits for it hangs.
    let mut status = [0; 12];
    let read = stream.read_exact(&mut status);
    tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}
