use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom_resource::{ActiveToken, BearerLayer, Token, VerifiedToken};
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

/// The status and the body for a request with this token.
async fn ask(app: &Router, path: &str, token: Option<&str>) -> (u16, String) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_claims_come_as_a_type_or_the_request_is_forbidden() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let handler = async |token: Token<Claims>| {
        let who = token.subject().unwrap().id();
        format!("{who} of {}", token.claims.tenant)
    };
    let app =
        Router::new().route("/", get(handler)).route_layer(layer).route("/forgotten", get(handler));
    let good = key.token().await;
    assert_eq!(ask(&app, "/", Some(&good)).await, (200, "alice of acme".into()));
    let other = key.sign(&claims_with(&json!({ "tenant": 7 }))).await;
    assert_eq!(ask(&app, "/", Some(&other)).await, (403, String::new()));
    assert_eq!(ask(&app, "/", None).await.0, 401);
    assert_eq!(ask(&app, "/forgotten", Some(&good)).await.0, 500);
}

#[tokio::test]
async fn an_optional_layer_lets_nobody_in_as_somebody() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let handler = async |token: Option<VerifiedToken>| {
        token.map_or("nobody".to_owned(), |token| token.subject().unwrap().id().to_owned())
    };
    let typed = async |token: Option<Token<Claims>>| {
        token.map_or("nobody".to_owned(), |token| token.claims.tenant)
    };
    let optional = layer.optional();
    // For a framework without tower.
    let passed = optional.check(Request::new(())).await.unwrap();
    assert!(passed.extensions().get::<VerifiedToken>().is_none());
    let scoped = optional.clone().require_scope("orders:write").unwrap();
    let app = Router::new()
        .route("/", get(handler))
        .route("/typed", get(typed))
        .route("/strict", get(whoami))
        .route_layer(optional)
        .merge(Router::new().route("/scoped", get(handler)).route_layer(scoped))
        .route("/forgotten", get(handler));
    let good = key.token().await;
    for (path, token, expected) in [
        ("/", Some(&*good), (200, "alice")),
        ("/", None, (200, "nobody")),
        // A token that is not valid is not the same as none.
        ("/", Some("cr_at_x"), (401, "")),
        ("/typed", Some(&good), (200, "acme")),
        ("/typed", None, (200, "nobody")),
        ("/strict", Some(&good), (200, "alice")),
        ("/strict", None, (500, "")),
        ("/scoped", Some(&good), (403, "")),
        ("/scoped", None, (200, "nobody")),
        ("/forgotten", Some(&good), (500, "")),
        ("/forgotten", None, (500, "")),
    ] {
        let (status, body) = ask(&app, path, token).await;
        assert_eq!((status, &*body), expected, "{path} {token:?}");
    }
}
