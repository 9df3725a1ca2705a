//! What is remembered dies when it is revoked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::revocation::Target;
use cloakroom_core::{Subject, TokenDigest, TokenKind};
use cloakroom_jwt::handle_hash;
use cloakroom_resource::{BearerLayer, Freshness, PhantomLayer, RevocationReplica};
use serde_json::json;

use crate::cache_support::{Authority, GRANT, Guard, Log, clock, facts, secs, settle, with};
use crate::support::{AUDIENCE, ISSUER, Key, claims_with, manual_clock};

fn phantom(authority: &Authority, replica: RevocationReplica) -> PhantomLayer {
    PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .replica(replica)
}

fn bearer(authority: &Authority, replica: RevocationReplica) -> BearerLayer {
    BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .replica(replica)
}

/// Every kind of revocation, each of which names the token `mine` and not the token `other`.
fn revocations(digest: TokenDigest, jti: &str, kid: &str) -> Vec<(Target, Option<u64>)> {
    let (alice, app) = (Subject::user("alice").unwrap(), "web-app".parse().unwrap());
    vec![
        (Target::Token { grant: GRANT.parse().unwrap(), digest }, None),
        (Target::Jti(jti.parse().unwrap()), None),
        (Target::Grant(GRANT.parse().unwrap()), None),
        (Target::Subject(alice.clone()), Some(1000)),
        (Target::Client("web-app".parse().unwrap()), Some(1000)),
        (Target::SubjectAtClient(alice, app), Some(1000)),
        (Target::Key(kid.parse().unwrap()), None),
    ]
}

#[tokio::test]
async fn a_revocation_of_any_kind_ends_what_is_remembered() {
    let digest = TokenDigest::compute(TokenKind::Access, b"mine");
    let hash = URL_SAFE_NO_PAD.encode(handle_hash(&digest).as_bytes());
    let half = URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..16]);
    // Another grant of another subject and client, under another key.
    let other = json!({
        "sub": "bob", "client_id": "other-app", "grant_id": "AQAAAAAAAAAAAAAAAAAAAA",
        "jti": "other", "kid": "other",
    });
    let of = |jti: &str| json!({ "jti": jti, "handle_hash": hash, "kid": "mine" });
    let (opaque, jwt) = (of(&half), of("mine"));
    for (n, (target, bound)) in revocations(digest, "mine", "mine").into_iter().enumerate() {
        let (time, log) = (manual_clock(), Log::new(secs(0)));
        let replica = log.replica(&time).await;
        let row = format!("{target:?}");

        let authority = Authority::new();
        let (own, others) = (with(facts(""), &jwt), with(facts(""), &other));
        authority.answer_with(move |token| {
            Ok(Some(if token == "mine" { own.clone() } else { others.clone() }))
        });
        let gateway = Guard::Phantom(phantom(&authority, replica.clone()));

        let introspected = Authority::new();
        let (mut own, mut others) = (with(facts(""), &opaque), with(facts(""), &other));
        own.as_object_mut().unwrap().remove("kid");
        others.as_object_mut().unwrap().remove("kid");
        introspected.answer_with(move |token| {
            Ok(Some(if token == "mine" { own.clone() } else { others.clone() }))
        });
        let api = Guard::Bearer(bearer(&introspected, replica.clone()));

        let key = Key::new();
        let kid = key.0.kid().as_str().to_owned();
        let claims = json!({ "jti": "mine", "grant_id": GRANT, "grant_epoch": 1000 });
        let token =
            key.sign(&claims_with(&with(claims.clone(), &json!({ "handle_hash": hash })))).await;
        let spared = json!({
            "jti": "other", "grant_id": "AQAAAAAAAAAAAAAAAAAAAA", "grant_epoch": 1001,
        });
        let spared = key.sign(&claims_with(&spared)).await;
        let verifying =
            Guard::Bearer(BearerLayer::new(key.verifier(&time).cache(100)).replica(replica));

        for guard in [&gateway, &api] {
            assert_eq!((guard.ask("mine").await, guard.ask("other").await), (200, 200), "{row}");
        }
        assert_eq!((verifying.ask(&token).await, verifying.ask(&spared).await), (200, 200));

        let names_key = matches!(target, Target::Key(_));
        let names_jti = matches!(target, Target::Jti(_));
        log.revoke(target, bound).await;
        if names_key {
            log.revoke(Target::Key(kid.parse().unwrap()), None).await;
        }
        authority.revoke_all();
        introspected.revoke_all();
        assert_eq!(gateway.ask("mine").await, 401, "{row}");
        assert_eq!(gateway.ask("other").await, 200, "{row}");
        // The JWT alone is revoked: perhaps there is another one for its handle.
        let again = usize::from(names_key || names_jti);
        assert_eq!(authority.count(), 2 + again, "{row}");

        // A handle shows half of its digest as its `jti`; no key signed it.
        let reaches = !(names_key || names_jti);
        assert_eq!(api.ask("mine").await, if reaches { 401 } else { 200 }, "{row}");
        assert_eq!(api.ask("other").await, 200, "{row}");
        assert_eq!(introspected.count(), 2, "{row}");

        assert_eq!(verifying.ask(&token).await, 401, "{row}");
        assert_eq!(verifying.ask(&spared).await, if names_key { 401 } else { 200 }, "{row} {n}");
    }
}

#[tokio::test]
async fn an_answer_that_a_revocation_crosses_is_not_used() {
    let (time, log) = (manual_clock(), Log::new(secs(0)));
    let replica = log.replica(&time).await;
    let authority = Authority::new();
    let guards = [
        Guard::Phantom(phantom(&authority, replica.clone())),
        Guard::Bearer(bearer(&authority, replica.clone())),
        Guard::Bearer(bearer(&authority, replica).freshness(Freshness::every_request()).unwrap()),
    ];
    authority.close();
    let mut requests = Vec::new();
    for (n, guard) in guards.iter().enumerate() {
        let token = format!("token-{n}");
        requests.push(guard.begin(&token));
        authority.wait_for(n + 1).await;
        for _ in 0..10 {
            requests.push(guard.begin(&token));
        }
    }
    settle().await;
    log.revoke(Target::Grant(GRANT.parse().unwrap()), None).await;
    authority.open();
    for request in requests {
        assert_eq!(request.await.unwrap(), 401);
    }
    // The rules are exact: nobody is asked again, and nothing was kept. (The ten under
    // `every_request` could not join the first of them, and shared a question of their own.)
    assert_eq!(authority.count(), 4);
    for (n, guard) in guards.iter().enumerate() {
        assert_eq!(guard.ask(&format!("token-{n}")).await, 401, "also where the server is late");
        assert_eq!(authority.count(), 5 + n);
    }
}

#[tokio::test]
async fn a_handle_outlives_the_key_that_signed_its_jwt() {
    let (time, log) = (manual_clock(), Log::new(secs(0)));
    let replica = log.replica(&time).await;
    let authority = Authority::new();
    let signed_by = |authority: &Authority, kid: &str| {
        let answer = with(facts("token"), &json!({ "kid": kid }));
        authority.answer_with(move |_| Ok(Some(answer.clone())));
    };
    let guard = Guard::Phantom(phantom(&authority, replica));
    signed_by(&authority, "first");
    assert_eq!(guard.ask("token").await, 200);

    // In memory: it is swapped anew.
    log.revoke(Target::Key("first".parse().unwrap()), None).await;
    signed_by(&authority, "second");
    assert_eq!(guard.ask("token").await, 200);
    assert_eq!(guard.ask("token").await, 200);
    assert_eq!(authority.count(), 2);

    // On its way: one more question, sent after the revocation was known.
    authority.close();
    let crossed: Vec<_> = (0..10).map(|_| guard.begin("other")).collect();
    authority.wait_for(3).await;
    settle().await;
    log.revoke(Target::Key("second".parse().unwrap()), None).await;
    signed_by(&authority, "third");
    authority.open();
    for request in crossed {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(authority.count(), 4);
    assert_eq!((guard.ask("other").await, authority.count()), (200, 4), "the new one is kept");

    // A server that goes on signing with a key of which it said that it is revoked: its fault,
    // not the client's.
    log.revoke(Target::Key("third".parse().unwrap()), None).await;
    assert_eq!(guard.ask("other").await, 503);
    assert_eq!(authority.count(), 6, "asked twice, and no more");
    // The handle itself is another matter.
    log.revoke(Target::Grant(GRANT.parse().unwrap()), None).await;
    assert_eq!(guard.ask("other").await, 401);
    assert_eq!(authority.count(), 7);
}

#[tokio::test]
async fn a_jwt_that_is_introspected_dies_with_its_key() {
    let (key, time, log) = (Key::new(), manual_clock(), Log::new(secs(0)));
    let authority = Authority::new();
    let guard = Guard::Bearer(bearer(&authority, log.replica(&time).await));
    let token =
        key.sign(&claims_with(&json!({ "handle_hash": URL_SAFE_NO_PAD.encode([9; 32]) }))).await;
    let other = Key::new().token().await;
    assert_eq!((guard.ask(&token).await, guard.ask(&other).await), (200, 200));
    log.revoke(Target::Key(key.0.kid().clone()), None).await;
    // The answer says nothing of the key; the token does.
    assert_eq!((guard.ask(&token).await, guard.ask(&other).await), (401, 200));
    assert_eq!(authority.count(), 2);
}

#[tokio::test]
async fn a_client_that_revokes_in_masses_has_its_tokens_introspected() {
    let (time, log) = (manual_clock(), Log::new(secs(0)));
    log.beat_without_waiting(&time);
    let replica = RevocationReplica::builder(log.clone())
        .clock(clock(&time))
        .rules(10)
        .follow()
        .await
        .unwrap();
    let authority = Authority::new();
    let layer = phantom(&authority, replica)
        .clock(clock(&time))
        .freshness(Freshness::within(secs(10)))
        .unwrap();
    let guard = Guard::Phantom(layer);
    assert_eq!(guard.ask("token").await, 200);
    time.advance(secs(11));
    log.beat(&time).await;
    assert_eq!((guard.ask("token").await, authority.count()), (200, 1));
    for n in 0..20_u8 {
        let target = Target::Jti(format!("flood-{n}").parse().unwrap());
        log.write_revocation(target, None, Some("web-app"));
    }
    log.taken().await;
    assert_eq!((guard.ask("token").await, authority.count()), (200, 2), "not denied, but asked");
    assert_eq!((guard.ask("token").await, authority.count()), (200, 2), "its age is good for 10 s");
    authority.revoke_all();
    time.advance(secs(11));
    log.beat(&time).await;
    assert_eq!((guard.ask("token").await, authority.count()), (401, 3));
}
