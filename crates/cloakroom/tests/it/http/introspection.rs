//! Introspection as JSON (RFC 7662).

use cloakroom::Grant;
use cloakroom::core::Audience;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use serde_json::json;

use super::request::{With, post};
use super::server::{BILLING, ISSUER, ORDERS, SECRET, START, Server, Wire};

const INACTIVE: &str = r#"{"active":false}"#;

#[tokio::test]
async fn an_active_token_says_what_it_stands_for() {
    let wire = Wire::new().await;
    let grant = Grant::user("web-app", "alice").unwrap().claim("tenant", json!("acme")).unwrap();
    let session = wire.server.session_of(grant.username("Alice").unwrap()).await;

    let request = post("/introspect", &[("token", &session.access)]).basic("orders-api", SECRET);
    let reply = wire.send(request).await.ok();
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    let mut answer = reply.json();
    for opaque in ["jti", "grant_id", "grant_epoch"] {
        assert!(!answer[opaque].take().is_null(), "{opaque}");
    }
    assert_eq!(
        answer,
        json!({
            "active": true,
            "scope": "orders:read orders:write",
            "client_id": "web-app",
            "username": "Alice",
            "token_type": "Bearer",
            "exp": START.as_secs() + 600,
            "iat": START.as_secs(),
            "sub": "alice",
            "aud": ORDERS,
            "iss": wire.server.issuer().url(),
            "jti": null,
            "grant_id": null,
            "grant_epoch": null,
            "tenant": "acme",
        })
    );
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_it_is_inactive_and_no_more() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    let elsewhere = Audience::one(BILLING).unwrap();
    let elsewhere = Grant::user("web-app", "alice").unwrap().audience(elsewhere);
    let elsewhere = server.session_of(elsewhere).await;
    let revoked = server.session("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &revoked.access)]).await.ok();
    let ended = server.session("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &ended.refresh)]).await.ok();
    // The right keys, but no store knows the grant.
    let lost = Server::new().await.session("web-app").await;
    // Everything but the tag is right.
    let keys = || HandleKeys::new(&HandleSecret::new(1, [9; 32]));
    let forged = Server::with(|issuer| issuer.handle_keys(keys())).await.session("web-app").await;
    let jwt = server.client_token("batch-job", &[]).await;
    let (input, _) = jwt.rsplit_once('.').unwrap();
    let unsigned =
        format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.", jwt.split('.').nth(1).unwrap());

    for (what, token) in [
        ("junk", "junk"),
        ("junk with our prefix", "cr_at_junk"),
        ("one character more", &format!("{}A", session.access)),
        ("a forged tag", &forged.access),
        ("an unknown grant", &lost.access),
        ("revoked", &revoked.access),
        ("revoked with its grant", &ended.access),
        ("meant for another resource server", &elsewhere.access),
        ("a refresh token", &session.refresh),
        ("a code", &server.code("web-app").await),
        ("a JWT with another signature", &format!("{input}.{}", "A".repeat(86))),
        ("a JWT without one", &unsigned),
    ] {
        let reply = server.introspect("orders-api", token).await.ok();
        assert_eq!(reply.text(), INACTIVE, "{what}");
        assert_eq!(reply.header("cache-control"), "no-store", "{what}");
    }
    for good in [&session.access, &jwt] {
        assert_ne!(server.introspect("orders-api", good).await.text(), INACTIVE);
    }
    server.advance(600);
    for expired in [&session.access, &jwt] {
        assert_eq!(server.introspect("orders-api", expired).await.text(), INACTIVE);
    }
}

#[tokio::test]
async fn a_client_learns_of_its_own_tokens_alone() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    let own = server.introspect("web-app", &session.access).await.json();
    assert_eq!(own["sub"], "alice");
    let own = server.introspect("web-app", &session.refresh).await.json();
    assert_eq!((&own["active"], &own["iss"]), (&json!(true), &json!(ISSUER)));
    for token in [&session.access, &session.refresh] {
        assert_eq!(server.introspect("other-app", token).await.text(), INACTIVE);
    }
    // Nobody introspects a code, its own client neither.
    let code = server.code("web-app").await;
    assert_eq!(server.introspect("web-app", &code).await.text(), INACTIVE);
}

#[tokio::test]
async fn a_wrong_hint_costs_nothing() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    for (caller, token) in [("orders-api", &session.access), ("web-app", &session.refresh)] {
        for hint in ["access_token", "refresh_token", "urn:unheard-of", ""] {
            let form = [("token", &**token), ("token_type_hint", hint)];
            let reply = server.ask(caller, "/introspect", &form).await.ok();
            assert_eq!(reply.json()["active"], true, "{hint}");
        }
    }
}

#[tokio::test]
async fn the_endpoint_is_not_for_everyone() {
    let server = Server::new().await;
    let session = server.session("spa-app").await;
    for accept in ["*/*", "application/jwt", "application/token-introspection+jwt"] {
        let ask = |form: &[(&str, &str)]| post("/introspect", form).with("accept", accept);
        // RFC 7662 §2.1: "the endpoint MUST also require some form of authorization"
        for form in [
            &[("token", &*session.access), ("client_id", "spa-app")][..],
            &[("token", &session.access)],
        ] {
            server.send(ask(form)).await.refused(401, "invalid_client");
        }
        for form in [&[][..], &[("token", "")], &[("token", "a"), ("token", "b")]] {
            let reply = server.send(ask(form).basic("orders-api", SECRET)).await;
            reply.refused(400, "invalid_request");
        }
    }
}

#[tokio::test]
async fn the_representation_with_the_highest_weight_is_sent() {
    let server = Server::new().await;
    let access = server.session("web-app").await.access;
    for (accept, expected) in [
        ("application/jwt;q=1, */*;q=0.9", "application/jwt"),
        ("application/jwt;q=1.000, application/json;q=0.999", "application/jwt"),
        ("application/jwt;q=0.01, application/json;q=0.1", "application/json"),
        // RFC 9110 §12.4.2: a weight has three digits at most.
        ("application/jwt;q=0.9999, application/json;q=0.9", "application/json"),
        ("application/jwt;q=0.x, application/json;q=0.1", "application/json"),
        ("application/jwt;q=2, application/json;q=0.1", "application/json"),
    ] {
        let request = post("/introspect", &[("token", &access)]).with("accept", accept);
        let reply = server.send(request.basic("gateway", SECRET)).await.ok();
        assert_eq!(reply.header("content-type"), expected, "{accept}");
    }
}
