//! Files whose tables are older or newer than the program, and who may change them.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use cloakroom_core::store::TokenStore as _;
use cloakroom_sqlite::rusqlite::Connection;
use cloakroom_sqlite::{OpenError, SqliteStore};
use tempfile::TempDir;

use crate::support::NOW;

fn new() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    (folder, path)
}

fn run(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// The versions that a store would migrate the file to.
fn pending(path: &Path) -> Result<Vec<usize>, OpenError> {
    let pending = SqliteStore::builder(path).pending_migrations()?;
    Ok(pending.iter().map(|migration| migration.version as usize).collect())
}

fn opened(path: &Path) -> Result<(), OpenError> {
    SqliteStore::builder(path).auto_migrate(false).open().map(drop)
}

#[test]
fn without_migration_only_a_file_of_this_version_is_opened() {
    let (_folder, path) = new();
    assert!(matches!(opened(&path), Err(OpenError::File { .. })), "there is none");
    assert!(!path.exists(), "none was created");
    run(&path, "");
    let none = opened(&path).unwrap_err();
    assert!(matches!(none, OpenError::NotMigrated { found: 0, .. }), "{none:?}");

    for foreign in ["application_id = 7", "user_version = 1"] {
        let (_folder, path) = new();
        run(&path, &format!("PRAGMA {foreign}"));
        let error = opened(&path).unwrap_err();
        assert!(matches!(error, OpenError::Foreign), "{foreign}: {error:?}");
    }

    let newest = SqliteStore::builder(&path).migrate().unwrap();
    opened(&path).unwrap();
    run(&path, &format!("PRAGMA user_version = {}", newest - 1));
    match opened(&path).unwrap_err() {
        OpenError::NotMigrated { found, needed } => {
            assert_eq!((found, needed), (newest - 1, newest));
        }
        error => panic!("{error:?}"),
    }
    run(&path, &format!("PRAGMA user_version = {}", newest + 1));
    let newer = opened(&path).unwrap_err();
    assert!(matches!(newer, OpenError::Newer { .. }), "{newer:?}");
}

#[test]
fn what_a_migration_would_do_is_told_and_not_done() {
    let (_folder, path) = new();
    let all = pending(&path).unwrap();
    assert!(!path.exists(), "none was created");
    let newest = SqliteStore::builder(&path).migrate().unwrap();
    assert_eq!(all, (1..=newest).collect::<Vec<_>>());
    assert_eq!(pending(&path).unwrap(), [0; 0]);
    run(&path, &format!("PRAGMA user_version = {}", newest - 1));
    assert_eq!(pending(&path).unwrap(), [newest]);
    run(&path, &format!("PRAGMA user_version = {}", newest + 1));
    let newer = pending(&path).unwrap_err();
    assert!(matches!(newer, OpenError::Newer { .. }), "{newer:?}");
}

#[tokio::test]
async fn the_status_tells_the_version() {
    let (_folder, path) = new();
    let newest = SqliteStore::builder(&path).migrate().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let status = store.status(NOW).await.unwrap();
    assert_eq!(status.schema.map(|version| version as usize), Some(newest));
}

/// SQLite itself would not wait for this lock.
#[test]
fn a_file_that_another_process_changes_is_waited_for() {
    let (_folder, path) = new();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA user_version = 0; BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let (opened, result) = mpsc::channel();
        scope.spawn(|| {
            let store = SqliteStore::builder(&path).busy_timeout(Duration::from_secs(600)).open();
            opened.send(store.map(drop)).unwrap();
            drop(opened);
        });
        // It would have failed by then.
        let early = result.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "{early:?}");
        other.execute_batch("COMMIT").unwrap();
        result.recv().unwrap().unwrap();
    });
}

#[test]
fn a_file_that_another_process_changes_is_waited_for_no_longer_than_asked() {
    let (_folder, path) = new();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA user_version = 0; BEGIN IMMEDIATE").unwrap();
    let waited = SqliteStore::builder(&path).busy_timeout(Duration::from_millis(20)).open();
    let refused = format!("{:?}", waited.map(drop).unwrap_err());
    assert!(refused.contains("DatabaseBusy"), "{refused}");
}
