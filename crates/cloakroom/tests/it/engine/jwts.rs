//! Access tokens that are JWTs (RFC 9068): how the issuer judges its own, and with which keys.

use cloakroom::core::format::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::jwt::{JwkSet, KeyEvent, KeyManagerError, KeySet, SigningKey, Verifier};
use cloakroom::{Caller, Event, Grant, Issuer, IssuerBuilder, TokenError};
use serde_json::json;

use super::support::*;

impl Fixture {
    /// A JWT for a user, whose grant is stored, or for a client.
    async fn jwt(&self, grant: Grant) -> TokenSecret {
        let grant = grant.audience(Audience::one(JOBS).unwrap());
        self.issuer.issue(grant).await.unwrap().access_token
    }
}

fn for_alice() -> Grant {
    Grant::user("web-app", "alice").unwrap()
}

fn for_itself() -> Grant {
    Grant::client("web-app").unwrap()
}

async fn stateful_and_stateless() -> [(Fixture, TokenSecret); 2] {
    let stateful = Fixture::new().await;
    let stateless = Fixture::with(IssuerBuilder::stateless_jwt).await;
    let tokens = [stateful.jwt(for_itself()).await, stateless.jwt(for_itself()).await];
    let [one, two] = tokens;
    [(stateful, one), (stateless, two)]
}

#[tokio::test]
async fn a_jwt_is_active_to_whom_it_is_meant_for() {
    for (fixture, jwt) in stateful_and_stateless().await {
        for (caller, sees) in [
            ("jobs-api", true),
            ("gateway", true),
            ("web-app", true),
            ("orders-api", false),
            ("other-app", false),
        ] {
            let caller = fixture.client(caller).await;
            let answer = fixture.issuer.introspect(&jwt, Caller::Client(&caller)).await;
            assert_eq!(answer.unwrap().is_active(), sees, "{}", caller.id());
        }
        let answer = fixture.issuer.introspect(&jwt, Caller::Internal).await.unwrap();
        let active = answer.active().unwrap();
        assert_eq!(active.jti.as_ref().unwrap().as_str(), claims(&jwt)["jti"]);
        assert_eq!(active.subject, Some(Subject::client("web-app").unwrap()));
    }
}

#[tokio::test]
async fn a_jwt_with_anything_changed_is_inactive() {
    for (fixture, jwt) in stateful_and_stateless().await {
        let text = jwt.expose();
        let signature = text.rfind('.').unwrap() + 1;
        let payload = text.find('.').unwrap() + 1;
        for at in [0, payload, payload + 20, signature, signature + 40, text.len() - 1] {
            assert!(!fixture.is_active(&tampered(&jwt, at)).await, "{at}");
        }
        let unsigned = TokenSecret::new(&text[..signature]);
        assert!(!fixture.is_active(&unsigned).await);
        // The same issuer in name, with keys of its own.
        let stranger = Fixture::new().await;
        assert!(!stranger.is_active(&jwt).await);
    }
}

#[tokio::test]
async fn a_jwt_ends_at_its_expiry_without_leeway_here() {
    for (fixture, jwt) in stateful_and_stateless().await {
        let end = UnixTime::from_secs(claims(&jwt)["exp"].as_u64().unwrap());
        fixture.clock.advance(end.since(START) - std::time::Duration::from_millis(1));
        assert!(fixture.is_active(&jwt).await);
        fixture.clock.advance(std::time::Duration::from_millis(1));
        assert!(!fixture.is_active(&jwt).await);
    }
}

#[tokio::test]
async fn whatever_names_a_jwt_revokes_it() {
    type How = fn(Issuer, TokenSecret) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let ways: [(&str, How); 5] = [
        ("itself", |issuer, jwt| {
            Box::pin(async move { issuer.revoke(&jwt, &client_id("web-app")).await.unwrap() })
        }),
        ("its grant", |issuer, jwt| {
            let grant = claims(&jwt)["grant_id"].as_str().unwrap().parse().unwrap();
            Box::pin(async move { issuer.revoke_grant(grant).await.unwrap() })
        }),
        ("its subject", |issuer, _| {
            let subject = Subject::client("web-app").unwrap();
            Box::pin(async move { issuer.revoke_subject(&subject).await.unwrap() })
        }),
        ("its client", |issuer, _| {
            Box::pin(async move { issuer.revoke_client(&client_id("web-app")).await.unwrap() })
        }),
        ("both", |issuer, _| {
            let (subject, client) = (Subject::client("web-app").unwrap(), client_id("web-app"));
            let pair = async move { issuer.revoke_subject_at_client(&subject, &client).await };
            Box::pin(async move { pair.await.unwrap() })
        }),
    ];
    for (what, revoke) in ways {
        for (fixture, jwt) in stateful_and_stateless().await {
            assert!(fixture.is_active(&jwt).await);
            revoke(fixture.issuer.clone(), jwt.clone()).await;
            assert!(!fixture.is_active(&jwt).await, "{what}");
            let next = fixture.jwt(for_itself()).await;
            assert!(fixture.is_active(&next).await, "{what}: the next one lives");
        }
    }
}

#[tokio::test]
async fn a_stateless_jwt_with_a_refresh_token_has_a_grant_all_the_same() {
    let fixture = Fixture::with(IssuerBuilder::stateless_jwt).await;
    let session = Session::of(fixture.token_for(JOBS).await);
    assert_eq!(fixture.sessions().await, 1);
    fixture.issuer.revoke(&session.refresh, &client_id("web-app")).await.unwrap();
    assert!(!fixture.is_active(&session.access).await);
}

#[tokio::test]
async fn a_stateful_jwt_whose_grant_the_store_has_lost_is_inactive() {
    let fixture = Fixture::new().await;
    let (jwt, other) = (fixture.jwt(for_itself()).await, fixture.session().await);
    let record = fixture.store.grant(grant_of(&other.access)).await;
    fixture.store.fail_over(record).await;
    assert!(!fixture.is_active(&jwt).await);
}

#[tokio::test]
async fn what_headers_cannot_carry_is_refused_before_anything_is_written() {
    let fixture = Fixture::new().await;
    let details = |bytes: usize| json!([{"type": "x", "note": "n".repeat(bytes)}]);
    fixture.jwt(for_alice().authorization_details(details(5_000))).await;
    fixture.store.calls();
    let deep = (0..17).fold(json!(1), |inner, _| json!([inner]));
    for details in [details(20_000), deep] {
        let refused = fixture.issuer.issue(for_alice().authorization_details(details)).await;
        assert!(matches!(refused, Err(TokenError::InvalidRequest(_))), "{refused:?}");
        assert_eq!(fixture.store.calls(), [""; 0]);
    }
    for bytes in [7_000, 8_000] {
        let grant = for_alice().authorization_details(details(bytes));
        let grant = grant.audience(Audience::one(JOBS).unwrap());
        let refused = fixture.issuer.issue(grant).await.unwrap_err();
        let TokenError::Format(FormatError::TooLarge { size, limit: 8192 }) = refused else {
            panic!("{refused:?}");
        };
        assert!(size > 8192 && refused.to_string().contains("claims"));
        assert_eq!(fixture.store.calls(), ["rules"]);
    }
}

#[tokio::test]
async fn tokens_of_the_old_and_of_the_new_key_are_good_while_keys_rotate() {
    let fixture = Fixture::new().await;
    let kid = async || fixture.issuer.keys().signer().await.unwrap().kid().clone();
    let (first, old) = (kid().await, fixture.jwt(for_itself()).await);
    let known = fixture.issuer.jwks().await.unwrap();
    fixture.issuer.rotate_keys().await.unwrap();
    assert_ne!(kid().await, first);
    let new = fixture.jwt(for_itself()).await;
    assert!(fixture.is_active(&old).await && fixture.is_active(&new).await);
    // A verifier that has not asked again since before the rotation knows both.
    let keys = KeySet::prepare(&JwkSet::from_json(known.json.as_bytes()).unwrap());
    let verifier = Verifier::new(ISSUER, JOBS).clock(fixture.clock.clone());
    for jwt in [&old, &new] {
        verifier.verify(&keys, jwt.expose()).unwrap();
    }
    assert!(fixture.events.names().contains(&"Key".to_owned()));
}

#[tokio::test]
async fn keys_rotate_by_themselves_and_no_verifier_is_surprised() {
    let fixture = Fixture::new().await;
    let mut kids = std::collections::BTreeSet::new();
    for _ in 0..100 {
        fixture.issuer.maintain().await.unwrap();
        let published = fixture.issuer.jwks().await.unwrap();
        let keys = KeySet::prepare(&JwkSet::from_json(published.json.as_bytes()).unwrap());
        // The set is served for an hour, and tokens are made all the while.
        fixture.clock.advance(HOUR);
        let verifier = Verifier::new(ISSUER, JOBS).clock(fixture.clock.clone());
        let jwt = fixture.jwt(for_itself()).await;
        kids.insert(verifier.verify(&keys, jwt.expose()).unwrap().kid);
        fixture.clock.advance(23 * HOUR);
    }
    assert_eq!(kids.len(), 4, "one every 30 days");
}

#[tokio::test]
async fn what_a_compromised_key_signed_is_denied_and_its_successor_signs() {
    let fixture = Fixture::new().await;
    let (jwt, session) = (fixture.jwt(for_itself()).await, fixture.session().await);
    let kid = fixture.issuer.keys().signer().await.unwrap().kid().clone();
    // A second node, which has not loaded the ring since.
    let other = fixture.node(&fixture.clock).await;
    fixture.events.take();
    fixture.issuer.compromise_key(&kid).await.unwrap();
    assert!(fixture.events.take().iter().any(
        |event| matches!(event, Event::Key(KeyEvent::Compromised { kid: named }) if *named == kid)
    ));
    assert!(!fixture.is_active(&jwt).await);
    assert!(!fixture.issuer.jwks().await.unwrap().json.contains(kid.as_str()));
    let by_rule = other.introspect(&jwt, Caller::Internal).await.unwrap();
    assert!(!by_rule.is_active(), "the rule reaches every node");
    let late = other.issue(for_itself().audience(Audience::one(JOBS).unwrap()));
    let late = late.await.unwrap().access_token;
    assert!(!fixture.is_active(&late).await, "also what that node goes on signing");

    let next = fixture.jwt(for_itself()).await;
    assert!(fixture.is_active(&next).await);
    // Handles have no signature; the one that was swapped before is a matter of its JWT alone.
    assert!(fixture.is_active(&session.access).await);
    let swapped = fixture.issuer.swap(&session.access, Some(ORDERS), Caller::Internal);
    assert!(swapped.await.unwrap().is_some());
    fixture.issuer.compromise_key(&kid).await.unwrap();
    let unknown = fixture.issuer.compromise_key(&Kid::new("unknown").unwrap()).await;
    assert!(matches!(unknown, Err(TokenError::Keys(_))));
}

#[tokio::test]
async fn a_key_that_another_node_published_is_loaded_when_it_is_met() {
    let fixture = Fixture::new().await;
    let idle = fixture.node(&fixture.clock).await;
    // Long after the idle node last looked, the other one signs with keys it has never seen.
    fixture.clock.advance(40 * DAY);
    fixture.issuer.maintain().await.unwrap();
    fixture.clock.advance(2 * DAY);
    let jwt = fixture.jwt(for_itself()).await;
    assert!(idle.introspect(&jwt, Caller::Internal).await.unwrap().is_active());
    // While the keys cannot be had, it cannot tell: that is an outage, and no bad token.
    let idle = fixture.node(&fixture.clock).await;
    fixture.clock.advance(2 * HOUR);
    fixture.store.keys_down(true);
    let unknown = idle.introspect(&jwt, Caller::Internal).await;
    assert!(matches!(&unknown, Err(error) if error.code().is_none()), "{unknown:?}");
}

#[tokio::test]
async fn a_user_who_looks_like_a_client_is_marked_apart() {
    let fixture = Fixture::new().await;
    let user = fixture.jwt(Grant::user("web-app", "web-app").unwrap()).await;
    let client = fixture.jwt(for_itself()).await;
    assert_eq!(claims(&user)["sub"], claims(&client)["sub"]);
    assert_eq!(claims(&user)["sub_kind"], "user");
    assert_eq!(claims(&client)["sub_kind"], "client");
    fixture.issuer.revoke_subject(&Subject::user("web-app").unwrap()).await.unwrap();
    assert!(!fixture.is_active(&user).await && fixture.is_active(&client).await);
}

#[tokio::test]
async fn a_key_of_a_former_server_is_published_and_never_comes_back_once_it_is_compromised() {
    // RFC 7515 appendix A.3.1.
    let jwk = r#"{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
    let key = || SigningKey::import_jwk(cloakroom::jwt::Algorithm::Es256, jwk).unwrap();
    let kid = key().kid().clone();
    let fixture = Fixture::new().await;
    let imported = fixture.issuer.import_key(key()).await.unwrap();
    assert_eq!(imported, KeyEvent::Published { kid: kid.clone() });
    assert!(fixture.issuer.jwks().await.unwrap().json.contains(kid.as_str()));
    let refused = async |issuer: &Issuer| {
        let again = issuer.import_key(key()).await;
        let known = matches!(
            &again,
            Err(TokenError::Keys(KeyManagerError::KnownKid(known))) if *known == kid
        );
        assert!(known, "{again:?}");
    };
    refused(&fixture.issuer).await;
    fixture.issuer.compromise_key(&kid).await.unwrap();
    refused(&fixture.issuer).await;
    refused(&fixture.node(&fixture.clock).await).await;
}
