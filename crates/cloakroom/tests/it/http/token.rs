//! The token endpoint when it grants (RFC 6749 §4.1, §4.4, §5.1, §6).

use cloakroom::Grant;
use serde_json::json;

use super::request::{Reply, With, post};
use super::server::{
    BILLING, ODD_SECRET, ORDERS, REDIRECT, SECRET, Server, Session, VERIFIER, Wire,
};

const ALL: &str = "orders:read orders:write";

/// Checks the whole response to a grant, and returns its tokens.
#[track_caller]
fn granted(reply: &Reply, scope: &str) -> Session {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    // RFC 6749 §5.1
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("pragma"), "no-cache");
    let (access, refresh) = (reply.member("access_token"), reply.member("refresh_token"));
    let mut body = format!(r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":600"#);
    if !refresh.is_empty() {
        assert!(refresh.starts_with("cr_rt_"), "{refresh}");
        body += &format!(r#","refresh_token":"{refresh}""#);
    }
    body += &format!(r#","scope":"{scope}"}}"#);
    assert_eq!(reply.text(), body);
    Session { access, refresh }
}

#[tokio::test]
async fn client_credentials_with_either_way_to_send_the_secret() {
    let wire = Wire::new().await;
    let grant = ("grant_type", "client_credentials");
    for request in [
        post("/token", &[grant]).basic("web-app", SECRET),
        post("/token", &[grant]).basic("odd: 100%+", ODD_SECRET),
        // RFC 6749 §2.3: the identifier may come along, too.
        post("/token", &[grant, ("client_id", "web-app")]).basic("web-app", SECRET),
        post("/token", &[grant, ("client_id", "web-app"), ("client_secret", SECRET)]),
        post("/token", &[grant, ("client_id", "odd: 100%+"), ("client_secret", ODD_SECRET)]),
    ] {
        let tokens = granted(&wire.send(request).await, ALL);
        // RFC 6749 §4.4.3: "A refresh token SHOULD NOT be included."
        assert_eq!((tokens.access.len(), &*tokens.refresh), (73, ""));
    }
}

#[tokio::test]
async fn the_request_says_what_the_token_is_for() {
    let server = Server::new().await;
    let asked = |more: &[(&'static str, &'static str)]| {
        let form = [&[("grant_type", "client_credentials")], more].concat();
        let server = &server;
        async move {
            let reply = server.ask("web-app", "/token", &form).await;
            let access = granted(&reply, &reply.member("scope")).access;
            let token = server.introspect("gateway", &access).await.json();
            (token["aud"].clone(), token["scope"].clone())
        }
    };
    assert_eq!(asked(&[]).await, (json!(ORDERS), json!(ALL)));
    let narrowed = asked(&[("scope", "orders:read"), ("resource", BILLING)]).await;
    assert_eq!(narrowed, (json!(BILLING), json!("orders:read")));
    // What has no value counts as left out (RFC 6749 §3.2), and what nobody knows is ignored.
    let empty = asked(&[("scope", ""), ("resource", ""), ("zoom", "1")]).await;
    assert_eq!(empty, (json!(ORDERS), json!(ALL)));
}

#[tokio::test]
async fn several_resources_have_one_format() {
    let server = Server::new().await;
    let form = [("grant_type", "client_credentials"), ("resource", ORDERS), ("resource", BILLING)];
    // One is swapped at the gateway, the other is not.
    let reply = server.ask("web-app", "/token", &form).await;
    reply.refused(400, "invalid_target");
}

#[tokio::test]
async fn a_client_may_get_jwts() {
    let server = Server::new().await;
    let form = [("grant_type", "client_credentials")];
    let reply = server.ask("batch-job", "/token", &form).await;
    let jwt = granted(&reply, "orders:read").access;

    let verified = server.verifier(ORDERS).verify(&server.keys().await, &jwt).unwrap();
    assert_eq!(verified.token.client.unwrap().as_str(), "batch-job");
    assert!(server.introspect("orders-api", &jwt).await.json()["active"] == true);
}

#[tokio::test]
async fn a_code_brings_a_session_to_confidential_and_public_clients() {
    let wire = Wire::new().await;
    for client in ["web-app", "spa-app"] {
        let code = wire.server.code(client).await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        let tokens = granted(&wire.send(signed_in(client, "/token", &form)).await, ALL);

        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*tokens.refresh),
            ("scope", "orders:read"),
        ];
        let next = granted(&wire.send(signed_in(client, "/token", &form)).await, "orders:read");
        assert_ne!(next.refresh, tokens.refresh);

        // Narrowing touched the access token alone (RFC 6749 §6).
        let form = [("grant_type", "refresh_token"), ("refresh_token", &*next.refresh)];
        granted(&wire.send(signed_in(client, "/token", &form)).await, ALL);
    }
}

#[tokio::test]
async fn a_lost_response_brings_the_same_successor() {
    let wire = Wire::new().await;
    let session = wire.server.session("spa-app").await;
    let form = [
        ("client_id", "spa-app"),
        ("grant_type", "refresh_token"),
        ("refresh_token", &*session.refresh),
    ];
    let first = granted(&wire.send(post("/token", &form)).await, ALL);
    let again = granted(&wire.send(post("/token", &form)).await, ALL);
    assert_eq!(first.refresh, again.refresh);
    assert_ne!(first.access, again.access);
}

#[tokio::test]
async fn a_session_may_be_narrowed_to_one_resource() {
    let server = Server::new().await;
    let (code, refresh) = (server.code("web-app").await, server.session("web-app").await.refresh);
    for form in [
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ][..],
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
    ] {
        let with = |resource| [form, &[("resource", resource)]].concat();
        // Not granted: refused, and nothing is spent by it.
        let reply = server.ask("web-app", "/token", &with(BILLING)).await;
        reply.refused(400, "invalid_target");
        granted(&server.ask("web-app", "/token", &with(ORDERS)).await, ALL);
    }
}

/// A request of a client as it identifies itself: with its secret, or with its name alone.
fn signed_in(client: &str, path: &str, form: &[(&str, &str)]) -> http::Request<bytes::Bytes> {
    if client == "spa-app" {
        return post(path, &[&[("client_id", client)], form].concat());
    }
    post(path, form).basic(client, SECRET)
}

#[tokio::test]
async fn authorization_details_stand_in_each_response() {
    let server = Server::new().await;
    let details = json!([{ "type": "payment", "amount": "12.00" }]);
    let grant = Grant::user("web-app", "alice").unwrap().authorization_details(details.clone());
    let session = server.session_of(grant).await;
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*session.refresh)];
    let body = server.ask("web-app", "/token", &form).await.ok().json();
    assert_eq!(body["authorization_details"], details);
    // And in no response without.
    let session = server.session("web-app").await;
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*session.refresh)];
    let body = server.ask("web-app", "/token", &form).await.ok().json();
    assert!(body.get("authorization_details").is_none(), "{body}");
}
