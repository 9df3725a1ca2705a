//! Over the app's own pool: the store and the app leave nothing behind for each other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Factory, checks, run};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Lookup, SingleUseStore as _, Spend, TokenStore,
};
use cloakroom_postgres::deadpool_postgres::{Manager, Object, Pool};
use cloakroom_postgres::tokio_postgres::{Config, NoTls};
use cloakroom_postgres::{ConnectError, PostgresStore, PostgresStoreBuilder};
use futures_util::poll;
use tokio::task::yield_now;

use crate::proxy::{Mode, Proxy};
use crate::server::{schema, stranger, url, without_sslmode};
use crate::support::{DAY, NOW, grant, revocation, step, token};
use crate::with_postgres::faults::{METHODS, Scene, is_unavailable};
use crate::with_postgres::log::until_blocked;

/// How many connections a store takes at most, with the default settings.
const STORE: usize = 5;

/// A pool of the app, whose connections have a name of their own.
fn pool_at(url: &str, size: usize) -> (Pool, String) {
    let (name, mut config) = (schema(), without_sslmode(url).parse::<Config>().unwrap());
    config.application_name(&name);
    let pool = Pool::builder(Manager::new(config, NoTls)).max_size(size).build().unwrap();
    (pool, name)
}

fn pool(size: usize) -> Pool {
    pool_at(&url(), size).0
}

fn over(pool: &Pool, schema: &str) -> PostgresStoreBuilder {
    PostgresStore::with_pool(pool.clone()).schema(schema)
}

/// All connections of a pool.
async fn all_of(pool: &Pool) -> Vec<Object> {
    let mut all = Vec::new();
    for _ in 0..pool.status().max_size {
        all.push(pool.get().await.unwrap());
    }
    all
}

async fn text(client: &Object, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A store over a pool of its own, each time.
#[derive(Debug)]
struct Pooled;

#[async_trait]
impl Factory for Pooled {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(over(&pool(STORE), &schema()).connect().await.unwrap())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(over(&pool(STORE), &schema()).connect().await.unwrap())
    }
}

/// A pool with as many connections as the store takes, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_kit_passes_over_a_pool() {
    let topics = ["contract::", "cancellation::"];
    let chosen: Vec<_> = checks()
        .into_iter()
        .filter(|check| topics.iter().any(|topic| check.name.starts_with(topic)))
        .collect();
    assert!(chosen.len() > 100, "{}", chosen.len());
    run(&chosen, Arc::new(Pooled)).await.assert_ok();
}

/// Every connection of the pool comes with a transaction that the app left open, and with settings that would
/// change what a statement means. What the store acknowledges is committed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_left_on_its_connections_changes_nothing() {
    let (pool, schema) = (pool(STORE + 3), schema());
    let mess = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE; \
                SET synchronous_commit = off; SET search_path = nowhere; SET bytea_output = escape; \
                CREATE TEMPORARY TABLE grants (id bytea);";
    for (number, client) in all_of(&pool).await.iter().enumerate() {
        client.batch_execute(mess).await.unwrap();
        match number % 3 {
            0 => client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await,
            1 => Ok(()),
            _ => {
                client.batch_execute("BEGIN").await.unwrap();
                assert!(client.batch_execute("SELECT 1 / 0").await.is_err());
                Ok(())
            }
        }
        .unwrap();
    }
    let store = over(&pool, &schema).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let token = token(&grant);
    let created = store.create(grant.clone(), vec![token.clone()]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    let (step, next) = step(&grant);
    assert_eq!(store.advance(step).await.unwrap(), AdvanceOutcome::Advanced);
    assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
    store.revoke(revocation(Target::Grant(grant.id))).await.unwrap();
    let id = cloakroom_core::store::SingleUseId::from_bytes([7; 32]);
    let _ = store.spend(Spend { id, until: NOW + DAY, now: NOW }).await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();

    let stranger = stranger().await;
    let written = format!(
        "SELECT count(*) FROM {schema}.grants WHERE revoked_at IS NOT NULL AND generation = {}",
        next.chain.unwrap().generation
    );
    assert_eq!(stranger.number(&written).await, 1);
    assert_eq!(stranger.number(&format!("SELECT count(*) FROM {schema}.log")).await, 2);
    assert_eq!(stranger.number(&format!("SELECT count(*) FROM {schema}.single_use")).await, 1);
}

/// Calls are dropped while their statements wait for a lock, and so is the store. The app's next statements get
/// their own answers, at once, and its connections have the app's settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_left_concerns_no_connection_of_the_app() {
    let ((pool, name), schema) = (pool_at(&url(), STORE + 1), schema());
    let builder = over(&pool, &schema).statement_timeout(Duration::from_secs(1));
    let store = builder.connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let created = store.create(grant.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    let locker = stranger().await;
    locker.run(&format!("BEGIN; SELECT FROM {schema}.grants FOR UPDATE")).await;
    for _ in 0..4 {
        let (step, _) = step(&grant);
        let mut advance = store.advance(step);
        let mut revoke = store.revoke(revocation(Target::Grant(grant.id)));
        assert!(poll!(advance.as_mut()).is_pending());
        assert!(poll!(revoke.as_mut()).is_pending());
        until_blocked(&schema).await;
    }
    drop(store);
    // The tasks of the store end, and with them its connections.
    while pool.status().size > pool.status().available {
        yield_now().await;
    }
    for (number, client) in all_of(&pool).await.iter().enumerate() {
        assert_eq!(
            text(client, &format!("SELECT 'answer {number}'")).await,
            format!("answer {number}")
        );
        for (setting, value) in
            [("statement_timeout", "0"), ("enable_seqscan", "on"), ("jit", "on")]
        {
            assert_eq!(text(client, &format!("SHOW {setting}")).await, value, "{setting}");
        }
        assert_eq!(text(client, "SHOW application_name").await, name);
        // It fails in a transaction.
        client.batch_execute("DISCARD ALL").await.unwrap();
    }
    locker.run("ROLLBACK").await;
}

/// The app uses every connection but that of the log. Calls are outages, and work again when it gives some back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_exhausted_is_an_outage() {
    let (pool, schema) = (pool(STORE), schema());
    let builder = over(&pool, &schema).connect_timeout(Duration::from_millis(50));
    let all = all_of(&pool).await;
    let error = builder.clone().connect().await.unwrap_err();
    let ConnectError::Store(error) = error else { panic!("{error:?}") };
    is_unavailable::<()>("connect", Err(error));
    drop(all);

    let store = builder.connect().await.unwrap();
    let direct = PostgresStore::builder(&url()).schema(&schema).connect().await.unwrap();
    let scene = Scene::new(&direct, 1).await.over(&store);
    let mut taken = Vec::new();
    while taken.len() < STORE - 1 {
        taken.push(pool.get().await.unwrap());
    }
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    for method in METHODS {
        if !["revoke grant", "revoke token", "heartbeat"].contains(&method) {
            is_unavailable(method, scene.call(method).await);
        }
    }
    drop(taken);
    scene.works_in_the_end().await;
}

/// A network that swallows everything: whoever waits for an answer gets an error, and the pool makes another
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_connections_are_silent_is_an_outage() {
    let (schema, proxy) = (schema(), Proxy::start().await);
    let (pool, _) = pool_at(proxy.url(), STORE);
    let store = over(&pool, &schema)
        .statement_timeout(Duration::from_millis(400))
        .connect_timeout(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    let scene = Scene::new(&store, 1).await;
    proxy.set(Mode::Stalled).await;
    let calls = METHODS.map(|method| {
        let scene = scene.clone();
        tokio::spawn(async move { (method, scene.call(method).await) })
    });
    for call in calls {
        let (method, answer) = call.await.unwrap();
        is_unavailable(method, answer);
    }
    proxy.set(Mode::Works).await;
    scene.works_in_the_end().await;
}

#[tokio::test]
async fn a_pool_that_is_too_small_or_read_only_is_refused() {
    let error = over(&pool(STORE - 1), &schema()).connect().await.unwrap_err();
    let is_small = matches!(error, ConnectError::PoolTooSmall { max: 4, needed: STORE });
    assert!(is_small, "{error:?}");
    let store = over(&pool(4), &schema()).connections(1, 1).connect().await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();

    let mut config: Config = without_sslmode(&url()).parse().unwrap();
    config.options("-c default_transaction_read_only=on");
    let pool = Pool::builder(Manager::new(config, NoTls)).max_size(STORE).build().unwrap();
    for error in [
        over(&pool, &schema()).connect().await.unwrap_err(),
        over(&pool, &schema()).transaction_pooler(true).connect().await.unwrap_err(),
    ] {
        assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
    }
}

/// A pool whose connections lead to a transaction pooler: nothing is set on them, and none that the app left in
/// a transaction is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_before_a_transaction_pooler_is_used_without_settings() {
    let (pool, schema) = (pool(STORE + 1), schema());
    pool.get().await.unwrap().batch_execute("BEGIN; SELECT 1").await.unwrap();
    let store = over(&pool, &schema).transaction_pooler(true).connect().await.unwrap();
    let scene = Scene::new(&store, 1).await;
    for method in METHODS {
        scene.call(method).await.unwrap();
    }
    let grants = format!("SELECT count(*) FROM {schema}.grants");
    assert!(stranger().await.number(&grants).await > 0);
}
