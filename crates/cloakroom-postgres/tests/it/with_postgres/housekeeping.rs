//! Housekeeping: what it waits for, what it leaves, and what refreshes cost the table.

use std::time::Duration;

use cloakroom_core::revocation::Target;
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, Housekeeping, Lookup, TokenStore as _};
use cloakroom_core::{ClientId, Subject};
use cloakroom_postgres::PostgresStore;
use cloakroom_postgres::tokio_postgres::Config;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;

use crate::server::{connect, database_url, schema, stranger, url, without_sslmode};
use crate::support::{DAY, NOW, grant, revocation, step, token};

const HOUR: Duration = Duration::from_secs(3600);

async fn open(schema: &str) -> PostgresStore {
    PostgresStore::builder(&url()).schema(schema).connect().await.unwrap()
}

/// An index entry for each refresh would make the indexes and the log of the database grow. So none of the
/// indexed columns changes, and the new version of the row stays on its page.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refreshes_are_hot_updates() {
    // A database of its own: a snapshot that another test holds would keep the old versions of the rows.
    let database = schema();
    let admin = stranger().await;
    admin.run(&format!("CREATE DATABASE {database}")).await;
    let mut config: Config = without_sslmode(&url()).parse().unwrap();
    let stranger = connect(config.dbname(&*database)).await;
    let url = database_url(&database);
    let schema = "cloakroom";
    let store = PostgresStore::connect(&url).await.unwrap();
    let steps = 100_usize;
    stream::iter(0..100)
        .for_each_concurrent(16, |number| {
            let store = store.clone();
            async move {
                let mut current = grant(&store, &format!("user {number}"), "app").await;
                let created = store.create(current.clone(), vec![]).await.unwrap();
                assert_eq!(created, CreateOutcome::Inserted);
                for minutes in 0..steps {
                    let now = NOW + Duration::from_secs(minutes as u64);
                    let (mut step, mut next) = step(&current);
                    // The idle time-out begins anew with each refresh.
                    next.row_expires_at = now + 14 * DAY;
                    next.expires_at = current.expires_at;
                    step.now = now;
                    step.change = cloakroom_core::store::ChainUpdate::Move(Box::new(next.clone()));
                    step.tokens.clear();
                    assert_eq!(store.advance(step).await.unwrap(), AdvanceOutcome::Advanced);
                    current = next;
                }
            }
        })
        .await;
    let updates = format!(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables \
         WHERE schemaname = '{schema}' AND relname = 'grants'"
    );
    // Sessions report what they did when they have been idle for a while.
    let (all, hot) = loop {
        let row = &stranger.query(&updates, &[]).await[0];
        let (all, hot): (i64, i64) = (row.get(0), row.get(1));
        if all >= 10_000 {
            break (all, hot);
        }
        let _ = store.rules(vec![]).await.unwrap();
        for _ in 0..8 {
            let other = grant(&store, "other", "app").await;
            let _ = store.advance(step(&other).0).await.unwrap();
        }
    };
    // The first refresh moves the end to another day. On a busy machine snapshots live long, so a page is
    // full before its old versions may go, and some rows move. With an index on the exact end, none is HOT.
    println!("{hot} of {all} updates were HOT");
    assert!(hot * 100 >= all * 75, "{hot} of {all} updates were HOT");
    drop(store);
    admin.run(&format!("DROP DATABASE {database} WITH (FORCE)")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn grants_that_wait_for_their_tokens_keep_no_other_from_being_deleted() {
    let store = open(&schema()).await;
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

/// A grant with more ended tokens than one statement deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_with_very_many_tokens_goes_bit_by_bit() {
    let store = open(&schema()).await;
    let mut grant = grant(&store, "alice", "app").await;
    grant.row_expires_at = NOW + HOUR;
    let tokens: Vec<_> = (0..3_000).map(|_| token(&grant)).collect();
    assert_eq!(store.create(grant.clone(), tokens).await.unwrap(), CreateOutcome::Inserted);
    let at = NOW + 2 * HOUR;
    let task = Housekeeping { now: at, before: at, limit: 600, sweep: None };
    let (mut calls, mut tokens) = (0, 0);
    loop {
        let done = store.maintain(task).await.unwrap();
        tokens += done.tokens;
        calls += 1;
        assert!(calls < 50, "housekeeping has no end");
        if !done.more {
            break;
        }
    }
    assert!(calls > 2 && tokens > 1_000, "{calls} calls deleted {tokens} tokens by themselves");
    assert_eq!(store.find(grant.id, None).await.unwrap(), Lookup::Absent);
}

/// A row that somebody holds is passed by, and its neighbours go.
#[tokio::test]
async fn housekeeping_waits_for_nobody() {
    let schema = schema();
    let store = open(&schema).await;
    let mut grants = Vec::new();
    for _ in 0..10 {
        let mut grant = grant(&store, "alice", "app").await;
        grant.row_expires_at = NOW + HOUR;
        let token = token(&grant);
        let _ = store.create(grant.clone(), vec![token]).await.unwrap();
        grants.push(grant);
    }
    let other = stranger().await;
    other.run("BEGIN").await;
    let hold = format!("SELECT FROM {schema}.grants WHERE id = $1 FOR UPDATE");
    other.query(&hold, &[&grants[3].id.as_bytes().as_slice()]).await;
    let hold = format!("SELECT FROM {schema}.tokens WHERE grant_id = $1 FOR UPDATE");
    other.query(&hold, &[&grants[3].id.as_bytes().as_slice()]).await;
    let at = NOW + 2 * HOUR;
    let task = Housekeeping { now: at, before: at, limit: 1_000, sweep: None };
    assert!(store.maintain(task).await.unwrap().more, "one is left");
    for (number, grant) in grants.iter().enumerate() {
        let is_there = store.find(grant.id, None).await.unwrap() != Lookup::Absent;
        assert_eq!(is_there, number == 3);
    }
    other.run("COMMIT").await;
    while store.maintain(task).await.unwrap().more {}
    assert_eq!(store.find(grants[3].id, None).await.unwrap(), Lookup::Absent);
}

/// Sweeps, revocations, refreshes and housekeeping of several nodes, all over the same rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_in_a_circle() {
    let schema = schema();
    let nodes = [open(&schema).await, open(&schema).await, open(&schema).await];
    let stranger = stranger().await;
    let deadlocks =
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()".to_owned();
    let before = stranger.number(&deadlocks).await;
    let task = |node: usize| {
        let store = nodes[node % 3].clone();
        async move {
            for round in 0..40 {
                let (user, app) = (format!("user {}", round % 3), format!("app {}", node % 2));
                let mut grants = Vec::new();
                for _ in 0..4 {
                    let mut grant = grant(&store, &user, &app).await;
                    grant.row_expires_at = NOW + HOUR;
                    let token = token(&grant);
                    let _ = store.create(grant.clone(), vec![token]).await.unwrap();
                    grants.push(grant);
                }
                let refreshes = grants.iter().map(|grant| store.advance(step(grant).0));
                let targets = [
                    Target::Subject(Subject::user(&*user).unwrap()),
                    Target::Client(ClientId::new(&*app).unwrap()),
                    Target::Grant(grants[0].id),
                    Target::Grant(grants[3].id),
                ];
                let revocations = targets.map(|target| store.revoke(revocation(target)));
                let at = NOW + 2 * HOUR;
                let house = Housekeeping { now: at, before: at, limit: 100, sweep: None };
                let (refreshed, revoked, kept) = futures_util::join!(
                    join_all(refreshes),
                    join_all(revocations),
                    store.maintain(house)
                );
                assert!(refreshed.iter().all(Result::is_ok), "{refreshed:?}");
                assert!(revoked.iter().all(Result::is_ok), "{revoked:?}");
                kept.unwrap();
            }
        }
    };
    let tasks: Vec<_> = (0..6).map(|node| tokio::spawn(task(node))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(stranger.number(&deadlocks).await, before);
}
