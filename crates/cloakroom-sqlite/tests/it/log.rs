//! Where a reader of the revocation log goes on.

use std::time::Duration;

use cloakroom_core::revocation::{
    Cursor, LogEntry, LogEvent, LogNotifications, RevocationBatch, Target,
};
use cloakroom_core::store::{CreateOutcome, Housekeeping, PageRequest, Selector, TokenStore as _};
use cloakroom_core::{GrantId, Subject};
use cloakroom_sqlite::SqliteStore;
use cloakroom_sqlite::rusqlite::Connection;
use futures_util::{StreamExt as _, join};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::faults::until_found;
use crate::support::{DAY, NOW, Scene, grant, revocation};

impl Scene {
    fn damage(&self, sql: &str) {
        let connection = Connection::open(self.folder.path().join("tokens.db")).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    async fn revoke_grant(&self) {
        let target = Target::Grant(GrantId::from_bytes([7; 16]));
        self.store.revoke(revocation(target)).await.unwrap();
    }

    /// The entries after the cursor, and the cursor after them.
    async fn read(&self, after: Cursor) -> (Vec<LogEntry>, Cursor) {
        match self.store.revocations(after, 10).await.unwrap() {
            RevocationBatch::Entries { entries, next, .. } => (entries, next),
            RevocationBatch::Gap => panic!("a gap"),
        }
    }
}

#[tokio::test]
async fn a_reader_goes_on_after_a_heartbeat_that_was_trimmed() {
    let scene = Scene::new();
    scene.revoke_grant().await;
    scene.store.heartbeat(NOW, NOW + Duration::from_secs(1)).await.unwrap();
    let (entries, cursor) = scene.read(Cursor::start()).await;
    assert_eq!(entries.len(), 2);
    scene.store.heartbeat(NOW, NOW + DAY).await.unwrap();
    let at = NOW + Duration::from_secs(60);
    let task = Housekeeping { now: at, before: at, limit: 10, sweep: None };
    assert_eq!(scene.store.maintain(task).await.unwrap().revocations, 1);
    assert_eq!(scene.read(cursor).await.0.len(), 1);
}

/// The log was restored, and has gone another way since. The reader's last entry is not there any more, and
/// what was written in its place has been trimmed.
#[tokio::test]
async fn a_reader_goes_back_to_the_last_revocation_that_is_still_there() {
    let scene = Scene::new();
    scene.revoke_grant().await;
    for _ in 0..2 {
        scene.store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
    let (_, cursor) = scene.read(Cursor::start()).await;
    scene.damage(
        "CREATE TABLE kept AS SELECT * FROM log; \
         DELETE FROM log WHERE position IN (2, 3); \
         UPDATE kept SET position = 2, id = x'0f0e0d0c0b0a09080706050403020100' WHERE position = 1; \
         UPDATE kept SET position = 4 WHERE position = 3; \
         INSERT INTO log SELECT * FROM kept WHERE id = x'0f0e0d0c0b0a09080706050403020100'; \
         INSERT INTO log SELECT * FROM kept WHERE position = 4",
    );
    let (entries, next) = scene.read(cursor).await;
    assert!(
        matches!(&*entries, [LogEntry { event: LogEvent::Revoked { .. }, .. }, _]),
        "{entries:?}"
    );
    assert_eq!(scene.read(next).await.0, []);
}

/// A rule counts before its sweep has come to the grant.
#[tokio::test]
async fn what_a_rule_denies_is_not_listed_and_a_retry_of_it_is_barred() {
    let scene = Scene::new();
    let alice = Subject::user("alice").unwrap();
    let grant = grant(&scene.store, "alice", "app").await;
    let create = || scene.store.create(grant.clone(), vec![]);
    assert_eq!(create().await.unwrap(), CreateOutcome::Inserted);
    scene.store.revoke(revocation(Target::Subject(alice.clone()))).await.unwrap();
    let unswept = "UPDATE grants SET revoked_at = NULL";
    scene.damage(unswept);
    for of in [Selector::Subject(alice), Selector::Client(grant.client.clone())] {
        let page = PageRequest { after: None, limit: 10 };
        assert_eq!(scene.store.list(of, page, NOW).await.unwrap().grants, []);
    }
    for _ in 0..2 {
        assert_eq!(create().await.unwrap(), CreateOutcome::Barred);
    }
}

/// The next time that the store tells of a growth. A store that does not would never be asked again.
async fn woken(wakeups: &mut LogNotifications) {
    let LogNotifications::Stream(stream) = wakeups else { panic!("it tells") };
    timeout(Duration::from_secs(60), stream.next()).await.expect("it tells").expect("it lives");
}

#[tokio::test]
async fn a_write_of_this_process_wakes_readers_at_once() {
    let folder = TempDir::new().unwrap();
    let builder = SqliteStore::builder(folder.path().join("tokens.db"));
    let store = builder.poll(Duration::from_secs(3_600)).open().unwrap();
    let mut wakeups = store.wakeups();
    for _ in 0..3 {
        // It listens before the write.
        let ((), written) = join!(woken(&mut wakeups), store.heartbeat(NOW, NOW + DAY));
        written.unwrap();
    }
}

#[tokio::test]
async fn a_write_of_another_process_wakes_readers_also_after_the_file_was_replaced() {
    let scene = Scene::new();
    let path = scene.folder.path().join("tokens.db");
    let store = SqliteStore::builder(&path).poll(Duration::from_millis(1)).open().unwrap();
    let mut wakeups = store.wakeups();
    scene.store.heartbeat(NOW, NOW + DAY).await.unwrap();
    woken(&mut wakeups).await;

    let copy = scene.folder.path().join("copy.db");
    scene.damage(&format!("VACUUM INTO '{}'", copy.display()));
    drop(scene.store);
    for file in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        let _ = std::fs::remove_file(scene.folder.path().join(file));
    }
    std::fs::rename(copy, &path).unwrap();
    until_found(&store).await;
    let other = SqliteStore::open(&path).unwrap();
    for _ in 0..2 {
        other.heartbeat(NOW, NOW + DAY).await.unwrap();
        woken(&mut wakeups).await;
    }
}

#[tokio::test]
async fn a_missing_index_is_named() {
    let scene = Scene::new();
    assert_eq!(scene.store.status(NOW).await.unwrap().problems, [""; 0]);
    scene.damage("DROP INDEX grants_of_client");
    let problems = scene.store.status(NOW).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("`grants_of_client` is missing"), "{problems:?}");
}
