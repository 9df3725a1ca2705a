//! What a flood of writes must not stand in the way of.

use std::task::Poll;
use std::time::Duration;

use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{CreateOutcome, Lookup, RevokeOutcome, StoreError, TokenStore as _};
use cloakroom_sqlite::SqliteStore;
use futures_util::future::join_all;
use futures_util::poll;
use rusqlite::Connection;

use crate::support::{DAY, NOW, grant, revocation};

#[tokio::test]
async fn a_flood_of_writes_refuses_no_revocation_and_no_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::builder(&path).busy_timeout(Duration::from_secs(60)).open().unwrap();
    let grant = grant(&store, "alice", "app").await;
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    // While somebody else writes, they gather.
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut flood = Vec::new();
    let refused = loop {
        let mut write = store.delete(1, 1);
        match poll!(write.as_mut()) {
            Poll::Pending => flood.push(write),
            Poll::Ready(answer) => break answer,
        }
    };
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let mut revoking = store.revoke(revocation(Target::Client(grant.client)));
    let mut beat = store.heartbeat(NOW, NOW + DAY);
    assert!(poll!(revoking.as_mut()).is_pending(), "a revocation is refused");
    assert!(poll!(beat.as_mut()).is_pending(), "a heartbeat is refused");
    stranger.execute_batch("COMMIT").unwrap();
    assert!(join_all(flood).await.iter().all(Result::is_ok));
    assert!(matches!(revoking.await, Ok(RevokeOutcome::Done)));
    beat.await.unwrap();
    let Lookup::Found(found) = store.find(grant.id, None).await.unwrap() else { panic!() };
    assert!(found.grant.revoked_at.is_some());
}
