//! What ends is deleted, whatever waits beside it.

use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{
    CreateOutcome, Housekeeping, Lookup, MaintenanceReport, TokenStore as _,
};
use cloakroom_core::{Subject, time::UnixTime};
use cloakroom_sqlite::SqliteStore;
use cloakroom_sqlite::rusqlite::Connection;
use futures_util::future::join_all;

use crate::support::{DAY, NOW, Scene, grant, revocation, token};

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

impl Scene {
    /// Stores grants whose rows end then, each with so many tokens that end then.
    async fn put(&self, grants: u64, ends: UnixTime, tokens: usize, end: UnixTime) {
        let mut creating: Vec<(GrantRecord, Vec<TokenRecord>)> = Vec::new();
        for number in 0..grants {
            let mut own = grant(&self.store, "alice", "app").await;
            own.row_expires_at = ends + Duration::from_millis(number);
            let mut tokens: Vec<TokenRecord> = (0..tokens).map(|_| token(&own)).collect();
            tokens.iter_mut().for_each(|token| token.expires_at = end);
            creating.push((own, tokens));
        }
        let created = creating.into_iter().map(|(grant, tokens)| self.store.create(grant, tokens));
        for created in join_all(created).await {
            assert_eq!(created.unwrap(), CreateOutcome::Inserted);
        }
    }

    /// Adds entries to the log that end then.
    async fn beat(&self, entries: u32, end: UnixTime) {
        let beats = (0..entries).map(|_| self.store.heartbeat(NOW, end));
        for beat in join_all(beats).await {
            beat.unwrap();
        }
    }

    async fn maintain(&self, limit: u32) -> (u64, u64, u64) {
        let at = NOW + 3 * HOUR;
        let task = Housekeeping { now: at, before: at, limit, sweep: None };
        let MaintenanceReport { grants, tokens, revocations, .. } =
            self.store.maintain(task).await.unwrap();
        (grants, tokens, revocations)
    }
}

#[tokio::test]
async fn a_call_deletes_as_much_as_it_is_told_and_no_more() {
    let scene = Scene::new();
    scene.put(20, NOW + HOUR, 0, NOW).await;
    scene.put(20, NOW + 2 * DAY, 1, NOW + HOUR).await;
    scene.beat(21, NOW + HOUR).await;
    // Of the log and of the rest, half each; tokens whose grants stay come last.
    assert_eq!(scene.maintain(10).await, (5, 0, 5));
    assert_eq!(scene.maintain(10).await, (5, 0, 5));
    assert_eq!(scene.maintain(40).await, (10, 20, 10));
    assert_eq!(scene.maintain(40).await, (0, 0, 0));
}

/// More than one transaction deletes, of one kind alone.
#[tokio::test]
async fn a_call_goes_on_while_there_is_something_of_any_kind() {
    let scene = Scene::new();
    scene.put(600, NOW + HOUR, 0, NOW).await;
    assert_eq!(scene.maintain(1_000).await, (600, 0, 0));
    scene.put(600, NOW + 2 * DAY, 1, NOW + HOUR).await;
    assert_eq!(scene.maintain(1_000).await, (0, 600, 0));
    scene.beat(601, NOW + HOUR).await;
    assert_eq!(scene.maintain(1_000).await, (0, 0, 600));
}

#[tokio::test]
async fn a_grant_with_many_tokens_is_deleted_in_several_calls() {
    let scene = Scene::new();
    scene.put(1, NOW + HOUR, 2, NOW + HOUR).await;
    scene.put(1, NOW + 2 * HOUR, 10, NOW + HOUR).await;
    // Tokens count if their grant stays.
    assert_eq!(scene.maintain(6).await, (1, 3, 0));
    assert_eq!(scene.maintain(6).await, (0, 6, 0));
    assert_eq!(scene.maintain(6).await, (1, 0, 0));
}

/// The sweep that a caller waits for comes first, and the call says whether it goes on.
#[tokio::test]
async fn a_sweep_that_is_awaited_comes_before_older_ones() {
    let scene = Scene::new();
    let mut entries = Vec::new();
    for name in ["bob", "alice"] {
        let target = Target::Subject(Subject::user(name).unwrap());
        scene.store.revoke(revocation(target)).await.unwrap();
        let batch = scene.store.revocations(Cursor::start(), 10).await.unwrap();
        let RevocationBatch::Entries { entries: all, .. } = batch else { panic!("{batch:?}") };
        entries.push(all.last().unwrap().id);
    }
    scene.put(250, NOW + DAY, 0, NOW).await;
    // Neither has been swept yet.
    let connection = Connection::open(scene.folder.path().join("tokens.db")).unwrap();
    for (position, name) in [(1, "bob"), (2, "alice")] {
        let key = RuleKey::Subject(Subject::user(name).unwrap()).to_bytes();
        let begun = "INSERT INTO sweeps VALUES (?1, ?2, 1 << 62, 0, x'')";
        connection.execute(begun, (position, key)).unwrap();
    }
    let left = || -> Vec<i64> {
        let mut left = connection.prepare("SELECT position FROM sweeps ORDER BY 1").unwrap();
        left.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let task = Housekeeping { now: NOW, before: NOW, limit: 1, sweep: Some(entries[1]) };
    let first = scene.store.maintain(task).await.unwrap();
    assert!(first.sweeping && first.more, "{first:?}");
    assert_eq!(left(), [1, 2]);
    let second = scene.store.maintain(task).await.unwrap();
    assert!(!second.sweeping && second.more, "{second:?}");
    assert_eq!(left(), [1]);
    let last = scene.store.maintain(Housekeeping { sweep: None, ..task }).await.unwrap();
    assert!(!last.more, "{last:?}");
    assert_eq!(left(), [0; 0]);
}
