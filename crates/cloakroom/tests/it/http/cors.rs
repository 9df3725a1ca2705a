//! Scripts of other origins: off by default, and on for those allowed alone.

use bytes::Bytes;
use http::{HeaderName, Method, Request};

use super::request::{Reply, With, get, post};
use super::server::{Server, Wire};

const APP: &str = "https://app.example";
const OPEN: [&str; 4] =
    ["/token", "/revoke", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"];

fn preflight(path: &str, origin: &str) -> Request<Bytes> {
    Request::options(path)
        .body(Bytes::new())
        .unwrap()
        .with("origin", origin)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "authorization,content-type")
}

/// The real thing after the preflight.
fn request(path: &str, origin: &str) -> Request<Bytes> {
    let is_posted = ["/token", "/revoke", "/introspect"].contains(&path);
    let request = if is_posted { post(path, &[]) } else { get(path) };
    request.with("origin", origin)
}

#[track_caller]
fn assert_closed(reply: &Reply) {
    let mut names = reply.headers.keys();
    assert!(!names.any(|name| name.as_str().starts_with("access-control-")), "{reply:?}");
}

#[tokio::test]
async fn no_script_may_call_by_default() {
    let server = Server::new().await;
    for path in OPEN.into_iter().chain(["/introspect", "/revocations", "/handle-keys"]) {
        for asked in [preflight(path, APP), request(path, APP)] {
            let is_preflight = asked.method() == Method::OPTIONS;
            let reply = server.send(asked).await;
            assert_closed(&reply);
            assert_eq!(reply.header("vary"), "");
            assert_eq!(reply.status == 405, is_preflight, "{path}");
        }
    }
}

#[tokio::test]
async fn scripts_of_an_allowed_origin_may_call() {
    let other = "http://localhost:5173";
    let wire = Wire::at("", |e| e.allow_origin(APP).unwrap().allow_origin(other).unwrap()).await;
    for path in OPEN {
        for origin in [APP, other] {
            let reply = wire.send(preflight(path, origin)).await;
            assert_eq!((reply.status, reply.text()), (204, ""));
            assert_eq!(reply.header("access-control-allow-origin"), origin);
            assert_eq!(reply.header("access-control-allow-methods"), "GET, POST");
            let headers = reply.header("access-control-allow-headers");
            assert_eq!(headers, "authorization, content-type, dpop, mcp-protocol-version");
            assert_eq!(reply.header("vary"), "origin");

            // Errors, too: a script must be able to read them.
            let reply = wire.send(request(path, origin)).await;
            assert_eq!(reply.header("access-control-allow-origin"), origin, "{path}");
            assert_eq!(reply.header("vary"), "origin");
            // Cookies play no part.
            assert_eq!(reply.header("access-control-allow-credentials"), "");
        }
    }
}

#[tokio::test]
async fn scripts_of_any_other_origin_may_not() {
    let server = Server::new().await.mounted(|endpoints| endpoints.allow_origin(APP).unwrap());
    for path in OPEN {
        for origin in [
            "https://evil.example",
            "https://app.example.evil.example",
            "https://app.example:8443",
            "http://app.example",
            "https://APP.example",
            "null",
            "*",
            "",
        ] {
            for asked in [preflight(path, origin), request(path, origin)] {
                let reply = server.send(asked).await;
                assert_closed(&reply);
                // A cache must not serve this to the origin that is allowed.
                assert_eq!(reply.header("vary"), "origin", "{path}");
            }
        }
    }
    // These are for resource servers, and they are no scripts.
    for path in ["/introspect", "/revocations", "/handle-keys"] {
        for asked in [preflight(path, APP), request(path, APP)] {
            assert_closed(&server.send(asked).await);
        }
    }
}

#[tokio::test]
async fn scripts_may_send_and_read_the_headers_that_the_app_adds() {
    let server = Server::new().await.mounted(|endpoints| {
        let endpoints = endpoints.allow_origin(APP).unwrap();
        let endpoints = endpoints.allow_header(HeaderName::from_static("x-tenant"));
        endpoints.expose_header(HeaderName::from_static("x-request-id"))
    });
    let reply = server.send(preflight("/token", APP)).await;
    let headers = reply.header("access-control-allow-headers");
    assert_eq!(headers, "authorization, content-type, dpop, mcp-protocol-version, x-tenant");
    let reply = server.send(request("/token", APP)).await;
    let headers = reply.header("access-control-expose-headers");
    assert_eq!(headers, "dpop-nonce, retry-after, www-authenticate, x-request-id");
}

#[tokio::test]
async fn no_file_is_an_origin() {
    for bad in ["file://host", "file://localhost/", "file:///", "app://", "app:///"] {
        assert!(Server::new().await.endpoints.clone().allow_origin(bad).is_err(), "{bad}");
    }
}
