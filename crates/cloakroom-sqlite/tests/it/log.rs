//! Where a reader of the revocation log goes on.

use std::time::Duration;

use cloakroom_core::revocation::{Cursor, LogEntry, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{CreateOutcome, Housekeeping, PageRequest, Selector, TokenStore as _};
use cloakroom_core::{GrantId, Subject};
use cloakroom_sqlite::SqliteStore;
use cloakroom_sqlite::rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{DAY, NOW, grant, revocation};

struct Scene {
    folder: TempDir,
    store: SqliteStore,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(folder.path().join("tokens.db")).unwrap();
        Self { folder, store }
    }

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
