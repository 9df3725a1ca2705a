//! Outages: always 503 with `Retry-After`, never "inactive", and never a token let through.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom::core::ClientId;
use cloakroom::http::Endpoints;
use cloakroom::{Client, ClientDirectory, DirectoryError};
use http::Request;

use super::request::{Reply, With, post};
use super::server::{REDIRECT, SECRET, Server, VERIFIER, Wire};
use crate::engine::support::{CLIENT_SECRET, Fixture};

#[track_caller]
fn assert_down(what: &str, reply: Reply) {
    assert_eq!(reply.text(), r#"{"error":"temporarily_unavailable"}"#, "{what}");
    let reply = reply.refused(503, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), "1", "{what}");
}

#[tokio::test]
async fn without_its_store_the_server_answers_nothing_and_loses_nothing() {
    let wire = Wire::new().await;
    let server = &wire.server;
    let session = server.session("web-app").await;
    let code = server.code("web-app").await;
    let jwt = server.client_token("batch-job", &[]).await;
    let as_web_app = |path: &str, form: &[(&str, &str)]| post(path, form).basic("web-app", SECRET);
    let introspect = |token: &str, accept: &str| {
        post("/introspect", &[("token", token)]).with("accept", accept).basic("gateway", SECRET)
    };
    let requests = || -> Vec<(&str, Request<Bytes>)> {
        vec![
            ("JSON", introspect(&session.access, "application/json")),
            ("JSON of a JWT", introspect(&jwt, "application/json")),
            ("JWT", introspect(&session.access, "application/jwt")),
            ("signed", introspect(&session.access, "application/token-introspection+jwt")),
            ("own refresh token", as_web_app("/introspect", &[("token", &session.refresh)])),
            ("grant", as_web_app("/token", &[("grant_type", "client_credentials")])),
            (
                "code",
                as_web_app(
                    "/token",
                    &[
                        ("grant_type", "authorization_code"),
                        ("code", &code),
                        ("redirect_uri", REDIRECT),
                        ("code_verifier", VERIFIER),
                    ],
                ),
            ),
            (
                "refresh",
                as_web_app(
                    "/token",
                    &[("grant_type", "refresh_token"), ("refresh_token", &session.refresh)],
                ),
            ),
            ("revoke", as_web_app("/revoke", &[("token", &session.access)])),
            ("revoke the grant", as_web_app("/revoke", &[("token", &session.refresh)])),
        ]
    };
    server.store.tokens_down(true);
    for (what, request) in requests() {
        assert_down(what, wire.send(request).await);
    }
    // What needs no store is answered: a forged handle, and a caller whom nobody knows.
    let forged = server.introspect("gateway", "cr_at_forged").await.ok();
    assert_eq!(forged.text(), r#"{"active":false}"#);
    server.send(post("/introspect", &[])).await.refused(401, "invalid_client");

    // Everything goes on where it stood.
    server.store.tokens_down(false);
    for (what, request) in requests() {
        assert_eq!(wire.send(request).await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn without_its_keys_nothing_is_signed_and_handles_go_on() {
    let server = Server::new().await;
    let jwt = server.client_token("batch-job", &[]).await;
    server.store.keys_down(true);
    // A node that is cut off from its keys goes on signing for an hour.
    server.advance(3_601);
    let session = server.session("web-app").await;
    let ask = |token: &str, accept: &str| {
        let request = post("/introspect", &[("token", token)]);
        server.send(request.with("accept", accept).basic("gateway", SECRET))
    };
    assert_eq!(ask(&session.access, "*/*").await.ok().json()["active"], true);
    for (what, reply) in [
        ("swap", ask(&session.access, "application/jwt").await),
        ("sign", ask(&session.access, "application/token-introspection+jwt").await),
        // Whatever it is, it is not known to be inactive.
        ("check a JWT", ask(&jwt, "application/json").await),
        ("swap a JWT", ask(&jwt, "application/jwt").await),
        (
            "issue a JWT",
            server.ask("batch-job", "/token", &[("grant_type", "client_credentials")]).await,
        ),
        ("revoke a JWT", server.ask("batch-job", "/revoke", &[("token", &jwt)]).await),
    ] {
        assert_down(what, reply);
    }
}

/// A directory whose database is gone.
#[derive(Debug)]
struct Gone;

#[async_trait]
impl ClientDirectory for Gone {
    async fn client(&self, _: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Err(DirectoryError::new("connection refused"))
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_asked_knows_nobody_and_refuses_nobody() {
    let server = Server::with(|issuer| issuer.clients(Arc::new(Gone))).await;
    for path in ["/token", "/introspect", "/revoke"] {
        for request in [
            post(path, &[("token", "x")]).basic("web-app", SECRET),
            post(path, &[("token", "x"), ("client_id", "spa-app")]),
        ] {
            assert_down(path, server.send(request).await);
        }
    }
}

/// Nobody need try again.
#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_outage() {
    let fixture = Fixture::new().await;
    let access = fixture.session().await.access;
    fixture.store.damage("find", true);
    let endpoints = Endpoints::new(fixture.issuer.clone());
    for accept in ["application/json", "application/jwt"] {
        let request = post("/introspect", &[("token", access.expose())]).with("accept", accept);
        let reply: Reply = endpoints.handle(request.basic("gateway", CLIENT_SECRET)).await.into();
        assert_eq!(reply.text(), r#"{"error":"server_error"}"#);
        reply.refused(500, "server_error");
    }
}
