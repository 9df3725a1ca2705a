//! An API in the issuer's own process.

use std::convert::Infallible;

use cloakroom::core::{Audience, TokenSecret};
use cloakroom::resource::{BearerLayer, Introspector as _, VerifiedToken};
use cloakroom::{Caller, Grant, LocalIntrospector};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::support::*;

/// The status of a request with this token, and whom the API saw.
async fn ask(layer: &BearerLayer, token: &TokenSecret) -> (u16, String) {
    let api = layer.layer(service_fn(|request: Request<()>| async move {
        let token = request.extensions().get::<VerifiedToken>().unwrap();
        Ok::<_, Infallible>(Response::new(token.subject().unwrap().id().to_owned()))
    }));
    let mut request = Request::new(());
    let value = format!("Bearer {}", token.expose()).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let response = api.oneshot(request).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

#[tokio::test]
async fn handles_and_jwts_pass_until_they_are_revoked() {
    let fixture = Fixture::new().await;
    for resource in [ORDERS, REPORTS, JOBS] {
        let layer = fixture.issuer.protect(resource);
        let elsewhere = fixture.issuer.protect("https://elsewhere.example");
        let tokens = fixture.token_for(resource).await;
        let token = &tokens.access_token;
        assert_eq!(ask(&layer, token).await, (200, "alice".into()), "{resource}");
        assert_eq!(ask(&elsewhere, token).await.0, 401, "{resource}");
        assert_eq!(ask(&layer, &tampered(token, 20)).await.0, 401);
        assert_eq!(ask(&layer, &tokens.refresh_token.unwrap()).await.0, 401);
        let scoped = layer.clone().require_scope("admin").unwrap();
        assert_eq!(ask(&scoped, token).await.0, 403);
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        assert_eq!(ask(&layer, token).await.0, 401, "{resource}");
        let tokens = fixture.token_for(resource).await;
        fixture.store.tokens_down(true);
        assert_eq!(ask(&layer, &tokens.access_token).await.0, 503);
        fixture.store.tokens_down(false);
        fixture.clock.advance(secs(601));
        assert_eq!(ask(&layer, &tokens.access_token).await.0, 401, "by the issuer's clock");
    }
}

#[tokio::test]
async fn a_new_signing_key_counts_at_once() {
    let fixture = Fixture::new().await;
    let layer = fixture.issuer.protect(JOBS);
    let old = fixture.token_for(JOBS).await.access_token;
    fixture.clock.advance(DAY);
    fixture.issuer.maintain().await.unwrap();
    fixture.issuer.rotate_keys().await.unwrap();
    let new = fixture.token_for(JOBS).await.access_token;
    assert_ne!(key_of(&old), key_of(&new));
    assert_eq!(ask(&layer, &new).await, (200, "alice".into()));
    fixture.issuer.compromise_key(&key_of(&new).parse().unwrap()).await.unwrap();
    assert_eq!(ask(&layer, &new).await.0, 401);
}

fn key_of(jwt: &TokenSecret) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = jwt.expose().split('.').next().unwrap();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_jwt_that_was_made_for_a_gateway_does_not_pass() {
    let fixture = Fixture::new().await;
    let handle = fixture.token_for(ORDERS).await.access_token;
    let jwt = fixture.issuer.swap(&handle, None, Caller::Internal).await.unwrap().unwrap().jwt;
    assert_eq!(ask(&fixture.issuer.protect(ORDERS), &jwt).await.0, 401);
}

#[tokio::test]
async fn a_sign_in_can_be_demanded() {
    let fixture = Fixture::new().await;
    let layer = fixture.issuer.protect(REPORTS);
    let layer = layer.require_auth(MINUTE, "mfa").unwrap();
    let grant = || {
        let grant = Grant::user("web-app", "alice").unwrap().auth_time(START);
        grant.audience(Audience::one(REPORTS).unwrap())
    };
    let weak = fixture.issuer.issue(grant()).await.unwrap().access_token;
    let strong = fixture.issuer.issue(grant().acr("mfa").unwrap()).await.unwrap().access_token;
    assert_eq!((ask(&layer, &weak).await.0, ask(&layer, &strong).await.0), (401, 200));
    fixture.clock.advance(MINUTE + secs(1));
    assert_eq!(ask(&layer, &strong).await.0, 401);
}

#[tokio::test]
async fn an_introspector_sees_what_its_client_may_see() {
    let fixture = Fixture::new().await;
    let token = fixture.token_for(ORDERS).await.access_token;
    let as_client = async |client| {
        let issuer = fixture.issuer.clone();
        LocalIntrospector::new(issuer, &client_id(client)).await.unwrap()
    };
    for (local, sees) in [
        (LocalIntrospector::internal(fixture.issuer.clone()), true),
        (as_client("gateway").await, true),
        (as_client("orders-api").await, true),
        (as_client("billing-api").await, false),
    ] {
        assert_eq!(local.introspect(&token).await.unwrap().is_active(), sees, "{local:?}");
        assert_eq!(local.swap(&token, ORDERS).await.unwrap().is_some(), sees, "{local:?}");
        assert!(local.swap(&token, BILLING).await.unwrap().is_none(), "{local:?}");
    }
}
