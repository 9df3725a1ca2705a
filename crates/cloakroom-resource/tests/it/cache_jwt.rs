//! JWTs whose signature was verified once.

use std::sync::Arc;

use cloakroom_core::time::Clock;
use cloakroom_jwt::{Algorithm, JwkSet, SigningKey};
use cloakroom_resource::{Confirmation, ReqwestClient, Verifier};
use serde_json::{Value, json};

use crate::cache_support::secs;
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, START, claims_with, is_invalid, is_outage, key_set, manual_clock,
    secret,
};

/// How many JWTs a verifier remembers.
fn remembered(verifier: &Verifier) -> usize {
    let debug = format!("{verifier:?}");
    let rest = debug.split("JwtCache(").nth(1).unwrap();
    rest.split(')').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_was_accepted_is_remembered_and_what_was_refused_is_not() {
    let (key, time) = (Key::new(), manual_clock());
    let verifier = key.verifier(&time).cache(100);
    let token = key.token().await;
    for _ in 0..3 {
        assert!(verifier.verify(&secret(&token)).await.is_ok());
        assert_eq!(remembered(&verifier), 1);
    }
    let stranger = Key::new().token().await;
    let (input, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = stranger.rsplit_once('.').unwrap();
    for bad in [stranger.clone(), format!("{input}.{signature}"), format!("{token}A")] {
        for _ in 0..2 {
            assert!(is_invalid(&verifier.verify(&secret(&bad)).await));
        }
        assert_eq!(remembered(&verifier), 1);
    }
    let first = verifier.verify(&secret(&token)).await.unwrap();
    let clone = verifier.clone();
    assert_eq!(clone.verify(&secret(&token)).await.unwrap(), first, "clones share it");
    assert_eq!(first.key_id(), Some(key.0.kid()));
}

#[tokio::test]
async fn times_are_looked_at_each_time() {
    let (key, time) = (Key::new(), manual_clock());
    let now = START.as_secs();
    let verifier = key.verifier(&time).cache(100).leeway(secs(10));
    let expires = key.sign(&claims_with(&json!({ "exp": now + 5 }))).await;
    let starts = key.sign(&claims_with(&json!({ "nbf": now + 10 }))).await;
    assert!(
        verifier.verify(&secret(&expires)).await.is_ok()
            && verifier.verify(&secret(&starts)).await.is_ok()
    );
    time.set(START - secs(1));
    assert!(is_invalid(&verifier.verify(&secret(&starts)).await), "a clock that is set back");
    time.set(START + secs(14));
    assert!(
        verifier.verify(&secret(&expires)).await.is_ok()
            && verifier.verify(&secret(&starts)).await.is_ok()
    );
    assert_eq!(remembered(&verifier), 2);
    time.set(START + secs(15));
    assert!(is_invalid(&verifier.verify(&secret(&expires)).await));
    assert!(verifier.verify(&secret(&starts)).await.is_ok());
    assert_eq!(remembered(&verifier), 1, "and it is gone");
}

#[tokio::test]
async fn a_proof_is_asked_for_each_time() {
    let (key, time) = (Key::new(), manual_clock());
    let verifier = key.verifier(&time).cache(100);
    let bound = json!({ "cnf": { "jkt": "A".repeat(43) } });
    let token = key.sign(&claims_with(&bound)).await;
    let (own, other) = (Confirmation::JwkThumbprint([0; 32]), Confirmation::JwkThumbprint([1; 32]));
    for (proved, good) in
        [(Some(&own), true), (None, false), (Some(&other), false), (Some(&own), true)]
    {
        assert_eq!(verifier.verify_with(&secret(&token), proved).await.is_ok(), good);
    }
    // A gateway's JWT is trusted by who says so, and by nobody who shares the memory.
    let swapped = json!({ "cnf": { "jkt": "A".repeat(43) }, "handle_hash": "A".repeat(43) });
    let token = key.sign(&claims_with(&swapped)).await;
    let inside = verifier.clone().trust_gateway_proofs();
    assert!(inside.verify(&secret(&token)).await.is_ok());
    assert!(is_invalid(&verifier.verify(&secret(&token)).await));
}

async fn fetching(peer: &Peer, time: &Arc<cloakroom_core::time::ManualClock>) -> Verifier {
    let client = ReqwestClient::new().unwrap();
    Verifier::fetching(ISSUER, AUDIENCE, &peer.url, client)
        .unwrap()
        .clock(Arc::clone(time) as Arc<dyn Clock>)
        .cache(100)
}

#[tokio::test]
async fn a_key_that_left_the_set_accepts_nothing_more() {
    let (old, new, time) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old, &new])).await;
    let verifier = fetching(&peer, &time).await;
    let (first, second) = (old.token().await, new.token().await);
    assert!(
        verifier.verify(&secret(&first)).await.is_ok()
            && verifier.verify(&secret(&second)).await.is_ok()
    );
    peer.publish(key_set(&[&new]));
    assert!(verifier.verify(&secret(&first)).await.is_ok(), "the set still counts");
    time.advance(secs(3600));
    assert!(verifier.verify(&secret(&second)).await.is_ok());
    assert!(is_invalid(&verifier.verify(&secret(&first)).await));
    assert!(verifier.verify(&secret(&second)).await.is_ok());
}

#[tokio::test]
async fn a_set_that_is_fetched_ahead_of_time_counts_at_once() {
    let (old, new, time) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = fetching(&peer, &time).await;
    let (first, second) = (old.token().await, new.token().await);
    assert!(verifier.verify(&secret(&first)).await.is_ok());
    peer.publish(key_set(&[&new]));
    assert!(verifier.verify(&secret(&first)).await.is_ok(), "the set still counts");
    // A key that is not in the set has it fetched anew.
    assert!(verifier.verify(&secret(&second)).await.is_ok());
    assert!(is_invalid(&verifier.verify(&secret(&first)).await));
}

/// The JWK Set of a key under another name.
fn named(key: &SigningKey, kid: &str) -> String {
    let mut jwk: Value = serde_json::to_value(key.public_jwk()).unwrap();
    jwk["kid"] = json!(kid);
    json!({ "keys": [jwk] }).to_string()
}

#[tokio::test]
async fn a_key_that_changed_under_its_name_is_another_key() {
    let (old, new, time) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = fetching(&peer, &time).await;
    let token = old.token().await;
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    peer.publish(named(&new.0, old.0.kid().as_str()));
    time.advance(secs(3600));
    // The first one fetches the set; the second one finds it, and the token in memory.
    for _ in 0..2 {
        assert!(is_invalid(&verifier.verify(&secret(&token)).await));
    }
}

#[tokio::test]
async fn the_same_set_again_changes_nothing_and_no_set_is_an_outage() {
    let (key, time) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let verifier = fetching(&peer, &time).await.stale_if_error(secs(0));
    let token = key.token().await;
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    time.advance(secs(3600));
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    assert_eq!(peer.count(), 2);
    time.advance(secs(3600));
    peer.fail();
    assert!(
        is_outage(&verifier.verify(&secret(&token)).await),
        "what is remembered needs fresh keys, too"
    );
}

#[tokio::test]
async fn memory_is_bounded() {
    let time = manual_clock();
    // The cheapest to make.
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = JwkSet::new(vec![key.public_jwk().clone()]);
    let verifier = Verifier::with_keys(ISSUER, AUDIENCE, &keys)
        .clock(Arc::clone(&time) as Arc<dyn Clock>)
        .cache(64);
    let key = Key(key);
    for n in 0..300 {
        let token = key.sign(&claims_with(&json!({ "jti": n.to_string() }))).await;
        assert!(verifier.verify(&secret(&token)).await.is_ok());
    }
    assert!(remembered(&verifier) <= 64, "{}", remembered(&verifier));
    let none = verifier.cache(0);
    let token = key.token().await;
    assert!(none.verify(&secret(&token)).await.is_ok());
    assert!(!format!("{none:?}").contains("JwtCache"));
}
