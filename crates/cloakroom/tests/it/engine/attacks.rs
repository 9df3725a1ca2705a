//! What a thief, a greedy client or a careless registration tries.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::{
    Client, ClientBuilder, ClientDirectory, DirectoryError, Format, Grant, GrantRefusal, GrantType,
    RefreshRequest, TokenError,
};

use super::support::*;

/// One client, whose registration changes.
#[derive(Debug)]
pub(crate) struct Changing(Mutex<Arc<Client>>);

impl Changing {
    pub(crate) fn change_to(&self, client: Client) {
        *self.0.lock().unwrap() = Arc::new(client);
    }
}

#[async_trait]
impl ClientDirectory for Changing {
    async fn client(&self, _: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Ok(Some(Arc::clone(&self.0.lock().unwrap())))
    }
}

pub(crate) fn app(client: ClientBuilder, scope: &str) -> Client {
    let client = client.grant_types([GrantType::RefreshToken]).scope(scope);
    client.audience(ORDERS, Format::Opaque).build().unwrap()
}

pub(crate) fn confidential() -> ClientBuilder {
    Client::confidential("web-app", CLIENT_SECRET)
}

pub(crate) async fn changing(client: Client) -> (Fixture, Arc<Changing>) {
    let directory = Arc::new(Changing(Mutex::new(Arc::new(client))));
    let clients: Arc<dyn ClientDirectory> = directory.clone();
    (Fixture::with(|builder| builder.clients(clients)).await, directory)
}

#[tokio::test]
async fn a_thief_who_keeps_rotating_does_not_keep_the_window_open() {
    let fixture = Fixture::new().await;
    let stolen = fixture.session().await.refresh;
    let mut thief = fixture.refresh(&stolen).await.unwrap().refresh_token.unwrap();
    // Always within the window of the last rotation.
    while fixture.clock.now() < START + 2 * WINDOW {
        fixture.clock.advance(WINDOW / 2);
        thief = fixture.refresh(&thief).await.unwrap().refresh_token.unwrap();
    }
    assert_eq!(refusal(fixture.refresh(&stolen).await), GrantRefusal::Reused);
    assert_eq!(refusal(fixture.refresh(&thief).await), GrantRefusal::Dead);
}

#[tokio::test]
async fn rotating_faster_than_anybody_waits_is_reuse_as_well() {
    let fixture = Fixture::new().await;
    let stolen = fixture.session().await.refresh;
    let mut thief = stolen.clone();
    for _ in 0..=SealedSuccessor::MAX_EARLIER {
        thief = fixture.refresh(&thief).await.unwrap().refresh_token.unwrap();
    }
    // Spent this very moment, and still remembered.
    let caught_up = fixture.refresh(&stolen).await.unwrap().refresh_token.unwrap();
    assert_eq!(caught_up.expose(), thief.expose());
    thief = fixture.refresh(&thief).await.unwrap().refresh_token.unwrap();
    assert_eq!(refusal(fixture.refresh(&stolen).await), GrantRefusal::Reused);
    assert_eq!(refusal(fixture.refresh(&thief).await), GrantRefusal::Dead);
}

#[tokio::test]
async fn a_revocation_is_acknowledged_only_once_every_grant_shows_it() {
    let fixture = Fixture::new().await;
    fixture.store.sweep_later();
    let session = fixture.session().await;
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    assert!(!fixture.is_active(&session.access).await);
    assert_eq!(refusal(fixture.refresh(&session.refresh).await), GrantRefusal::Dead);
}

#[tokio::test]
async fn whoever_repeats_a_revocation_does_not_fill_the_log() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let jwt = fixture.token_for(JOBS).await.access_token;
    for token in [&session.access, &jwt, &session.refresh, &session.access] {
        for _ in 0..3 {
            fixture.issuer.revoke(token, &client_id("web-app")).await.unwrap();
        }
    }
    let batch = fixture.store.memory().revocations(Cursor::start(), 100).await.unwrap();
    let RevocationBatch::Entries { entries, .. } = batch else { panic!("a gap at the start") };
    assert_eq!(entries.len(), 3, "{entries:?}");
}

#[tokio::test]
async fn scope_that_a_client_may_no_longer_have_is_no_longer_handed_out() {
    let (fixture, directory) = changing(app(confidential(), "orders:read orders:write")).await;
    let refresh = fixture.session().await.refresh;
    directory.change_to(app(confidential(), "orders:read"));
    let asked = refreshing(&refresh).scope(Scope::parse("orders:write").unwrap());
    assert!(matches!(fixture.issuer.refresh(asked).await, Err(TokenError::InvalidScope(_))));
    let next = fixture.refresh(&refresh).await.unwrap();
    assert_eq!(next.scope.as_str(), "orders:read");
}

#[tokio::test]
async fn a_client_that_is_told_to_rotate_does() {
    let rotating = app(confidential(), "orders:read");
    let shared = app(confidential().without_rotation(), "orders:read");
    let (fixture, directory) = changing(shared.clone()).await;
    let refresh = fixture.session().await.refresh;
    let repeated = fixture.refresh(&refresh).await.unwrap().refresh_token.unwrap();
    assert_eq!(repeated.expose(), refresh.expose());
    directory.change_to(rotating);
    let next = fixture.refresh(&refresh).await.unwrap().refresh_token.unwrap();
    assert_ne!(next.expose(), refresh.expose());
    // And goes on, once its chain has begun to.
    directory.change_to(shared);
    let last = fixture.refresh(&next).await.unwrap().refresh_token.unwrap();
    assert_ne!(last.expose(), next.expose());
}

#[tokio::test]
async fn a_stateless_token_is_barred_as_a_stored_one_is() {
    let fixture = Fixture::with(cloakroom::IssuerBuilder::stateless_jwt).await;
    let begun = fixture.issuer.epoch().await.unwrap();
    let client = Subject::client("web-app").unwrap();
    fixture.issuer.revoke_subject(&client).await.unwrap();
    fixture.events.take();
    let grant = || {
        let grant = Grant::client("web-app").unwrap();
        grant.audience(Audience::one(JOBS).unwrap())
    };
    let late = fixture.issuer.issue(grant().epoch(begun)).await;
    assert!(matches!(late, Err(TokenError::Barred)), "{late:?}");
    assert_eq!(fixture.events.names(), [""; 0]);
    fixture.issuer.issue(grant()).await.unwrap();
    assert_eq!(fixture.events.names(), ["Issued"]);
}

#[tokio::test]
async fn an_epoch_from_the_future_escapes_no_revocation() {
    let fixture = Fixture::new().await;
    let grant = Grant::user("web-app", "alice").unwrap().epoch(Epoch::new(u64::MAX));
    let token = fixture.issuer.issue(grant).await.unwrap().access_token;
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    assert!(!fixture.is_active(&token).await);
}

#[tokio::test]
async fn a_user_ends_only_sessions_of_their_own() {
    let fixture = Fixture::new().await;
    let tokens = fixture.sign_in("web-app").await;
    let mallory = Subject::user("mallory").unwrap();
    assert!(!fixture.issuer.revoke_session(&mallory, tokens.grant).await.unwrap());
    assert!(fixture.is_active(&tokens.access_token).await);
    assert!(fixture.issuer.revoke_session(&alice(), tokens.grant).await.unwrap());
    assert!(!fixture.is_active(&tokens.access_token).await);
    let unknown = GrantId::from_bytes([0; 16]);
    assert!(!fixture.issuer.revoke_session(&alice(), unknown).await.unwrap());
}

/// By somebody who can write to the database, and has a spent token of another client.
#[tokio::test]
async fn a_row_that_was_given_to_another_client_hands_out_no_successor() {
    let fixture = Fixture::new().await;
    let spent = fixture.session().await.refresh;
    fixture.refresh(&spent).await.unwrap();
    let mut record = fixture.store.grant(grant_of(&spent)).await;
    record.client = client_id("other-app");
    fixture.store.fail_over(record).await;
    let request = RefreshRequest::new(spent, client_id("other-app"));
    assert_eq!(refusal(fixture.issuer.refresh(request).await), GrantRefusal::Spent);
}
