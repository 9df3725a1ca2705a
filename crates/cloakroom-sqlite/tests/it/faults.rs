//! Whatever befalls the file is an error with its source, never an answer about a token; and when
//! the cause is gone, the same store works again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{CreateOutcome, Housekeeping, Lookup, StoreError, TokenStore as _};
use cloakroom_core::{GrantId, Random};
use cloakroom_sqlite::rusqlite::Connection;
use cloakroom_sqlite::{OpenError, SqliteStore, SqliteStoreBuilder};
use tempfile::TempDir;

use crate::support::{DAY, NOW, grant, revocation, step, token};

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    (folder, path)
}

/// A store that notices quickly what happens to its file.
pub(crate) fn attentive(path: &Path) -> SqliteStoreBuilder {
    SqliteStore::builder(path)
        .poll(Duration::from_millis(1))
        .busy_timeout(Duration::from_millis(10))
}

pub(crate) fn is_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

pub(crate) async fn put(store: &SqliteStore) -> Result<GrantId, StoreError> {
    let grant = grant(store, "alice", "app").await;
    let token = token(&grant);
    let id = grant.id;
    assert_eq!(store.create(grant, vec![token]).await?, CreateOutcome::Inserted);
    Ok(id)
}

pub(crate) async fn is_there(store: &SqliteStore, id: GrantId) -> bool {
    matches!(store.find(id, None).await.unwrap(), Lookup::Found(_))
}

/// Until the store works again, which must need nothing but time.
pub(crate) async fn until_found(store: &SqliteStore) {
    while store.rules(Vec::new()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Until the store has noticed: it looks every millisecond.
pub(crate) async fn until_lost(store: &SqliteStore, id: GrantId) -> StoreError {
    loop {
        match store.find(id, None).await {
            Err(error) => return error,
            Ok(found) => assert!(matches!(found, Lookup::Found(_)), "{found:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_and_nothing_else() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder(&path).max_pages(60).open().unwrap();
    let (mut ids, mut refused) = (Vec::new(), 0);
    // A grant that falls into a page with room is still taken.
    while refused < 5 {
        match put(&store).await {
            Ok(id) => ids.push(id),
            Err(error) => {
                is_unavailable::<()>(Err(error));
                refused += 1;
            }
        }
        assert!(ids.len() < 10_000, "the disk is never full");
    }
    for id in &ids {
        assert!(is_there(&store, *id).await, "what was acknowledged is gone");
    }
    let of_app =
        cloakroom_core::store::Selector::Client(cloakroom_core::ClientId::new("app").unwrap());
    let page = cloakroom_core::store::PageRequest { after: None, limit: 10_000 };
    let listed = store.list(of_app, page, NOW).await.unwrap();
    assert_eq!(listed.grants.len(), ids.len(), "half of a write was left behind");

    // Everything ends, room is made, and the same store goes on.
    let end = NOW + 9 * DAY;
    let task = Housekeeping { now: end, before: end, limit: 1_000, sweep: None };
    while store.maintain(task).await.unwrap().more {}
    assert!(!is_there(&store, ids[0]).await);
    put(&store).await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_locks_the_database_is_an_outage() {
    let (_folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let id = put(&store).await.unwrap();
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    is_unavailable(put(&store).await);
    is_unavailable(store.revoke(revocation(Target::Grant(id))).await);
    is_unavailable(store.heartbeat(NOW, NOW + DAY).await);
    assert!(is_there(&store, id).await, "readers do not wait for writers");
    stranger.execute_batch("COMMIT").unwrap();
    store.revoke(revocation(Target::Grant(id))).await.unwrap();
    put(&store).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_moved_away_and_back_is_an_outage_in_between() {
    let (folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let id = put(&store).await.unwrap();
    let elsewhere = folder.path().join("elsewhere.db");
    fs::rename(&path, &elsewhere).unwrap();
    // A write would go into a file that nobody finds any more.
    is_unavailable(store.revoke(revocation(Target::Grant(id))).await);
    is_unavailable::<()>(Err(until_lost(&store, id).await));
    is_unavailable(store.rules(Vec::new()).await);
    is_unavailable(store.load().await);
    assert!(!path.exists(), "a database that is gone was made anew");
    fs::rename(&elsewhere, &path).unwrap();
    until_found(&store).await;
    put(&store).await.unwrap();
    assert!(is_there(&store, id).await);
}

#[tokio::test]
async fn a_database_put_in_its_place_is_used_instead() {
    let (folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let id = put(&store).await.unwrap();
    // A backup, restored under the running program.
    let backup = folder.path().join("backup.db");
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    store.revoke(revocation(Target::Grant(id))).await.unwrap();
    for file in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    is_unavailable(store.heartbeat(NOW, NOW + DAY).await);
    fs::rename(&backup, &path).unwrap();
    until_found(&store).await;
    let after = put(&store).await.unwrap();
    assert!(is_there(&store, after).await && is_there(&store, id).await);
    let found = Connection::open(&path).unwrap();
    let count: i64 = found.query_row("SELECT count(*) FROM grants", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2, "writes went elsewhere");
}

#[tokio::test]
async fn something_else_in_its_place_is_an_outage() {
    let (folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let id = put(&store).await.unwrap();
    let elsewhere = folder.path().join("elsewhere.db");
    fs::rename(&path, &elsewhere).unwrap();
    for junk in [b"".as_slice(), b"junk, and no database"] {
        fs::write(&path, junk).unwrap();
        let _ = store.revoke(revocation(Target::Grant(id))).await.unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), junk, "the stranger's file was written");
    }
    fs::rename(&elsewhere, &path).unwrap();
    until_found(&store).await;
    assert!(is_there(&store, id).await);
    put(&store).await.unwrap();
}

#[tokio::test]
async fn damage_is_called_damage_until_it_is_mended() {
    let (folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(put(&store).await.unwrap());
    }
    let late = grant(&store, "alice", "app").await;
    drop(store);
    let stranger = Connection::open(&path).unwrap();
    stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(stranger);
    // One that has none of it in memory.
    let store = attentive(&path).open().unwrap();
    let [intact, damaged] = ["intact", "damaged"].map(|name| folder.path().join(name));
    copy(&path, &intact);
    copy(&path, &damaged);
    // The first page, with the schema, is left as it is.
    let mut bytes = fs::read(&damaged).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page.fill(0xa5);
    }
    fs::write(&damaged, bytes).unwrap();
    copy(&damaged, &path);
    for _ in 0..3 {
        is_corrupt(store.find(ids[0], None).await);
        is_corrupt(store.load().await);
        is_corrupt(store.create(late.clone(), Vec::new()).await);
        is_corrupt(store.revoke(revocation(Target::Grant(ids[0]))).await);
    }
    copy(&intact, &path);
    for id in &ids {
        let Lookup::Found(found) = store.find(*id, None).await.unwrap() else { panic!("gone") };
        assert_eq!(found.grant.revoked_at, None, "half a revocation");
    }
    store.load().await.unwrap();
    assert_eq!(store.create(late, Vec::new()).await.unwrap(), CreateOutcome::Inserted);
    store.revoke(revocation(Target::Grant(ids[0]))).await.unwrap();
}

/// By another process: this one would lose its locks.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").args([from, to]).status().unwrap().success());
}

fn is_corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(!error.is_retryable());
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

#[tokio::test]
async fn a_damaged_row_is_called_damaged() {
    let (_folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let id = put(&store).await.unwrap();
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("CREATE TEMP TABLE intact AS SELECT * FROM grants").unwrap();
    for damage in ["body = x'01'", "body = x'ff7b7d'", "subject = x'ff'", "digest = x'00'"] {
        stranger.execute(&format!("UPDATE grants SET {damage}"), []).unwrap();
        is_corrupt(store.find(id, None).await);
        stranger
            .execute_batch("DELETE FROM grants; INSERT INTO grants SELECT * FROM intact")
            .unwrap();
        assert!(is_there(&store, id).await);
    }
    // Nothing of ours is negative. A step on such a row must not be lost.
    stranger.execute("UPDATE grants SET epoch = -1", []).unwrap();
    let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("gone") };
    is_corrupt(store.advance(step(&found.grant).0).await);
}

#[test]
fn paths_that_cannot_be_used_are_refused() {
    let (folder, path) = folder();
    let missing = folder.path().join("no such folder").join("tokens.db");
    assert!(matches!(SqliteStore::open(missing), Err(OpenError::File { .. })));
    assert!(SqliteStore::open(folder.path()).is_err(), "a folder");
    fs::write(&path, "junk, and no database, and long enough to have a header of its own").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Store(StoreError::Corrupt { .. }))));

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = SqliteStore::open(&other).unwrap_err();
    assert!(matches!(error, OpenError::Foreign), "{error:?}");
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }), "{error:?}");
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn many_may_make_the_database_at_once() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        let open = || scope.spawn(|| SqliteStore::open(&path).map(drop));
        for thread in (0..8).map(|_| open()).collect::<Vec<_>>() {
            thread.join().unwrap().unwrap();
        }
    });
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(put(&store)).unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn an_absent_grant_stays_absent_after_all_that() {
    let (_folder, path) = folder();
    let store = attentive(&path).open().unwrap();
    let nobody = GrantId::random(&Random::system()).unwrap();
    assert_eq!(store.find(nobody, None).await.unwrap(), Lookup::Absent);
}
