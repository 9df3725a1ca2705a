//! `create` against `revoke`, and a step against a revocation, stepped by hand: whichever commits first, one
//! of the two sees the other.

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Housekeeping, Lookup, PageRequest, RevokeOutcome, Selector,
    TokenStore as _,
};
use cloakroom_core::{ClientId, Subject};
use cloakroom_postgres::PostgresStore;

use crate::proxy::{Mode, Proxy};
use crate::server::{Stranger, schema, stranger, url};
use crate::support::{DAY, NOW, grant, revocation, step, token};
use crate::with_postgres::log::until_blocked;

async fn open(url: &str, schema: &str) -> PostgresStore {
    PostgresStore::builder(url).schema(schema).connect().await.unwrap()
}

async fn is_live(store: &PostgresStore, grant: &GrantRecord) -> bool {
    match store.find(grant.id, None).await.unwrap() {
        Lookup::Found(found) => found.grant.is_live(NOW),
        Lookup::Tombstone | Lookup::Absent => false,
    }
}

fn targets() -> Vec<Target> {
    let (alice, app) = (Subject::user("alice").unwrap(), ClientId::new("app").unwrap());
    vec![
        Target::Subject(alice.clone()),
        Target::Client(app.clone()),
        Target::SubjectAtClient(alice, app),
    ]
}

/// A session of somebody else that has inserted this grant and not committed, as the first statement of a
/// `create` does for a moment.
async fn uncommitted(schema: &str, store: &PostgresStore, grant: &GrantRecord) -> Stranger {
    // The row as the store itself writes it, kept in a table beside.
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let session = stranger().await;
    let keep = format!("CREATE TABLE {schema}.kept AS TABLE {schema}.grants; ");
    session.run(&format!("{keep} TRUNCATE {schema}.grants")).await;
    session.run("BEGIN ISOLATION LEVEL READ COMMITTED").await;
    session.run(&format!("INSERT INTO {schema}.grants TABLE {schema}.kept")).await;
    session
}

/// The sweep cannot see a row that is not committed. The look after the commit sees the rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_insert_commits_after_the_sweep() {
    for target in targets() {
        let schema = schema();
        let store = open(&url(), &schema).await;
        let grant = grant(&store, "alice", "app").await;
        let session = uncommitted(&schema, &store, &grant).await;
        assert_eq!(store.revoke(revocation(target)).await.unwrap(), RevokeOutcome::Done);
        session.run("COMMIT").await;
        assert!(is_live(&store, &grant).await, "nobody has looked yet");
        // Lists apply the rule, also if the look never comes.
        let of = Selector::Client(grant.client.clone());
        let page = PageRequest { after: None, limit: 10 };
        assert_eq!(store.list(of, page, NOW).await.unwrap().grants, []);
        // The look: the second statement of `create`, which a repeated call sends, too.
        assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Barred);
        assert!(!is_live(&store, &grant).await);
    }
}

/// The look comes before the rule. So the row was committed before the rule, and the sweep sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rule_commits_after_the_look() {
    for target in targets() {
        let schema = schema();
        let store = open(&url(), &schema).await;
        let grant = grant(&store, "alice", "app").await;
        // The append waits before its commit.
        let other = stranger().await;
        other.run(&format!("BEGIN; SELECT FROM {schema}.log_state FOR UPDATE")).await;
        let revoking = {
            let store = store.clone();
            tokio::spawn(async move { store.revoke(revocation(target)).await })
        };
        until_blocked(&schema).await;
        assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
        assert!(is_live(&store, &grant).await);
        other.run("COMMIT").await;
        assert_eq!(revoking.await.unwrap().unwrap(), RevokeOutcome::Done);
        assert!(!is_live(&store, &grant).await);
    }
}

/// The whole revocation falls between the two statements of `create`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revocation_falls_between_the_insert_and_the_look() {
    for target in targets() {
        let schema = schema();
        let store = open(&url(), &schema).await;
        // What is sent is prepared, or else the preparation of the look would wait.
        let before = grant(&store, "bob", "other").await;
        let _ = store.create(before, vec![]).await.unwrap();
        let grant = grant(&store, "alice", "app").await;
        // The look waits for the table of rules.
        let other = stranger().await;
        other.run(&format!("BEGIN; LOCK TABLE {schema}.rules IN ACCESS EXCLUSIVE MODE")).await;
        let creating = {
            let (store, grant) = (store.clone(), grant.clone());
            tokio::spawn(async move { store.create(grant, vec![]).await })
        };
        until_blocked(&schema).await;
        assert!(is_live(&store, &grant).await, "the insert is committed");
        // The revocation queues behind the look for that table: its commit is later, its sweep sees the row.
        let revoking = {
            let store = store.clone();
            tokio::spawn(async move { store.revoke(revocation(target)).await })
        };
        other.run("COMMIT").await;
        assert_eq!(revoking.await.unwrap().unwrap(), RevokeOutcome::Done);
        let created = creating.await.unwrap().unwrap();
        assert!(matches!(created, CreateOutcome::Inserted | CreateOutcome::Barred), "{created:?}");
        assert!(!is_live(&store, &grant).await);
    }
}

/// The sweep never comes, since its node dies after the append: the rule bars, and `maintain` sweeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_dies_between_the_append_and_the_sweep() {
    for target in targets() {
        let schema = schema();
        let (proxy, other) = (Proxy::start().await, open(&url(), &schema).await);
        let dying = open(proxy.url(), &schema).await;
        let (early, late) =
            (grant(&other, "alice", "app").await, grant(&other, "alice", "app").await);
        let _ = other.create(early.clone(), vec![]).await.unwrap();
        // The statements of the sweep are blocked, and then their connection ends.
        let session = stranger().await;
        session.run(&format!("BEGIN; SELECT FROM {schema}.grants FOR UPDATE")).await;
        let revoking = tokio::spawn(async move { dying.revoke(revocation(target)).await });
        until_blocked(&schema).await;
        proxy.set(Mode::After(0)).await;
        session.run("COMMIT").await;
        // The server may have finished the statement all the same.
        let _ = revoking.await.unwrap();
        assert_eq!(other.create(late.clone(), vec![]).await.unwrap(), CreateOutcome::Barred);
        let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 100, sweep: None };
        while other.maintain(task).await.unwrap().more {}
        assert!(!is_live(&other, &early).await && !is_live(&other, &late).await);
        let unfinished = format!("SELECT count(*) FROM {schema}.sweeps");
        assert_eq!(session.number(&unfinished).await, 0);
    }
}

/// A revocation of a grant that another transaction is just inserting waits for it, and revokes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revocation_of_a_grant_that_is_being_inserted() {
    let schema = schema();
    let store = open(&url(), &schema).await;
    let grant = grant(&store, "alice", "app").await;
    let session = uncommitted(&schema, &store, &grant).await;
    let revoking = {
        let (store, id) = (store.clone(), grant.id);
        tokio::spawn(async move { store.revoke(revocation(Target::Grant(id))).await })
    };
    until_blocked(&schema).await;
    session.run("COMMIT").await;
    revoking.await.unwrap().unwrap();
    assert!(!is_live(&store, &grant).await);
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Barred);
    // And if the insert is rolled back, there is a tombstone.
    let gone = crate::support::grant(&store, "alice", "app").await;
    store.revoke(revocation(Target::Grant(gone.id))).await.unwrap();
    assert_eq!(store.find(gone.id, None).await.unwrap(), Lookup::Tombstone);
    assert_eq!(store.create(gone, vec![]).await.unwrap(), CreateOutcome::Barred);
}

/// A move waits for a revocation that is being written, and then finds the grant dead; and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_meets_a_revocation() {
    for revokes_first in [true, false] {
        let schema = schema();
        let store = open(&url(), &schema).await;
        let grant = grant(&store, "alice", "app").await;
        let _ = store.create(grant.clone(), vec![token(&grant)]).await.unwrap();
        let session = stranger().await;
        let id = grant.id.as_bytes().as_slice();
        session.run("BEGIN").await;
        let sql = if revokes_first {
            format!("UPDATE {schema}.grants SET revoked_at = 1 WHERE id = $1")
        } else {
            format!("SELECT FROM {schema}.grants WHERE id = $1 FOR UPDATE")
        };
        session.query(&sql, &[&id]).await;
        let (step, next) = step(&grant);
        let moving = {
            let store = store.clone();
            tokio::spawn(async move { store.advance(step).await })
        };
        until_blocked(&schema).await;
        session.run("COMMIT").await;
        let moved = moving.await.unwrap().unwrap();
        if revokes_first {
            assert_eq!(moved, AdvanceOutcome::Dead);
        } else {
            assert_eq!(moved, AdvanceOutcome::Advanced);
            store.revoke(revocation(Target::Grant(next.id))).await.unwrap();
        }
        assert!(!is_live(&store, &next).await);
    }
}

/// Two moves wait for the same row. One wins, and the other gets the grant as the winner left it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_moves_that_wait_one_wins() {
    let schema = schema();
    let store = open(&url(), &schema).await;
    let grant = grant(&store, "alice", "app").await;
    let _ = store.create(grant.clone(), vec![]).await.unwrap();
    let session = stranger().await;
    session.run(&format!("BEGIN; SELECT FROM {schema}.grants FOR UPDATE")).await;
    let steps = [step(&grant), step(&grant)];
    let moving = steps.clone().map(|(step, _)| {
        let store = store.clone();
        tokio::spawn(async move { store.advance(step).await.unwrap() })
    });
    until_blocked(&schema).await;
    session.run("COMMIT").await;
    let mut moved = Vec::new();
    for moving in moving {
        moved.push(moving.await.unwrap());
    }
    let won = moved.iter().position(|moved| *moved == AdvanceOutcome::Advanced).unwrap();
    match &moved[1 - won] {
        AdvanceOutcome::Stale(now) => assert_eq!(**now, steps[won].1),
        other => panic!("{other:?}"),
    }
}
