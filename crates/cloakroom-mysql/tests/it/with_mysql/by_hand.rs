//! Two sessions, stepped by hand: a stranger holds a lock, so that a call of the store stops at the statement
//! that needs it.

use std::time::Duration;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, LogEntry, RevocationBatch, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Lookup, RevokeOutcome, StoreError, TokenStore,
    TokenStoreExt as _,
};
use cloakroom_mysql::MysqlStore;
use tokio::task::JoinHandle;

use crate::server::{Admin, Tables, hex, store};
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// A stranger, at the isolation of the store.
pub(crate) async fn stranger() -> Admin {
    let mut admin = Admin::connect().await;
    admin.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    admin
}

/// Waits until a session waits for a lock in one of these tables.
pub(crate) async fn until_blocked(tables: &Tables) {
    // The server renews what it tells only if nobody has asked for 0.1 s.
    const RENEWED: Duration = Duration::from_millis(110);
    let mut admin = Admin::connect().await;
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx \
         WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{}%'",
        tables.prefix
    );
    for _ in 0..50 {
        if admin.number(&waiting).await > 0 {
            return;
        }
        tokio::time::sleep(RENEWED).await;
    }
    panic!("no session waits for a lock");
}

/// Calls the store on a task.
fn spawn<T, R>(store: &MysqlStore, call: impl FnOnce(MysqlStore) -> R) -> JoinHandle<R::Output>
where
    T: Send + 'static,
    R: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    tokio::spawn(call(store.clone()))
}

async fn is_revoked(store: &MysqlStore, id: cloakroom_core::GrantId) -> bool {
    match store.find(id, None).await.unwrap() {
        Lookup::Found(found) => found.grant.revoked_at.is_some(),
        other => panic!("{other:?}"),
    }
}

/// A row with this id, so that a create of it waits.
fn occupy(tables: &Tables, id: &[u8]) -> String {
    tables.sql("INSERT INTO ~grants (id, client, subject, epoch, expires_at, row_expires_at, body) VALUES (")
        + &hex(id)
        + ", '', '', 0, 0, 0, '')"
}

/// The revocation is over before the grant is visible: its sweep cannot see the grant. The look at the rules
/// comes after the commit of the grant, and finds the rule.
#[tokio::test]
async fn a_create_that_commits_after_a_sweep_finds_the_rule() {
    let (tables, store) = store().await;
    for target in [
        (|grant| Target::Subject(grant.subject.clone())) as fn(&GrantRecord) -> Target,
        |grant| Target::Client(grant.client.clone()),
        |grant| Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
    ] {
        for with_token in [false, true] {
            let late = grant(&store, "alice", "app").await;
            let tokens = if with_token { vec![token(&late)] } else { vec![] };
            let mut stranger = stranger().await;
            stranger.run("START TRANSACTION").await;
            stranger.run(occupy(&tables, late.id.as_bytes())).await;
            let record = late.clone();
            let creating =
                spawn(&store, move |store| async move { store.create(record, tokens).await });
            until_blocked(&tables).await;
            let done = store.revoke(revocation(target(&late))).await.unwrap();
            assert_eq!(done, RevokeOutcome::Done);
            stranger.run("ROLLBACK").await;
            assert_eq!(creating.await.unwrap().unwrap(), CreateOutcome::Barred);
            assert!(is_revoked(&store, late.id).await);
        }
    }
}

/// The grant is visible before the rule is: its create cannot see the rule. The sweep selects after the commit
/// of the rule, and finds the grant.
#[tokio::test]
async fn a_sweep_finds_a_grant_whose_create_looked_before_the_rule() {
    let (tables, store) = store().await;
    let early = grant(&store, "alice", "app").await;
    let mut stranger = stranger().await;
    stranger.run("START TRANSACTION").await;
    stranger.rows(tables.sql("SELECT * FROM ~state WHERE id = 0 FOR UPDATE")).await;
    let target = Target::Subject(early.subject.clone());
    let revoking =
        spawn(&store, move |store| async move { store.revoke(revocation(target)).await });
    until_blocked(&tables).await;
    assert_eq!(store.create(early.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    stranger.run("ROLLBACK").await;
    assert_eq!(revoking.await.unwrap().unwrap(), RevokeOutcome::Done);
    assert!(is_revoked(&store, early.id).await);
}

/// What the order protects from: a look at the rules before the commit of the grant sees no rule, and a sweep
/// before that commit sees no grant.
#[tokio::test]
async fn in_the_other_order_neither_would_see_the_other() {
    let (tables, store) = store().await;
    let missed = grant(&store, "alice", "app").await;
    let mut stranger = stranger().await;
    stranger.run("START TRANSACTION").await;
    stranger.run(occupy(&tables, missed.id.as_bytes())).await;
    let rules = tables.sql("SELECT COUNT(*) FROM ~rules");
    assert_eq!(stranger.number(&rules).await, 0, "it looks before the commit");
    store.revoke(revocation(Target::Subject(missed.subject.clone()))).await.unwrap();
    stranger.run("COMMIT").await;
    let live = tables.sql("SELECT COUNT(*) FROM ~grants WHERE revoked_at IS NULL");
    assert_eq!(stranger.number(live).await, 1, "it is live, against the rule");
}

async fn read(store: &MysqlStore, after: Cursor) -> (Vec<LogEntry>, Cursor) {
    match store.revocations(after, 100).await.unwrap() {
        RevocationBatch::Entries { entries, next, more: false, .. } => (entries, next),
        other => panic!("{other:?}"),
    }
}

/// A transaction took a position and has not committed. Whoever comes next waits for it, so that no reader
/// sees the later position first.
#[tokio::test]
async fn an_entry_that_commits_late_is_not_skipped() {
    let (tables, store) = store().await;
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    let (_, cursor) = read(&store, Cursor::start()).await;
    let mut late = stranger().await;
    late.run("START TRANSACTION").await;
    late.rows(tables.sql("SELECT position FROM ~state WHERE id = 0 FOR UPDATE")).await;
    late.run(
        tables
            .sql("INSERT INTO ~log SELECT position + 1, RANDOM_BYTES(16), ends_at, body FROM ~log"),
    )
    .await;
    late.run(tables.sql("UPDATE ~state SET position = position + 1")).await;
    let next = spawn(&store, |store| async move { store.heartbeat(NOW, NOW + DAY).await });
    until_blocked(&tables).await;
    assert_eq!(read(&store, cursor.clone()).await.0, [], "nothing is committed yet");
    late.run("COMMIT").await;
    next.await.unwrap().unwrap();
    let (entries, _) = read(&store, cursor).await;
    assert_eq!(entries.len(), 2, "both, in their order");
    let order = tables.sql("SELECT MAX(position) FROM ~log");
    assert_eq!(late.number(order).await, 3);
}

/// A transaction of somebody else stays open, in tables of the same database and in a snapshot of ours.
#[tokio::test]
async fn a_strangers_open_transaction_stalls_nothing() {
    let (tables, store) = store().await;
    let other = Tables::new();
    other.open().await;
    let mut stranger = Admin::connect().await;
    stranger.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    stranger.run("START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
    stranger.run(other.sql("UPDATE ~state SET position = 7")).await;
    stranger.rows(tables.sql("SELECT * FROM ~log")).await;
    let (_, cursor) = read(&store, Cursor::start()).await;
    for count in 1..4 {
        store
            .revoke(revocation(Target::Client(grant(&store, "a", "b").await.client)))
            .await
            .unwrap();
        assert_eq!(read(&store, cursor.clone()).await.0.len(), count);
    }
}

/// Somebody keeps the row of a grant locked: calls that need it fail, name the cause, and work afterwards.
/// All others go on.
#[tokio::test]
async fn a_lock_that_is_held_for_too_long_is_an_outage() {
    let tables = Tables::new();
    let builder = tables.builder().statement_timeout(Duration::from_secs(2));
    let store = builder.connect().await.unwrap();
    let (held, free) = (grant(&store, "alice", "app").await, grant(&store, "bob", "app").await);
    for grant in [&held, &free] {
        assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    }
    let mut stranger = stranger().await;
    stranger.run("START TRANSACTION").await;
    let lock = tables.sql("SELECT * FROM ~grants WHERE id = ") + &hex(held.id.as_bytes());
    stranger.rows(lock + " FOR UPDATE").await;
    let (blocked, _) = step(&held);
    let (other, _) = step(&free);
    let mine = spawn(&store, move |store| async move { store.advance(blocked).await });
    let id = held.id;
    let revoking =
        spawn(
            &store,
            move |store| async move { store.revoke(revocation(Target::Grant(id))).await },
        );
    // It shares the transaction with the revocation that waits, or comes after it.
    let id = free.id;
    let revoking_other =
        spawn(
            &store,
            move |store| async move { store.revoke(revocation(Target::Grant(id))).await },
        );
    assert_eq!(store.advance(other).await.unwrap(), AdvanceOutcome::Advanced);
    assert!(!is_revoked(&store, held.id).await, "readers do not wait");
    for answer in [mine.await.unwrap().map(drop), revoking.await.unwrap().map(drop)] {
        let error = answer.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let mut source = std::error::Error::source(&error);
        let mut text = String::new();
        while let Some(cause) = source {
            text += &cause.to_string();
            source = cause.source();
        }
        assert!(text.contains("Lock wait timeout"), "{text}");
    }
    revoking_other.await.unwrap().unwrap();
    stranger.run("ROLLBACK").await;
    assert_eq!(store.advance(step(&held).0).await.unwrap(), AdvanceOutcome::Advanced);
    store.revoke(revocation(Target::Grant(held.id))).await.unwrap();
    assert!(is_revoked(&store, held.id).await && is_revoked(&store, free.id).await);
}

/// Somebody keeps a whole table locked, as a migration by hand does. The server stops the statement.
#[tokio::test]
async fn a_statement_that_takes_too_long_is_an_outage() {
    let tables = Tables::new();
    let builder = tables.builder().statement_timeout(Duration::from_secs(1));
    let store = builder.connect().await.unwrap();
    let known = grant(&store, "alice", "app").await;
    assert_eq!(store.create(known.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let mut stranger = stranger().await;
    stranger.run(tables.sql("LOCK TABLES ~grants WRITE")).await;
    for answer in
        [store.find(known.id, None).await.map(drop), store.advance(step(&known).0).await.map(drop)]
    {
        let error = answer.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    }
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    stranger.run("UNLOCK TABLES").await;
    assert!(!is_revoked(&store, known.id).await);
    assert_eq!(store.advance(step(&known).0).await.unwrap(), AdvanceOutcome::Advanced);
}

/// The server ends one of two transactions that wait for each other. If it is the store's, it runs again.
#[tokio::test]
async fn the_victim_of_a_deadlock_tries_again() {
    let (tables, store) = store().await;
    let contended = grant(&store, "alice", "app").await;
    assert_eq!(store.create(contended.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let mut stranger = stranger().await;
    stranger.run("START TRANSACTION").await;
    // The server ends the transaction that has written less.
    for _ in 0..50 {
        stranger
            .run(occupy(&tables, &cloakroom_core::Random::system().array::<16>().unwrap()))
            .await;
    }
    stranger.rows(tables.sql("SELECT * FROM ~state WHERE id = 0 FOR UPDATE")).await;
    let id = contended.id;
    let revoking =
        spawn(
            &store,
            move |store| async move { store.revoke(revocation(Target::Grant(id))).await },
        );
    // It has the grant, and waits for the state.
    until_blocked(&tables).await;
    let update = tables.sql("UPDATE ~grants SET epoch = epoch WHERE id = ");
    stranger.run(update + &hex(id.as_bytes())).await;
    stranger.run("ROLLBACK").await;
    assert_eq!(revoking.await.unwrap().unwrap(), RevokeOutcome::Done);
    assert!(is_revoked(&store, id).await);
    let (entries, _) = read(&store, Cursor::start()).await;
    assert_eq!(entries.len(), 1);
}

/// All connections for requests wait for a lock. The log has its own.
#[tokio::test]
async fn a_flood_of_requests_delays_no_heartbeat() {
    let tables = Tables::new();
    let builder = tables.builder().connections(2).statement_timeout(Duration::from_secs(2));
    let store = builder.connect().await.unwrap();
    let held = grant(&store, "alice", "app").await;
    assert_eq!(store.create(held.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let mut stranger = stranger().await;
    stranger.run("START TRANSACTION").await;
    let lock = tables.sql("SELECT * FROM ~grants WHERE id = ") + &hex(held.id.as_bytes());
    stranger.rows(lock + " FOR UPDATE").await;
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let (step, _) = step(&held);
            spawn(&store, move |store| async move { store.advance(step).await })
        })
        .collect();
    until_blocked(&tables).await;
    for _ in 0..5 {
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
    assert_eq!(read(&store, Cursor::start()).await.0.len(), 5);
    let answers = futures_util::future::join_all(waiting).await;
    let exhausted = answers.iter().filter(|answer| match answer {
        Ok(Err(error)) => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            source.is_some_and(|source| source.contains("no connection was free"))
        }
        _ => false,
    });
    assert!(exhausted.count() > 10, "{answers:?}");
    stranger.run("ROLLBACK").await;
    assert_eq!(store.advance(step(&held).0).await.unwrap(), AdvanceOutcome::Advanced);
}

/// Tables that were put back from an older dump, while a store is open.
#[tokio::test]
async fn an_older_dump_is_a_gap_for_those_who_read_further() {
    let (tables, store) = store().await;
    let early = grant(&store, "alice", "app").await;
    store.revoke(revocation(Target::Client(early.client.clone()))).await.unwrap();
    let (_, before) = read(&store, Cursor::start()).await;
    let mut admin = Admin::connect().await;
    for table in ["log", "state", "rules", "sweeps"] {
        admin.run(tables.sql(&format!("CREATE TABLE ~{table}_dump SELECT * FROM ~{table}"))).await;
    }
    store.revoke(revocation(Target::Subject(early.subject.clone()))).await.unwrap();
    let (_, after) = read(&store, before.clone()).await;
    let known = store.epoch().await.unwrap();
    for table in ["log", "state", "rules", "sweeps"] {
        admin.run(tables.sql(&format!("DELETE FROM ~{table}"))).await;
        admin.run(tables.sql(&format!("INSERT INTO ~{table} SELECT * FROM ~{table}_dump"))).await;
    }
    assert_eq!(store.revocations(after.clone(), 10).await.unwrap(), RevocationBatch::Gap);
    assert_eq!(read(&store, before.clone()).await.0, [], "it read no further than the dump");
    // Another entry takes the position. It is not the one that was read there.
    let later = NOW + Duration::from_secs(1);
    store.heartbeat(later, later + DAY).await.unwrap();
    assert_eq!(store.revocations(after, 10).await.unwrap(), RevocationBatch::Gap);
    assert_eq!(read(&store, before).await.0.len(), 1);
    // What is granted next is newer than what replicas know.
    assert!(store.epoch().await.unwrap() > known);
}

/// The row of the state alone was put back, or made anew. No position is given twice, and nothing that is
/// acknowledged is missing from the log.
#[tokio::test]
async fn a_state_that_went_back_overwrites_no_entry() {
    let (tables, store) = store().await;
    let mut admin = Admin::connect().await;
    for _ in 0..3 {
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
    for (count, damage) in
        [(4, "UPDATE ~state SET position = 1"), (5, "DELETE FROM ~state")].into_iter()
    {
        admin.run(tables.sql(damage)).await;
        let opened = tables.open().await;
        store
            .revoke(revocation(Target::Client(grant(&opened, "a", "b").await.client)))
            .await
            .unwrap();
        let (entries, _) = read(&opened, Cursor::start()).await;
        assert_eq!(entries.len(), count, "{damage}");
        assert_eq!(admin.number(tables.sql("SELECT MAX(position) FROM ~log")).await, count as i64);
    }
}
