//! The token endpoint when it refuses (RFC 6749 §5.2, RFC 8707 §2).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom::core::ClientId;
use cloakroom::{Client, ClientDirectory, DirectoryError, Format, GrantType};

use super::request::{With, post};
use super::server::{ORDERS, REDIRECT, SECRET, Server, VERIFIER};

#[tokio::test]
async fn every_malformed_request_is_told_apart() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    let credentials = ("grant_type", "client_credentials");
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*session.refresh)];
    let refreshing = |name, value| [&refresh[..], &[(name, value)]].concat();
    let long = "s".repeat(5_000);

    for (form, code, why) in [
        (vec![], "invalid_request", "grant_type is missing"),
        (vec![("grant_type", "")], "invalid_request", "grant_type is missing"),
        (vec![("grant_type", "password")], "unsupported_grant_type", ""),
        (vec![("grant_type", "CLIENT_CREDENTIALS")], "unsupported_grant_type", ""),
        (vec![credentials, credentials], "invalid_request", "a parameter is repeated"),
        (vec![credentials, ("x", "1"), ("x", "2")], "invalid_request", "a parameter is repeated"),
        (
            vec![credentials, ("scope", "a"), ("scope", "")],
            "invalid_request",
            "a parameter is repeated",
        ),
        (vec![("grant_type", "authorization_code")], "invalid_request", "code is missing"),
        (vec![("grant_type", "refresh_token")], "invalid_request", "refresh_token is missing"),
        (
            vec![credentials, ("scope", "orders:delete")],
            "invalid_scope",
            "the client may not have all of this scope",
        ),
        (
            vec![credentials, ("scope", "orders:read  orders:write")],
            "invalid_scope",
            "the scope is malformed",
        ),
        (vec![credentials, ("scope", "\"")], "invalid_scope", "the scope is malformed"),
        (vec![credentials, ("scope", &long)], "invalid_scope", "the scope is malformed"),
        (
            vec![credentials, ("resource", "https://unknown.example")],
            "invalid_target",
            "the client may not have tokens for this resource",
        ),
        (
            vec![credentials, ("resource", "orders")],
            "invalid_target",
            "a resource must be an absolute URI without a fragment",
        ),
        (
            vec![credentials, ("resource", "https://orders.example#a")],
            "invalid_target",
            "a resource must be an absolute URI without a fragment",
        ),
        (
            refreshing("scope", "orders:read orders:delete"),
            "invalid_scope",
            "the scope is wider than what was granted",
        ),
        (refreshing("scope", "\\"), "invalid_scope", "the scope is malformed"),
        (
            refreshing("resource", "https://billing.example"),
            "invalid_target",
            "the resource was not granted",
        ),
        (
            refreshing("resource", "/orders"),
            "invalid_target",
            "a resource must be an absolute URI without a fragment",
        ),
    ] {
        let reply = server.ask("web-app", "/token", &form).await.refused(400, code);
        assert_eq!(reply.member("error_description"), why, "{form:?}");
        let members = if why.is_empty() { 1 } else { 2 };
        assert_eq!(reply.json().as_object().unwrap().len(), members, "{form:?}");
    }
    // None of it spent the refresh token.
    server.ask("web-app", "/token", &refresh).await.ok();
}

#[tokio::test]
async fn a_body_is_a_form_of_bounded_size() {
    let server = Server::new().await.mounted(|endpoints| endpoints.body_limit(1_000));
    let body = "grant_type=client_credentials";
    let request = |content_type: &str, body: &str| {
        let request = post("/token", &[]).map(|_| Bytes::from(body.to_owned()));
        let mut request = request.basic("web-app", SECRET);
        request.headers_mut().remove("content-type");
        match content_type {
            "" => request,
            text => request.with("content-type", text),
        }
    };
    let form = "application/x-www-form-urlencoded";
    for good in [form, "application/x-www-form-urlencoded; charset=UTF-8"] {
        server.send(request(good, body)).await.ok();
    }
    let many = |count: usize| (1..count).fold(body.to_owned(), |body, n| format!("{body}&p{n}="));
    let twice = request(form, body).with("content-type", form);
    for bad in [
        request("", body),
        request("application/json", r#"{"grant_type":"client_credentials"}"#),
        request("multipart/form-data; boundary=x", body),
        request("text/plain", body),
        twice,
        request(form, "grant_type=client_credentials&x=%ff"),
        request(form, &many(65)),
    ] {
        server.send(bad).await.refused(400, "invalid_request");
    }
    server.send(request(form, &many(64))).await.ok();
    let padded = |length: usize| format!("{body}&x={}", "x".repeat(length - body.len() - 3));
    server.send(request(form, &padded(1_000))).await.ok();
    let reply = server.send(request(form, &padded(1_001))).await;
    reply.refused(413, "invalid_request");
}

#[tokio::test]
async fn a_client_gets_what_it_is_registered_for() {
    let server = Server::new().await;
    let resource_server = "orders-api";
    let form = [("grant_type", "client_credentials")];
    server.ask(resource_server, "/token", &form).await.refused(400, "unauthorized_client");

    // What is right for others does not help it, and does no harm.
    let refresh = server.session("web-app").await.refresh;
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*refresh)];
    server.ask(resource_server, "/token", &form).await.refused(400, "unauthorized_client");
    let code = server.code("web-app").await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    server.ask(resource_server, "/token", &form).await.refused(400, "unauthorized_client");
    server.ask("web-app", "/token", &form).await.ok();
}

/// A directory in which every client is public, and may do what public clients can do.
#[derive(Debug)]
struct Careless;

#[async_trait]
impl ClientDirectory for Careless {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        let client = Client::public(id)
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(REDIRECT)
            .audience(ORDERS, Format::Opaque);
        Ok(Some(Arc::new(client.build().unwrap())))
    }
}

#[tokio::test]
async fn a_public_client_has_no_credentials_to_grant_by() {
    let server = Server::with(|issuer| issuer.clients(Arc::new(Careless))).await;
    // RFC 6749 §4.4: "The client credentials grant type MUST only be used by confidential clients."
    let form = [("grant_type", "client_credentials"), ("client_id", "spa-app")];
    server.send(post("/token", &form)).await.refused(400, "unauthorized_client");
}

#[tokio::test]
async fn parameters_in_the_url_count_for_nothing() {
    let server = Server::new().await;
    // RFC 6749 §2.3.1: "The parameters can only be transmitted in the request-body and MUST NOT be
    // included in the request URI."
    let url =
        format!("/token?grant_type=client_credentials&client_id=web-app&client_secret={SECRET}");
    server.send(post(&url, &[])).await.refused(401, "invalid_client");
    server.ask("web-app", &url, &[]).await.refused(400, "invalid_request");
}
