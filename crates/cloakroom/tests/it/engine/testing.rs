//! The issuer that apps use in their tests.

use std::time::Duration;

use cloakroom::core::handle::HandleCheck;
use cloakroom::core::time::Clock as _;
use cloakroom::resource::TokenError as Refused;
use cloakroom::testing::{TestIssuer, TestToken};
use cloakroom::{Caller, Confirmation, Subject, TokenError, UnixTime};
use serde_json::{Value, json};

use super::support::{DAY, MINUTE, ORDERS, REPORTS, alice};

/// Whether the layer, and for a JWT the verifier, accept a token.
async fn accepted(test: &TestIssuer, token: &TestToken<'_>) -> [Option<bool>; 3] {
    let (handle, jwt) = (token.clone().handle().await.ok(), token.clone().jwt().await.unwrap());
    let passes = |answer: Result<_, Refused>| match answer {
        Ok(_) => true,
        Err(Refused::Invalid(_)) => false,
        Err(other) => panic!("{other}"),
    };
    let by_handle = match &handle {
        Some(handle) => Some(passes(test.bearer().verify(handle, None).await)),
        None => None,
    };
    let by_jwt = passes(test.bearer().verify(&jwt, None).await);
    let verified = passes(test.verifier().await.unwrap().verify(&jwt).await);
    [by_handle, Some(by_jwt), Some(verified)]
}

#[tokio::test]
async fn a_good_token_has_the_shape_that_was_asked_for() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    let signed_in = test.clock().now() - MINUTE;
    let token = test
        .token("alice")
        .client("shop")
        .scope("orders:read orders:write")
        .claim("tenant", "acme")
        .auth_time(signed_in)
        .acr("mfa");
    assert_eq!(accepted(&test, &token).await, [Some(true); 3]);
    for token in [token.clone().handle().await.unwrap(), token.jwt().await.unwrap()] {
        let token = test.bearer().verify(&token, None).await.unwrap();
        assert_eq!(token.subject(), Some(&alice()));
        assert_eq!(token.client().unwrap().as_str(), "shop");
        assert!(token.has_scope("orders:read") && token.has_scope("orders:write"));
        assert_eq!(token.claim("tenant"), Some(&json!("acme")));
        assert_eq!(token.token().auth_time.map(UnixTime::as_secs), Some(signed_in.as_secs()));
        assert_eq!(token.token().acr.as_deref(), Some("mfa"));
    }
    let own = test.client_token("worker").jwt().await.unwrap();
    let own = test.bearer().verify(&own, None).await.unwrap();
    assert_eq!(own.subject(), Some(&Subject::Client("worker".parse().unwrap())));
    let handle = test.client_token("worker").handle().await.unwrap();
    assert!(test.issuer().swap(&handle, None, Caller::Internal).await.unwrap().is_some());
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    let token = || test.token("alice");
    let refused = [Some(false); 3];
    assert_eq!(accepted(&test, &token().expired()).await, refused);
    assert_eq!(accepted(&test, &token().forged()).await, refused);
    assert_eq!(accepted(&test, &token().audience([REPORTS])).await, refused);
    let key = Confirmation::JwkThumbprint([7; 32]);
    assert_eq!(accepted(&test, &token().bound_to(key)).await, refused);
    assert_eq!(accepted(&test, &token().not_yet_valid()).await, [None, Some(false), Some(false)]);
    for (claim, value) in [("iss", json!("https://other.example")), ("exp", Value::Null)] {
        let token = token().raw_claim(claim, value);
        assert_eq!(accepted(&test, &token).await, [None, Some(false), Some(false)], "{claim}");
    }
    // A verifier without a replica does not see revocations.
    assert_eq!(accepted(&test, &token().revoked()).await, [Some(false), Some(false), Some(true)]);
    assert_eq!(accepted(&test, &token()).await, [Some(true); 3], "the others are as they were");
}

#[tokio::test]
async fn a_forged_token_looks_like_one_and_is_none_each_time() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    let keys = test.issuer().access_handle_keys();
    for _ in 0..500 {
        let forged = test.token("alice").forged().handle().await.unwrap();
        assert_eq!(keys.check(forged.expose()), HandleCheck::Forged);
    }
}

#[tokio::test]
async fn a_bound_token_passes_with_its_key() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    let key = Confirmation::CertificateThumbprint([7; 32]);
    let token = || test.token("alice").bound_to(key.clone());
    for token in [token().handle().await.unwrap(), token().jwt().await.unwrap()] {
        assert!(test.bearer().verify(&token, Some(&key)).await.is_ok());
        let other = Confirmation::CertificateThumbprint([8; 32]);
        assert!(test.bearer().verify(&token, Some(&other)).await.is_err());
    }
}

#[tokio::test]
async fn tokens_end_by_the_clock_of_the_test_and_by_a_revocation() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    let valid = async |token: &_| test.bearer().verify(token, None).await.is_ok();
    for days in [0, 1, 40, 400] {
        test.clock().advance(DAY * days);
        for ends in [true, false] {
            let handle = test.token("alice").handle().await.unwrap();
            let jwt = test.token("alice").jwt().await.unwrap();
            assert!(valid(&handle).await && valid(&jwt).await, "after {days} days");
            if ends {
                test.clock().advance(Duration::from_secs(601));
            } else {
                test.issuer().revoke_subject(&alice()).await.unwrap();
            }
            assert!(!valid(&handle).await && !valid(&jwt).await, "after {days} days");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let test = TestIssuer::new(ORDERS).await.unwrap();
    for token in [
        test.token(""),
        test.token("alice").client(""),
        test.token("alice").scope("\""),
        test.token("alice").claim("iss", "x"),
        test.token("alice").audience(Vec::<String>::new()),
    ] {
        for made in [token.clone().handle().await, token.jwt().await] {
            assert!(matches!(made, Err(TokenError::InvalidRequest(_))), "{made:?}");
        }
    }
}
