//! Over the app's own pool: the store and the app leave nothing behind for each other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Check, Factory, checks, run};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, Lookup, StoreError, TokenStore};
use cloakroom_mysql::mysql_async::prelude::Queryable as _;
use cloakroom_mysql::mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts};
use cloakroom_mysql::{ConnectError, MysqlStore, MysqlStoreBuilder};
use futures_util::poll;
use tokio::task::yield_now;

use crate::server::{Admin, Tables, url};
use crate::support::{DAY, NOW, grant, revocation, step, token};
use crate::with_mysql::by_hand::until_blocked;

/// How many connections the stores of these tests take at most.
const STORE: usize = 4;

fn options(size: usize) -> (OptsBuilder, PoolOpts) {
    let opts = Opts::from_url(&url().replacen("mariadb://", "mysql://", 1)).unwrap();
    let opts = OptsBuilder::from_opts(opts).prefer_socket(false).client_found_rows(true);
    let constraints = PoolConstraints::new(0, size).unwrap();
    (opts, PoolOpts::default().with_constraints(constraints))
}

fn pool(size: usize) -> Pool {
    let (opts, pool) = options(size);
    Pool::new(opts.pool_opts(pool))
}

fn over(pool: &Pool, tables: &Tables) -> MysqlStoreBuilder {
    MysqlStore::with_pool(pool.clone())
        .table_prefix(&tables.prefix)
        .connections(STORE - 2)
        .poll(Duration::from_millis(5))
}

async fn all_of(pool: &Pool, size: usize) -> Vec<Conn> {
    let mut all = Vec::new();
    for _ in 0..size {
        all.push(pool.get_conn().await.unwrap());
    }
    all
}

/// A store over a pool of its own, each time.
#[derive(Debug)]
struct Pooled;

#[async_trait]
impl Factory for Pooled {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(over(&pool(STORE), &Tables::new()).connect().await.unwrap())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(over(&pool(STORE), &Tables::new()).connect().await.unwrap())
    }
}

/// A pool with as many connections as the store takes, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_kit_passes_over_a_pool() {
    let topics = ["contract::", "cancellation::"];
    let is_among = |check: &Check| topics.iter().any(|topic| check.name.starts_with(topic));
    let chosen: Vec<Check> = checks().into_iter().filter(is_among).collect();
    assert!(chosen.len() > 100, "{}", chosen.len());
    run(&chosen, Arc::new(Pooled)).await.assert_ok();
}

/// The pool resets nothing, and every connection comes with a transaction that the app left open, and with
/// settings that would change what a statement means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_left_on_its_connections_changes_nothing() {
    let (opts, limits) = options(STORE + 2);
    let pool = Pool::new(opts.pool_opts(limits.with_reset_connection(false)));
    let tables = Tables::new();
    for mut conn in all_of(&pool, STORE + 2).await {
        for sql in [
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET SESSION sql_mode = '', sql_select_limit = 0, autocommit = 0",
            "START TRANSACTION",
            "DO 1",
        ] {
            conn.query_drop(sql).await.unwrap();
        }
    }
    let store = over(&pool, &tables).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let token = token(&grant);
    let created = store.create(grant.clone(), vec![token.clone()]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    assert_eq!(store.advance(step(&grant).0).await.unwrap(), AdvanceOutcome::Advanced);
    assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
    store.revoke(revocation(Target::Grant(grant.id))).await.unwrap();

    let mut admin = Admin::connect().await;
    let revoked = "SELECT COUNT(*) FROM ~grants WHERE revoked_at IS NOT NULL AND generation = 1";
    assert_eq!(admin.number(tables.sql(revoked)).await, 1);
    assert_eq!(admin.number(tables.sql("SELECT COUNT(*) FROM ~tokens")).await, 2);
    assert_eq!(admin.number(tables.sql("SELECT COUNT(*) FROM ~log")).await, 1);
}

/// Calls are dropped while their statements wait for a lock, and so is the store. The app's next statements get
/// their own answers, and its connections have the app's settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_left_concerns_no_connection_of_the_app() {
    let (opts, limits) = options(STORE);
    // Not even if the app wants no resets.
    let pool = Pool::new(opts.pool_opts(limits.with_reset_connection(false)));
    let tables = Tables::new();
    let store = over(&pool, &tables).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let created = store.create(grant.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    let mut locker = Admin::connect().await;
    locker.run("START TRANSACTION").await;
    locker.rows(tables.sql("SELECT * FROM ~grants FOR UPDATE")).await;
    for _ in 0..4 {
        let mut advance = store.advance(step(&grant).0);
        let mut find = store.find(grant.id, None);
        assert!(poll!(advance.as_mut()).is_pending());
        // It waits for no lock: its answer may be there already.
        let _ = poll!(find.as_mut());
        until_blocked(&tables).await;
    }
    drop(store);
    locker.run("ROLLBACK").await;
    let settings = "SHOW SESSION VARIABLES WHERE variable_name LIKE '%isolation' OR variable_name IN \
                    ('sql_mode', 'max_statement_time', 'max_execution_time', 'innodb_lock_wait_timeout')";
    let fresh: Vec<(String, String)> = Admin::connect().await.0.query(settings).await.unwrap();
    assert!(fresh.len() > 3);
    for (number, conn) in all_of(&pool, STORE).await.iter_mut().enumerate() {
        let answer: Option<usize> = conn.query_first(format!("SELECT {number}")).await.unwrap();
        assert_eq!(answer, Some(number));
        let found: Vec<(String, String)> = conn.query(settings).await.unwrap();
        assert_eq!(found, fresh);
        let open = "SELECT COUNT(*) FROM information_schema.innodb_trx \
                    WHERE trx_mysql_thread_id = CONNECTION_ID()";
        assert_eq!(conn.query_first(open).await.unwrap(), Some(0));
    }
}

/// The app drops its queries at every point. The store never reads an answer that was meant for the app.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_dropped_in_mid_statement_is_not_an_answer() {
    let (opts, limits) = options(STORE + 1);
    let pool = Pool::new(opts.pool_opts(limits.with_reset_connection(false)));
    let tables = Tables::new();
    let first = over(&pool, &tables).connect().await.unwrap();
    let grant = grant(&first, "alice", "app").await;
    let created = first.create(grant.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    drop(first);
    let mut dropped = 0;
    for polls in 0..60 {
        for mut conn in all_of(&pool, STORE + 1).await {
            let mut query = Box::pin(conn.query::<u64, _>(
                "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
                 SELECT i FROM n",
            ));
            let mut is_pending = true;
            for _ in 0..polls * 4 {
                is_pending = is_pending && poll!(query.as_mut()).is_pending();
                yield_now().await;
            }
            dropped += usize::from(is_pending && polls > 0);
        }
        // A store takes what comes back.
        let store = over(&pool, &tables).connect().await.unwrap();
        let Lookup::Found(found) = store.find(grant.id, None).await.unwrap() else {
            panic!("after {polls} polls: the grant is gone")
        };
        assert_eq!(*found.grant, grant);
        let absent = cloakroom_core::GrantId::from_bytes([9; 16]);
        assert_eq!(store.find(absent, None).await.unwrap(), Lookup::Absent);
    }
    assert!(dropped > 50, "{dropped}");
}

fn is_outage<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

/// The app uses every connection. Calls are outages, and work again when it gives some back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_exhausted_is_an_outage() {
    let (pool, tables) = (pool(STORE), Tables::new());
    let builder = over(&pool, &tables).connect_timeout(Duration::from_millis(50));
    let all = all_of(&pool, STORE).await;
    let error = builder.clone().connect().await.unwrap_err();
    let ConnectError::Store(error) = error else { panic!("{error:?}") };
    is_outage::<()>(Err(error));
    drop(all);
    let store = builder.connect_timeout(Duration::from_millis(300)).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let created = store.create(grant.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);

    // The store has one so far, which waits for a lock; the app has all others.
    let taken = all_of(&pool, STORE - 1).await;
    let mut locker = Admin::connect().await;
    locker.run("START TRANSACTION").await;
    locker.rows(tables.sql("SELECT * FROM ~grants FOR UPDATE")).await;
    let (waiting, (step, _)) = (store.clone(), step(&grant));
    let waiting = tokio::spawn(async move { waiting.advance(step).await });
    until_blocked(&tables).await;
    is_outage(store.find(grant.id, None).await);
    is_outage(store.heartbeat(NOW, NOW + DAY).await);
    drop(taken);
    assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    locker.run("ROLLBACK").await;
    assert_eq!(waiting.await.unwrap().unwrap(), AdvanceOutcome::Advanced);
}

#[tokio::test]
async fn a_pool_that_does_not_fit_is_refused() {
    let tables = Tables::new();
    let error = over(&pool(STORE - 1), &tables).connect().await.unwrap_err();
    let is_small = matches!(error, ConnectError::PoolTooSmall { max: 3, needed: STORE });
    assert!(is_small, "{error:?}");
    let (opts, limits) = options(STORE);
    let pool = Pool::new(opts.client_found_rows(false).pool_opts(limits));
    let error = over(&pool, &tables).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::ChangedRows), "{error:?}");
}
