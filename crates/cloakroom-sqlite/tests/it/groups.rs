//! Writes that wait together share a transaction, and nothing else.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::store::{CreateOutcome, Lookup, StoreError, TokenStore as _};
use cloakroom_sqlite::SqliteStore;
use rusqlite::Connection;

use crate::support::{DAY, NOW, grant, token};

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
            let mut token = token.clone();
            token.issued_at = token.expires_at;
            tokens.push(token);
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
            assert_eq!(created.unwrap(), CreateOutcome::Inserted);
            assert!(matches!(found, Lookup::Found(found) if found.token.is_some()), "{number}");
        }
    }
}

#[tokio::test]
async fn a_damaged_page_takes_nothing_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    drop(SqliteStore::open(&path).unwrap());
    let stranger = Connection::open(&path).unwrap();
    let page: i64 = stranger
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'signing_keys'", [], |row| {
            row.get(0)
        })
        .unwrap();
    stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(stranger);
    let damaged = folder.path().join("damaged");
    let mut bytes = fs::read(&path).unwrap();
    let page = usize::try_from(page).unwrap();
    bytes[(page - 1) * 4096..page * 4096].fill(0xa5);
    fs::write(&damaged, bytes).unwrap();
    assert!(Command::new("cp").args([&damaged, &path]).status().unwrap().success());

    let store = Arc::new(SqliteStore::open(&path).unwrap());
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut writes, mut damaged) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let (grant, writer) = (grant(&*store, "alice", "app").await, Arc::clone(&store));
        let id = grant.id;
        let write = tokio::spawn(async move { writer.create(grant, Vec::new()).await });
        writes.push((id, write));
        if number % 5 == 2 {
            let store = Arc::clone(&store);
            damaged.push(tokio::spawn(async move { store.delete(1, 1).await }));
        }
    }
    tokio::task::yield_now().await;
    stranger.execute_batch("COMMIT").unwrap();
    for write in damaged {
        let error = write.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    for (id, write) in writes {
        assert_eq!(write.await.unwrap().unwrap(), CreateOutcome::Inserted);
        assert!(matches!(store.find(id, None).await.unwrap(), Lookup::Found(_)));
    }
}

/// Whatever a duration is set to: the file opens, or says why not.
#[tokio::test]
async fn no_duration_makes_a_store_panic() {
    for extreme in
        [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1 << 40), Duration::MAX]
    {
        let folder = tempfile::TempDir::new().unwrap();
        let builder = SqliteStore::builder(folder.path().join("tokens.db"));
        let store = builder.poll(extreme).busy_timeout(extreme).open().unwrap();
        let wakeups = store.wakeups();
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        drop(wakeups);
    }
}
