//! Who calls (RFC 6749 §2.3): wrong, missing and doubled credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::core::ClientId;
use cloakroom::{Client, ClientDirectory, DirectoryError};
use http::Request;

use super::request::{With, post};
use super::server::{ODD_SECRET, SECRET, Server, Wire};

const ENDPOINTS: [&str; 3] = ["/token", "/introspect", "/revoke"];

/// A request that lacks nothing but credentials.
fn request(path: &str, more: &[(&str, &str)]) -> Request<Bytes> {
    let form = [&[("grant_type", "client_credentials"), ("token", "x")], more].concat();
    post(path, &form)
}

#[tokio::test]
async fn an_empty_secret_is_no_secret() {
    let wire = Wire::new().await;
    // What a public client may not do here says that it was taken for one.
    let public = request("/token", &[("client_id", "spa-app")]);
    let expected = wire.send(public).await.refused(400, "unauthorized_client");
    for empty in [
        request("/token", &[]).basic("spa-app", ""),
        request("/token", &[("client_id", "spa-app"), ("client_secret", "")]),
    ] {
        let reply = wire.send(empty).await.refused(400, "unauthorized_client");
        assert_eq!(reply.text(), expected.text());
    }
}

#[tokio::test]
async fn bad_credentials_are_401_with_a_challenge() {
    let wire = Wire::new().await;
    let long = "c".repeat(256);
    for path in ENDPOINTS {
        let plain = || request(path, &[]);
        let raw = |text: &str| plain().with("authorization", text);
        let joined = |text: &str| raw(&format!("Basic {}", STANDARD.encode(text)));
        for bad in [
            plain(),
            plain().basic("web-app", "wrong"),
            plain().basic("unknown", SECRET),
            plain().basic("web-app", ""),
            plain().basic("spa-app", SECRET),
            // Not form-encoded, as RFC 6749 §2.3.1 asks.
            joined(&format!("odd: 100%+:{ODD_SECRET}")),
            joined("no colon"),
            joined(&format!("web-app:{SECRET}%ff")),
            joined(&format!("{long}:{SECRET}")),
            joined(&format!("web\u{e9}:{SECRET}")),
            joined(&format!(":{SECRET}")),
            raw("Basic"),
            raw("Basic !!!"),
            raw("Bearer x"),
            raw("x"),
            request(path, &[("client_id", "web-app")]),
            request(path, &[("client_id", "web-app"), ("client_secret", "")]),
            request(path, &[("client_id", "web-app"), ("client_secret", "wrong")]),
            request(path, &[("client_id", "unknown"), ("client_secret", SECRET)]),
            request(path, &[("client_id", "unknown")]),
            request(path, &[("client_id", &long)]),
            request(path, &[("client_secret", SECRET)]),
            request(path, &[("client_id", "spa-app"), ("client_secret", SECRET)]),
        ] {
            let what = format!("{path} {:?} {:?}", bad.headers(), bad.body());
            let reply = wire.send(bad).await;
            assert_eq!(reply.text(), r#"{"error":"invalid_client"}"#, "{what}");
            let reply = reply.refused(401, "invalid_client");
            assert_eq!(reply.header("www-authenticate"), "Basic realm=\"oauth\"", "{what}");
        }
    }
}

#[tokio::test]
async fn nobody_authenticates_twice() {
    let server = Server::new().await;
    for path in ENDPOINTS {
        let secret = [("client_id", "web-app"), ("client_secret", SECRET)];
        let again = request(path, &[]).basic("web-app", SECRET).basic("web-app", SECRET);
        for twice in [
            request(path, &secret).basic("web-app", SECRET),
            request(path, &secret[1..]).basic("web-app", SECRET),
            request(path, &[("client_id", "other-app")]).basic("web-app", SECRET),
            request(path, &secret).with("authorization", "Bearer x"),
            again,
        ] {
            server.send(twice).await.refused(400, "invalid_request");
        }
    }
}

/// A directory that counts how often it is asked.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl ClientDirectory for Counting {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok((id.as_str() == "known")
            .then(|| Arc::new(Client::confidential("known", SECRET).build().unwrap())))
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_client_look_the_same() {
    let directory = Arc::new(Counting::default());
    let server = Server::with(|issuer| issuer.clients(directory.clone())).await;
    let mut seen = Vec::new();
    for client in ["known", "unknown"] {
        let request = request("/introspect", &[]).basic(client, "wrong");
        let reply = server.send(request).await;
        let asked = directory.0.swap(0, Ordering::SeqCst);
        seen.push((reply.status, reply.headers, reply.body, asked));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].3, 1, "no request asks the directory twice");
}
