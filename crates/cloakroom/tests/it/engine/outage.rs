//! A store that is down: every answer is an error, and nothing is lost by it.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::jwt::KeyManagerError;
use cloakroom::{
    ApprovedRequest, BuildError, Caller, Client, ClientDirectory, DirectoryError, Grant, TokenError,
};

use super::store::ProbeStore;
use super::support::*;

/// It is an outage, which says nothing about any token.
#[track_caller]
fn outage<T: std::fmt::Debug>(answer: Result<T, TokenError>) {
    let error = answer.expect_err("an outage is no answer");
    assert_eq!(error.code(), None, "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "the cause is told: {error:?}");
}

#[tokio::test]
async fn a_store_that_is_down_answers_nothing_and_loses_nothing() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    let Session { access, refresh } = fixture.session().await;
    let (code, jwt) = (fixture.code().await, fixture.token_for(JOBS).await.access_token);
    let (own, gateway) = (fixture.client("web-app").await, fixture.client("gateway").await);
    let (client, grant) = (client_id("web-app"), grant_of(&access));
    fixture.events.take();

    fixture.store.tokens_down(true);
    for token in [&access, &jwt] {
        outage(issuer.introspect(token, Caller::Internal).await);
        outage(issuer.introspect(token, Caller::Client(&gateway)).await);
        outage(issuer.swap(&access, Some(ORDERS), Caller::Client(&gateway)).await);
    }
    outage(issuer.introspect(&refresh, Caller::Client(&own)).await);
    outage(fixture.refresh(&refresh).await);
    outage(fixture.redeem(&code).await);
    for token in [&access, &refresh, &code, &jwt] {
        outage(issuer.revoke(token, &client).await);
    }
    outage(issuer.revoke_grant(grant).await);
    outage(issuer.revoke_subject(&alice()).await);
    outage(issuer.revoke_client(&client).await);
    outage(issuer.revoke_subject_at_client(&alice(), &client).await);
    let new = || Grant::user("web-app", "alice").unwrap();
    outage(issuer.issue(new()).await);
    outage(issuer.authorize(ApprovedRequest::new(new(), CALLBACK).pkce(challenge())).await);
    outage(issuer.sessions(&alice()).await);
    outage(issuer.epoch().await);
    outage(issuer.maintain().await);
    let mut events = fixture.events.names();
    events.retain(|name| name != "Key");
    // For all that the issuer knows, these may have reached the store. The others asked it first.
    assert_eq!(events, ["Unconfirmed"; 4], "and nothing else has happened");

    // Forged tokens need no store to be told apart.
    for token in [&access, &refresh, &code] {
        let forged = tampered(token, 40);
        let answer = issuer.introspect(&forged, Caller::Internal).await;
        assert!(!answer.unwrap().is_active());
        issuer.revoke(&forged, &client).await.unwrap();
    }

    fixture.store.tokens_down(false);
    assert!(fixture.is_active(&access).await && fixture.is_active(&jwt).await);
    fixture.refresh(&refresh).await.unwrap();
    fixture.redeem(&code).await.unwrap();
    assert_eq!(fixture.sessions().await, 3);
}

#[tokio::test]
async fn a_revocation_that_failed_is_repeated_with_effect() {
    for when in [super::store::When::Before, super::store::When::After] {
        let fixture = Fixture::new().await;
        let session = fixture.session().await;
        fixture.store.fail_next("revoke", when);
        outage(fixture.issuer.revoke_subject(&alice()).await);
        fixture.issuer.revoke_subject(&alice()).await.unwrap();
        assert!(!fixture.is_active(&session.access).await);
    }
}

#[tokio::test]
async fn an_issue_that_failed_leaves_no_token_behind() {
    let fixture = Fixture::new().await;
    let grant = || Grant::user("web-app", "alice").unwrap();
    for method in ["rules", "create"] {
        fixture.store.fail_next(method, super::store::When::Before);
        outage(fixture.issuer.issue(grant()).await);
        assert_eq!(fixture.sessions().await, 0);
    }
    // Nothing was signed, so nothing is written either.
    let for_jobs = grant().audience(Audience::one(JOBS).unwrap());
    fixture.clock.advance(2 * HOUR);
    fixture.store.keys_down(true);
    outage(fixture.issuer.issue(for_jobs).await);
    assert_eq!(fixture.sessions().await, 0);
}

#[tokio::test]
async fn without_its_key_store_an_issuer_is_not_built() {
    let clock = Arc::new(ManualClock::at(START));
    let store = ProbeStore::new(clock.clone());
    store.keys_down(true);
    let error = builder(&store, &clock).build().await.unwrap_err();
    assert!(matches!(error, BuildError::Keys(KeyManagerError::Store(_))), "{error:?}");
    store.keys_down(false);
    builder(&store, &clock).build().await.unwrap();
}

#[tokio::test]
async fn without_its_key_store_an_issuer_signs_for_an_hour_and_no_longer() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let for_jobs = Session::of(fixture.token_for(JOBS).await);
    fixture.store.keys_down(true);
    let swap = async |token| fixture.issuer.swap(token, Some(ORDERS), Caller::Internal).await;
    // The ring is an hour old, and may be used.
    fixture.clock.advance(HOUR);
    outage(fixture.issuer.jwks().await);
    let jwt = fixture.token_for(JOBS).await.access_token;
    assert!(fixture.is_active(&jwt).await);
    let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    assert!(swap(&next.access).await.unwrap().is_some());

    fixture.clock.advance(secs(1));
    outage(fixture.refresh(&for_jobs.refresh).await);
    outage(swap(&next.access).await);
    outage(fixture.issuer.introspect(&jwt, Caller::Internal).await);
    // Handles need no signature.
    assert!(fixture.is_active(&next.access).await);
    fixture.session().await;

    fixture.store.keys_down(false);
    fixture.clock.advance(secs(1));
    assert!(fixture.is_active(&jwt).await);
    assert!(swap(&next.access).await.unwrap().is_some());
    // What could not be signed was not spent.
    fixture.clock.advance(HOUR);
    fixture.refresh(&for_jobs.refresh).await.unwrap();
}

#[tokio::test]
async fn maintenance_does_the_one_thing_when_the_other_fails() {
    let fixture = Fixture::new().await;
    fixture.code().await;
    fixture.clock.advance(DAY);
    fixture.store.keys_down(true);
    fixture.store.calls();
    outage(fixture.issuer.maintain().await);
    assert_eq!(fixture.store.calls(), ["maintain"], "rows are deleted all the same");
    fixture.store.keys_down(false);

    fixture.clock.advance(40 * DAY);
    fixture.store.tokens_down(true);
    fixture.store.seen();
    outage(fixture.issuer.maintain().await);
    let keys = fixture.store.seen();
    assert!(keys.iter().any(|call| call.method == "keys.insert"), "keys rotate all the same");
    fixture.store.tokens_down(false);
    fixture.issuer.maintain().await.unwrap();
}

/// A directory that cannot be asked.
#[derive(Debug)]
struct NoDirectory;

#[async_trait]
impl ClientDirectory for NoDirectory {
    async fn client(&self, _: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Err(DirectoryError::new("the directory is down"))
    }
}

#[tokio::test]
async fn a_directory_that_is_down_is_no_unknown_client() {
    let fixture = Fixture::new().await;
    let (Session { access, refresh }, code) = (fixture.session().await, fixture.code().await);
    let down = builder(&fixture.store, &fixture.clock).clients(Arc::new(NoDirectory));
    let down = down.build().await.unwrap();
    outage(down.refresh(refreshing(&refresh)).await);
    outage(down.redeem(redemption(&code)).await);
    outage(down.issue(Grant::user("web-app", "alice").unwrap()).await);
    outage(down.swap(&access, Some(ORDERS), Caller::Internal).await);
    assert!(down.introspect(&access, Caller::Internal).await.unwrap().is_active());
    fixture.redeem(&code).await.unwrap();
    fixture.refresh(&refresh).await.unwrap();
}

#[tokio::test]
async fn without_random_bytes_nothing_is_issued_and_nothing_is_spent() {
    use rand_chacha::rand_core::{TryCryptoRng, TryRng};
    struct Broken;
    impl TryRng for Broken {
        type Error = std::io::Error;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Err(std::io::Error::other("broken"))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Err(std::io::Error::other("broken"))
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            Err(std::io::Error::other("broken"))
        }
    }
    impl TryCryptoRng for Broken {}
    let fixture = Fixture::new().await;
    let (session, code) = (fixture.session().await, fixture.code().await);
    let broken = builder(&fixture.store, &fixture.clock).random(Random::from_rng(Broken));
    let broken = broken.build().await.unwrap();
    outage(broken.issue(Grant::user("web-app", "alice").unwrap()).await);
    outage(broken.refresh(refreshing(&session.refresh)).await);
    outage(broken.redeem(redemption(&code)).await);
    outage(broken.swap(&session.access, Some(ORDERS), Caller::Internal).await);
    fixture.redeem(&code).await.unwrap();
    fixture.refresh(&session.refresh).await.unwrap();
}
