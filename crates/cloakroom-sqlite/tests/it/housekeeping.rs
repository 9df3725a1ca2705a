//! What ends is deleted, whatever waits beside it.

use std::time::Duration;

use cloakroom_core::store::{CreateOutcome, Housekeeping, Lookup, TokenStore as _};
use cloakroom_sqlite::SqliteStore;
use futures_util::future::join_all;

use crate::support::{DAY, NOW, grant, token};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn grants_that_wait_for_their_tokens_keep_no_other_from_being_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("tokens.db")).unwrap();
    let mut creating = Vec::new();
    for _ in 0..1_100 {
        let mut waiting = grant(&store, "alice", "app").await;
        waiting.row_expires_at = NOW + HOUR;
        let mut token = token(&waiting);
        token.expires_at = NOW + DAY;
        creating.push((waiting, token));
    }
    let created = join_all(
        creating.iter().map(|(grant, token)| store.create(grant.clone(), vec![token.clone()])),
    );
    assert!(
        created.await.into_iter().all(|created| matches!(created, Ok(CreateOutcome::Inserted)))
    );
    let mut last = grant(&store, "alice", "app").await;
    last.row_expires_at = NOW + 2 * HOUR;
    assert_eq!(store.create(last.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);

    let at = NOW + 3 * HOUR;
    let task = Housekeeping { now: at, before: at, limit: 1_000, sweep: None };
    let mut calls = 0;
    while store.maintain(task).await.unwrap().more {
        calls += 1;
        assert!(calls < 50, "housekeeping has no end");
    }
    assert_eq!(store.find(last.id, None).await.unwrap(), Lookup::Absent);
    let waiting = store.find(creating[0].0.id, None).await.unwrap();
    assert!(matches!(waiting, Lookup::Found(_)), "its token lives");
}
