use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom_resource::{ActiveToken, BearerLayer, VerifiedToken};
use http::Request;
use serde_json::json;
use tower::ServiceExt;

use crate::introspection::client;
use crate::support::{AUDIENCE, ISSUER, Key, Peer, claims_with, json, manual_clock, secret};

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    tenant: String,
    level: Option<u8>,
}

async fn whoami(token: VerifiedToken) -> String {
    assert!(token.has_scope("orders:read") && !token.has_scope("orders"));
    assert_eq!(token.client().unwrap().as_str(), "web-app");
    assert_eq!(token.token().jti.as_ref().unwrap().as_str(), "1");
    token.subject().unwrap().id().to_owned()
}

#[tokio::test]
async fn a_handler_gets_the_token_or_the_developer_an_error() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let app =
        Router::new().route("/", get(whoami)).route_layer(layer).route("/forgotten", get(whoami));
    let bearer = format!("Bearer {}", key.token().await);
    for (path, expected) in [("/", 200), ("/forgotten", 500)] {
        let request = Request::get(path).header("authorization", &bearer);
        let request = request.body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), expected);
    }
}

#[tokio::test]
async fn what_a_jwt_says_besides() {
    let key = Key::new();
    let verifier = key.verifier(&manual_clock());
    let changes = json!({ "handle_hash": "A".repeat(43), "stateless": true, "sid": "s" });
    let token = verifier.verify(&secret(&key.sign(&claims_with(&changes)).await)).await.unwrap();
    assert!(token.key_id().is_some());
    assert_eq!(token.key_id(), key.0.public_jwk().kid());
    assert_eq!(token.handle_hash().unwrap().as_bytes(), &[0; 32]);
    assert!(token.is_stateless());
    let claims: Claims = token.claims().unwrap();
    assert_eq!(claims, Claims { tenant: "acme".to_owned(), level: None });

    let plain = verifier.verify(&secret(&key.token().await)).await.unwrap();
    assert!(plain.handle_hash().is_none() && !plain.is_stateless());
    for wrong in [json!({ "tenant": 1 }), json!({ "tenant": null }), json!({ "level": 256 })] {
        let token = verifier.verify(&secret(&key.sign(&claims_with(&wrong)).await)).await.unwrap();
        assert!(token.claims::<Claims>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn an_introspected_token_has_claims_and_no_key() {
    let answer = json!({ "active": true, "aud": AUDIENCE, "tenant": "acme", "level": 3 });
    let peer = Peer::start(move |_| json(&answer)).await;
    let bearer = BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE);
    let handler = |token: VerifiedToken| async move {
        assert!(token.key_id().is_none() && token.handle_hash().is_none());
        let claims: Claims = token.claims().unwrap();
        format!("{} {:?}", claims.tenant, claims.level)
    };
    let app = Router::new().route("/", get(handler)).route_layer(bearer);
    let request = Request::get("/").header("authorization", "Bearer cr_at_x");
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    assert_eq!(body, "acme Some(3)");
}

#[tokio::test]
async fn a_handler_is_tested_without_an_authorization_server() {
    let claims = claims_with(&json!({}));
    let token: ActiveToken = serde_json::from_value(claims).unwrap();
    let token = VerifiedToken::for_tests(token);
    assert_eq!(whoami(token.clone()).await, "alice");
    let app = Router::new().route("/", get(whoami));
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    request.extensions_mut().insert(token);
    assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
}
