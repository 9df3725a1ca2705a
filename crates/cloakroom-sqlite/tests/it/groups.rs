//! Writes that wait together share a transaction, and nothing else.

use std::sync::Arc;

use cloakroom_core::{Created, Lookup, StoreError, TokenRecord, TokenStore as _};
use cloakroom_sqlite::SqliteStore;
use rusqlite::Connection;

use crate::support::{grant, token};

#[tokio::test]
async fn a_write_that_fails_takes_nothing_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    // While somebody else writes, they gather. More fail than are left out of a group one by one.
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut writes = Vec::new();
    for number in 0..60 {
        let grant = grant(&*store, &format!("user-{number}"), "app").await;
        let token = token(&grant);
        let mut tokens = vec![token.clone()];
        if number % 4 == 1 {
            // Found out when the grant is written already: two tokens cannot have one digest.
            tokens.push(TokenRecord { issued_at: token.expires_at, ..token.clone() });
        }
        let (store, id) = (Arc::clone(&store), grant.id);
        let write = tokio::spawn(async move { store.create(grant, tokens).await });
        writes.push((number, id, token.digest, write));
    }
    tokio::task::yield_now().await;
    stranger.execute_batch("COMMIT").unwrap();
    for (number, id, digest, write) in writes {
        let created = write.await.unwrap();
        let found = store.find(id, Some(digest)).await.unwrap();
        if number % 4 == 1 {
            assert!(matches!(created, Err(StoreError::Misuse(_))), "{created:?}");
            assert!(matches!(found, Lookup::Absent), "half a grant: {found:?}");
        } else {
            assert_eq!(created.unwrap(), Created::Inserted);
            assert!(matches!(found, Lookup::Found(found) if found.token.is_some()), "{number}");
        }
    }
}
