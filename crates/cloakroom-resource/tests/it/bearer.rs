use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Confirmation;
use cloakroom_core::time::Clock;
use cloakroom_resource::{BearerLayer, ReqwestClient, VerifiedToken, Verifier};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::introspection::client;
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, START, claims_with, json, manual_clock, respond,
};

/// Sends a request with these `Authorization` headers; the body says whom the API saw.
async fn send(layer: &BearerLayer, authorization: &[&[u8]]) -> Response<String> {
    send_with(layer, authorization, None).await
}

/// The same, where a middleware of the app has checked the proof of a key.
pub(crate) async fn send_with(
    layer: &BearerLayer,
    authorization: &[&[u8]],
    proved: Option<Confirmation>,
) -> Response<String> {
    let api = layer.layer(service_fn(|request: Request<()>| async move {
        let token = request.extensions().get::<VerifiedToken>().unwrap();
        let who = token.subject().map_or("-", |subject| subject.id()).to_owned();
        Ok::<_, Infallible>(Response::new(who))
    }));
    let mut request = Request::new(());
    for value in authorization {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append("authorization", value);
    }
    if let Some(key) = proved {
        request.extensions_mut().insert(key);
    }
    api.oneshot(request).await.unwrap()
}

async fn present(layer: &BearerLayer, token: &str) -> Response<String> {
    send(layer, &[format!("Bearer {token}").as_bytes()]).await
}

/// The same twice: through the layer, and for a framework without tower.
async fn send_both(layer: &BearerLayer, authorization: &[&[u8]]) -> Response<String> {
    let response = send(layer, authorization).await;
    let mut request = Request::new("the body");
    for value in authorization {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append("authorization", value);
    }
    match layer.check(request).await {
        Ok(request) => {
            assert_eq!((response.status().as_u16(), *request.body()), (200, "the body"));
            let token = request.extensions().get::<VerifiedToken>().unwrap();
            assert_eq!(token.user(), Some(&**response.body()));
            let shown = format!("{:?}", request.headers());
            assert!(request.headers()["authorization"].is_sensitive(), "a trace shows {shown}");
        }
        Err(refusal) => {
            assert_eq!(refusal.status(), response.status());
            assert_eq!(refusal.headers(), response.headers());
        }
    }
    response
}

fn challenge(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("www-authenticate").iter();
    let value = values.next()?;
    assert!(values.next().is_none());
    value.to_str().ok()
}

const REALM: &str = r#"Bearer realm="https://orders.example""#;

fn assert_refused(response: &Response<String>, status: u16, error: &str, what: &str) {
    assert_eq!(response.status(), status, "{what}");
    let expected =
        if error.is_empty() { REALM.to_owned() } else { format!(r#"{REALM}, error="{error}""#) };
    assert_eq!(challenge(response.headers()), Some(&*expected), "{what}");
    assert_eq!(response.body(), "", "nothing more is said");
}

fn assert_outage(response: &Response<String>) {
    assert_eq!(response.status(), 503);
    assert_eq!(challenge(response.headers()), None);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.body(), "");
}

#[tokio::test]
async fn the_authorization_header_is_read_strictly() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let token = key.token().await;
    let credential = |scheme: &str| format!("{scheme} {token}").into_bytes();

    for good in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        let response = send_both(&layer, &[&credential(good)]).await;
        assert_eq!((response.status().as_u16(), &**response.body()), (200, "alice"), "{good}");
    }
    for none in [&b""[..], b"Basic YTpi", b"DPoPX abc", b"BearerX abc", b"Bearer\tabc"] {
        assert_refused(&send_both(&layer, &[none]).await, 401, "", &String::from_utf8_lossy(none));
    }
    assert_refused(&send_both(&layer, &[]).await, 401, "", "no header");
    for malformed in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Bearer =",
        b"Bearer a b",
        b"Bearer a,b",
        b"Bearer a=b",
        b"Bearer \"a\"",
        b"Bearer token=a",
        b"Bearer a\xff",
        b"Bearer \xc3\xa9",
        b"DPoP",
        b"DPoP a b",
    ] {
        let response = send_both(&layer, &[malformed]).await;
        assert_refused(&response, 400, "invalid_request", &String::from_utf8_lossy(malformed));
    }
    let good = credential("Bearer");
    for two in [[&*good, &*good], [&*good, b"Basic YTpi"], [b"Basic YTpi", &*good]] {
        assert_refused(&send_both(&layer, &two).await, 400, "invalid_request", "two headers");
    }
    for bad in ["a", "cr_at_x", "a.b.c", &"a".repeat(8193), &format!("{token}A"), &token[1..]] {
        assert_refused(
            &send_both(&layer, &[format!("Bearer {bad}").as_bytes()]).await,
            401,
            "invalid_token",
            bad,
        );
    }
}

#[tokio::test]
async fn a_jwt_is_checked_in_every_respect() {
    let (key, clock) = (Key::new(), manual_clock());
    let layer = BearerLayer::new(key.verifier(&clock).leeway(Duration::from_secs(10)));
    let now = START.as_secs();
    for (changes, accepted) in [
        (json!({}), true),
        (json!({ "exp": now + 1 }), true),
        (json!({ "exp": now - 9 }), true),
        (json!({ "exp": now - 11 }), false),
        (json!({ "nbf": now + 9 }), true),
        (json!({ "nbf": now + 11 }), false),
        (json!({ "iss": "https://evil.example" }), false),
        (json!({ "iss": null }), false),
        (json!({ "aud": "https://billing.example" }), false),
        (json!({ "aud": ["https://billing.example", AUDIENCE] }), true),
        (json!({ "aud": null }), false),
        (json!({ "exp": null }), false),
        (json!({ "cnf": { "jkt": "A".repeat(43) } }), false),
        (json!({ "cnf": { "x5t#S256": "A".repeat(43) } }), false),
        (json!({ "cnf": {} }), false),
    ] {
        let token = key.sign(&claims_with(&changes)).await;
        let response = present(&layer, &token).await;
        if accepted {
            assert_eq!(response.status(), 200, "{changes}");
        } else {
            assert_refused(&response, 401, "invalid_token", &changes.to_string());
        }
    }
    let stranger = Key::new().token().await;
    assert_refused(&present(&layer, &stranger).await, 401, "invalid_token", "another's key");
}

#[tokio::test]
async fn a_scope_may_be_required() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let token = key.token().await; // orders:read profile
    for good in ["", "orders:read", "profile orders:read"] {
        let layer = layer.clone().require_scope(good).unwrap();
        assert_eq!(present(&layer, &token).await.status(), 200, "{good}");
    }
    let both = layer.clone().require_scope("profile").unwrap();
    let both = both.require_scope("orders:write").unwrap();
    let response = present(&both, &token).await;
    assert_eq!(response.status(), 403);
    assert_eq!(
        challenge(response.headers()).unwrap(),
        format!(r#"{REALM}, error="insufficient_scope", scope="orders:write profile""#)
    );
    for bad in ["a\"b", "a\\", "a  b", "é"] {
        assert!(layer.clone().require_scope(bad).is_err(), "{bad}");
    }
    // Who may not even come in is not told what else it takes.
    assert_refused(&present(&both, "x").await, 401, "invalid_token", "scope is last");
    let none = key.sign(&claims_with(&json!({ "scope": null }))).await;
    assert_eq!(present(&both, &none).await.status(), 403);
}

#[tokio::test]
async fn an_outage_of_the_keys_is_503() {
    let key = Key::new();
    let peer = Peer::start(|_| respond(500, "", "")).await;
    let client = ReqwestClient::new().unwrap();
    let verifier = Verifier::fetching(ISSUER, AUDIENCE, &peer.url, client).unwrap();
    let layer = BearerLayer::new(verifier);
    assert_outage(&present(&layer, &key.token().await).await);
    assert_refused(&send(&layer, &[]).await, 401, "", "no token needs no keys");
}

#[tokio::test]
async fn an_introspected_token_must_be_meant_for_this_api() {
    let clock = manual_clock();
    let peer = Peer::start(|_| respond(500, "", "")).await;
    let layer = BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
    assert_outage(&present(&layer, "cr_at_x").await);

    let (now, asked) = (START.as_secs(), peer.count());
    let good = json!({ "active": true, "sub": "alice", "aud": AUDIENCE, "exp": now + 1 });
    let with = |changes: Value| {
        let mut answer = good.clone();
        answer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        answer
    };
    for (answer, accepted) in [
        (good.clone(), true),
        (with(json!({ "iss": ISSUER })), true),
        (with(json!({ "aud": ["x", AUDIENCE], "token_type": "Bearer" })), true),
        (json!({ "active": false }), false),
        (json!({ "active": false, "aud": AUDIENCE }), false),
        (json!({ "active": true, "sub": "alice" }), false),
        // The same resource: libraries that parse URLs add the slash.
        (with(json!({ "aud": format!("{AUDIENCE}/") })), true),
        (with(json!({ "aud": format!("{AUDIENCE}//") })), false),
        (with(json!({ "aud": format!("{AUDIENCE}/v1") })), false),
        (with(json!({ "iss": "https://evil.example" })), false),
        (with(json!({ "exp": now })), false),
        (with(json!({ "cnf": { "jkt": "A".repeat(43) } })), false),
        (with(json!({ "token_type": "DPoP" })), false),
        (with(json!({ "token_use": "refresh_token" })), false),
    ] {
        let text = answer.to_string();
        peer.answer_with(move |_| json(&answer));
        let response = present(&layer, "cr_at_x").await;
        if accepted {
            assert_eq!((response.status().as_u16(), &**response.body()), (200, "alice"), "{text}");
        } else {
            assert_refused(&response, 401, "invalid_token", &text);
        }
    }
    assert_eq!(peer.count(), asked + 14, "each request asks");

    peer.answer_with(|_| respond(401, "application/json", r#"{"active":false}"#));
    assert_outage(&present(&layer, "cr_at_x").await);
    let count = peer.count();
    for unasked in ["", "a b", &"a".repeat(8193)] {
        assert_ne!(present(&layer, unasked).await.status(), 200);
    }
    assert_eq!(peer.count(), count, "what is no token is not asked about");
}

#[tokio::test]
async fn jwts_and_handles_side_by_side() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer =
        Peer::start(|_| json(&json!({ "active": true, "sub": "bob", "aud": AUDIENCE }))).await;
    let layer = BearerLayer::new(key.verifier(&clock)).or_introspect(client(&peer));
    assert_eq!(present(&layer, &key.token().await).await.body(), "alice");
    let expired = key.sign(&claims_with(&json!({ "exp": 2 }))).await;
    assert_refused(&present(&layer, &expired).await, 401, "invalid_token", "a bad JWT");
    assert_eq!(peer.count(), 0, "a JWT is the verifier's, good or bad");
    assert_eq!(present(&layer, "cr_at_x").await.body(), "bob");
    assert_eq!(peer.last().form()[0].1, "cr_at_x");
}

#[tokio::test]
async fn a_route_may_demand_a_recent_or_a_strong_sign_in() {
    let (key, clock) = (Key::new(), manual_clock());
    let layer = BearerLayer::new(key.verifier(&clock));
    let now = START.as_secs();
    let recent = layer.clone().require_auth(Duration::from_secs(60), "").unwrap();
    let both = layer.clone().require_auth(Duration::from_secs(60), "phr mfa").unwrap();
    let strong = layer.clone().require_auth(None, "mfa").unwrap();
    let passes = async |layer: &BearerLayer, changes: Value| {
        let token = key.sign(&claims_with(&changes)).await;
        present(layer, &token).await.status() == 200
    };
    for (changes, expected) in [
        (json!({}), [false; 3]),
        (json!({ "auth_time": now - 60 }), [true, false, false]),
        (json!({ "auth_time": now - 61, "acr": "mfa" }), [false, false, true]),
        (json!({ "auth_time": now - 60, "acr": "mfa" }), [true; 3]),
        (json!({ "auth_time": now - 60, "acr": "phr" }), [true, true, false]),
        (json!({ "auth_time": now - 60, "acr": ["mfa"] }), [true, false, false]),
    ] {
        for (layer, expected) in [&recent, &both, &strong].into_iter().zip(expected) {
            assert_eq!(passes(layer, changes.clone()).await, expected, "{changes}");
        }
    }
    let response = present(&both, &key.token().await).await;
    assert_eq!(response.status(), 401);
    assert_eq!(
        challenge(response.headers()).unwrap(),
        "Bearer realm=\"https://orders.example\", error=\"insufficient_user_authentication\", \
         error_description=\"the user has to sign in again\", acr_values=\"phr mfa\", max_age=\"60\""
    );
    // A missing scope, which no sign-in mends, comes first.
    let scoped = both.require_scope("orders:write").unwrap();
    assert_eq!(present(&scoped, &key.token().await).await.status(), 403);
}
