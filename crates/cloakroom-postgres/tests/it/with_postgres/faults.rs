//! Whatever befalls the server or a connection is an error with its source, never an answer about a token; and
//! when the cause is gone, the same store works again.

use std::time::Duration;

use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, RuleKey, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CheckValues as _, CreateOutcome, Housekeeping, Lookup, PageRequest, Selector,
    SingleUseId, SingleUseStore as _, Spend, StoreError, TokenStore as _,
};
use cloakroom_core::{ClientId, Kid, Random, Subject};
use cloakroom_postgres::{ConnectError, PostgresStore};
use futures_util::future::join_all;
use tokio::task::yield_now;

use crate::proxy::{Mode, Proxy};
use crate::server::{Stranger, builder, schema, stranger, url};
use crate::support::{DAY, NOW, grant, revocation, step, token};

pub(super) fn is_unavailable<T: std::fmt::Debug>(what: &str, answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{what}: {error:?}");
    assert!(error.is_retryable());
    assert!(std::error::Error::source(&error).is_some(), "{what}: {error:?}");
}

async fn put(store: &PostgresStore) -> Result<(GrantRecord, TokenRecord), StoreError> {
    let grant = grant(store, "alice", "app").await;
    let token = token(&grant);
    let created = store.create(grant.clone(), vec![token.clone()]).await?;
    assert_eq!(created, CreateOutcome::Inserted);
    Ok((grant, token))
}

/// Every method, once each.
pub(super) const METHODS: [&str; 17] = [
    "create",
    "find",
    "advance",
    "attach",
    "revoke grant",
    "revoke token",
    "revoke client",
    "rules",
    "list",
    "revocations",
    "heartbeat",
    "maintain",
    "load",
    "insert",
    "check_values",
    "set_check_value",
    "spend",
];

/// The tables that a lock makes them wait for.
const TABLES: [&str; 10] = [
    "grants",
    "tokens",
    "rules",
    "log",
    "sweeps",
    "log_state",
    "signing_keys",
    "signing_keys_state",
    "check_values",
    "single_use",
];

/// What a call needs. It is made before the call, since the call may come to nothing.
#[derive(Clone)]
pub(super) struct Scene {
    store: PostgresStore,
    grant: GrantRecord,
    token: TokenRecord,
    new: GrantRecord,
    key: KeyRecord,
    item: SingleUseId,
    name: String,
}

impl Scene {
    pub(super) async fn new(store: &PostgresStore, number: u64) -> Self {
        let (grant, token) = put(store).await.unwrap();
        let kid = Kid::new(format!("key {number}")).unwrap();
        let times = KeyTimes::published(NOW);
        let public = serde_json::json!({"kty": "EC"});
        Self {
            store: store.clone(),
            new: crate::support::grant(store, "bob", "app").await,
            grant,
            token,
            key: KeyRecord::new(number, kid, "ES256", public, vec![1, 2, 3], times),
            item: SingleUseId::from_bytes(Random::system().array().unwrap()),
            name: format!("name {number}"),
        }
    }

    /// The same, for another store over the same tables.
    #[cfg(feature = "deadpool")]
    pub(super) fn over(self, store: &PostgresStore) -> Self {
        Self { store: store.clone(), ..self }
    }

    /// Calls a method. What it answers when all is well is checked here; an error is returned.
    pub(super) async fn call(&self, method: &str) -> Result<(), StoreError> {
        let (store, id) = (&self.store, self.grant.id);
        let app = || ClientId::new("app").unwrap();
        match method {
            "create" => {
                let created = store.create(self.new.clone(), vec![]).await?;
                assert_eq!(created, CreateOutcome::Inserted);
            }
            "find" => {
                let found = store.find(id, Some(self.token.digest)).await?;
                assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
            }
            "advance" | "attach" => {
                let (mut step, _) = step(&self.grant);
                if method == "attach" {
                    step.change = cloakroom_core::store::ChainUpdate::Attach;
                }
                // A step whose answer was lost is stale when it comes with another credential.
                let advanced = store.advance(step).await?;
                let is_known =
                    matches!(advanced, AdvanceOutcome::Advanced | AdvanceOutcome::Stale(_));
                assert!(is_known, "{advanced:?}");
            }
            "revoke grant" => {
                store.revoke(revocation(Target::Grant(id))).await?;
            }
            "revoke token" => {
                let target = Target::Token { grant: id, digest: self.token.digest };
                store.revoke(revocation(target)).await?;
            }
            "revoke client" => {
                let other = ClientId::new("other").unwrap();
                store.revoke(revocation(Target::Client(other))).await?;
            }
            "rules" => {
                store.rules(vec![RuleKey::Client(app())]).await?;
            }
            "list" => {
                let of = Selector::Subject(Subject::user("alice").unwrap());
                let page = PageRequest { after: None, limit: 100 };
                let listed = store.list(of, page, NOW).await?;
                assert!(listed.grants.iter().all(|grant| grant.client == app()));
            }
            "revocations" => {
                let _ = store.revocations(Cursor::start(), 10).await?;
            }
            "heartbeat" => store.heartbeat(NOW, NOW + DAY).await?,
            "maintain" => {
                let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 10, sweep: None };
                store.maintain(task).await?;
            }
            "load" => {
                store.load().await?;
            }
            "insert" => {
                // It may have taken effect without an answer.
                let inserted = store.insert(self.key.clone()).await?;
                assert!(matches!(inserted, KeyInserted::Inserted | KeyInserted::Taken));
                let keys = store.load().await?;
                assert!(keys.contains(&self.key));
            }
            "check_values" => {
                store.check_values().await?;
            }
            "set_check_value" => {
                assert!(store.set_check_value(&self.name, None, Some(b"value")).await?);
            }
            "spend" => {
                let _ = store.spend(Spend { id: self.item, until: NOW + DAY, now: NOW }).await?;
            }
            other => panic!("{other}"),
        }
        Ok(())
    }
}

impl Scene {
    /// Every method works. A connection that is about to be given up may fail once more, and a busy machine may
    /// take longer than a short time-out allows.
    pub(super) async fn works_in_the_end(&self) {
        for method in METHODS {
            while self.call(method).await.is_err() {
                yield_now().await;
            }
        }
    }
}

/// Ends the connections of this schema that wait for a lock, until the task has ended.
async fn terminate(
    admin: &Stranger,
    schema: &str,
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%' AND pid <> pg_backend_pid()"
    );
    while !task.is_finished() {
        admin.number(&end).await;
        yield_now().await;
    }
    task.await.unwrap()
}

/// The connection is killed while each statement of each method is under way: it waits for a table that
/// somebody has locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_is_killed_at_each_statement() {
    let schema = schema();
    let store = PostgresStore::builder(&url()).schema(&schema).connect().await.unwrap();
    let (admin, locker) = (stranger().await, stranger().await);
    let (mut number, mut failures) = (0, Vec::new());
    // What is sent is prepared on some connections, and not on those that are new.
    for table in TABLES {
        for method in METHODS {
            number += 1;
            let scene = Scene::new(&store, number).await;
            locker
                .run(&format!("BEGIN; LOCK TABLE {schema}.{table} IN ACCESS EXCLUSIVE MODE"))
                .await;
            let task = {
                let scene = scene.clone();
                tokio::spawn(async move { scene.call(method).await })
            };
            let answer = terminate(&admin, &schema, task).await;
            locker.run("ROLLBACK").await;
            if answer.is_err() {
                is_unavailable(method, answer);
                failures.push((table, method));
            }
            // The same call works now.
            if let Err(error) = scene.call(method).await {
                panic!("{method} after the end of a connection that waited for {table}: {error:?}");
            }
        }
    }
    let failed = |method| failures.iter().filter(|(_, failed)| *failed == method).count();
    for method in METHODS {
        assert!(failed(method) > 0, "{method} waited for no table");
    }
    assert!(failed("create") >= 3 && failed("revoke grant") >= 4, "{failures:?}");
}

/// A lock that is held for too long: the server gives the statement up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_for_too_long_is_an_outage() {
    let schema = schema();
    let store = PostgresStore::builder(&url())
        .schema(&schema)
        .statement_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    let scene = Scene::new(&store, 1).await;
    let locker = stranger().await;
    locker.run(&format!("BEGIN; SELECT FROM {schema}.grants FOR UPDATE")).await;
    is_unavailable("advance", store.advance(step(&scene.grant).0).await);
    is_unavailable("revoke", store.revoke(revocation(Target::Grant(scene.grant.id))).await);
    // Lookups wait for nobody.
    scene.call("find").await.unwrap();
    scene.call("create").await.unwrap();
    locker.run("ROLLBACK; BEGIN").await;
    locker.run(&format!("SELECT FROM {schema}.log_state FOR UPDATE")).await;
    is_unavailable("heartbeat", scene.call("heartbeat").await);
    scene.call("find").await.unwrap();
    scene.call("revocations").await.unwrap();
    locker.run("ROLLBACK").await;
    scene.works_in_the_end().await;
}

/// A network that swallows everything: the store gives the connection up, and makes another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_is_an_outage() {
    let (schema, proxy) = (schema(), Proxy::start().await);
    let builder = PostgresStore::builder(proxy.url()).schema(&schema);
    let store = builder
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_that_wait_for_a_frozen_server_are_bounded() {
    const CALLS: usize = 20_000;
    let (schema, proxy) = (schema(), Proxy::start().await);
    let limit = Duration::from_millis(300);
    let builder = PostgresStore::builder(proxy.url()).schema(&schema).connect_timeout(limit);
    let store = builder.statement_timeout(limit).connect().await.unwrap();
    let (grant, _) = put(&store).await.unwrap();
    proxy.set(Mode::Stalled).await;
    let found = join_all((0..CALLS).map(|_| store.find(grant.id, None))).await;
    let is_refused = |error: &StoreError| {
        let source = std::error::Error::source(error).unwrap().to_string();
        source.contains("too many lookups are waiting")
    };
    let refused = found.iter().filter(|found| is_refused(found.as_ref().unwrap_err())).count();
    assert!((1..CALLS / 2).contains(&refused), "{refused}");

    proxy.set(Mode::Works).await;
    let found = loop {
        match store.find(grant.id, None).await {
            Ok(found) => break found,
            Err(_) => yield_now().await,
        }
    };
    assert!(matches!(found, Lookup::Found(_)), "{found:?}");
}

/// Each statement is rolled back as the loser of a conflict, and sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_lost_a_conflict_is_sent_again() {
    let schema = schema();
    let store = PostgresStore::builder(&url()).schema(&schema).connect().await.unwrap();
    let scene = Scene::new(&store, 1).await;
    let stranger = stranger().await;
    // The first two updates of each row fail, in a sequence, which no rollback undoes.
    for (table, code) in [("grants", "40P01"), ("log_state", "40001")] {
        stranger
            .run(&format!(
                "CREATE SEQUENCE {schema}.{table}_tries; \
                 CREATE FUNCTION {schema}.{table}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ \
                 BEGIN \
                     IF nextval('{schema}.{table}_tries') <= 2 THEN \
                         RAISE EXCEPTION 'a conflict' USING ERRCODE = '{code}'; \
                     END IF; \
                     RETURN NEW; \
                 END $$; \
                 CREATE TRIGGER fail BEFORE UPDATE ON {schema}.{table} FOR EACH ROW \
                 EXECUTE FUNCTION {schema}.{table}_fail()"
            ))
            .await;
    }
    assert_eq!(store.advance(step(&scene.grant).0).await.unwrap(), AdvanceOutcome::Advanced);
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    for table in ["grants", "log_state"] {
        let tries = format!("SELECT last_value FROM {schema}.{table}_tries");
        assert_eq!(stranger.number(&tries).await, 3);
    }
}

/// One revocation that the server refuses takes no other with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_is_refused_takes_no_other_with_it() {
    let schema = schema();
    let store = PostgresStore::builder(&url()).schema(&schema).connect().await.unwrap();
    let stranger = stranger().await;
    stranger
        .run(&format!("ALTER TABLE {schema}.rules ADD CHECK (position('bad'::bytea in key) = 0)"))
        .await;
    let (admin, locker) = (crate::server::stranger().await, crate::server::stranger().await);
    locker.run(&format!("BEGIN; SELECT FROM {schema}.log_state FOR UPDATE")).await;
    // While the first one waits, the others gather.
    let revoking: Vec<_> = (0..30)
        .map(|number| {
            let name = if number % 7 == 3 { format!("bad {number}") } else { number.to_string() };
            let target = Target::Subject(Subject::user(name).unwrap());
            let store = store.clone();
            tokio::spawn(async move { store.revoke(revocation(target)).await })
        })
        .collect();
    crate::with_postgres::log::until_blocked(&schema).await;
    locker.run("COMMIT").await;
    for (number, revoking) in revoking.into_iter().enumerate() {
        let revoked = revoking.await.unwrap();
        if number % 7 == 3 {
            is_unavailable("revoke", revoked);
        } else {
            revoked.unwrap();
        }
    }
    let entries = format!("SELECT count(*) FROM {schema}.log");
    assert_eq!(admin.number(&entries).await, 26);
}

/// A standby takes no writes. It is refused at the start.
#[tokio::test]
async fn a_server_that_takes_no_writes_is_refused() {
    let schema = schema();
    let read_only = |url: &str| {
        let mark = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{mark}options=-c%20default_transaction_read_only%3Don");
        PostgresStore::builder(&url).schema(&schema)
    };
    for exists in [false, true] {
        if exists {
            builder().schema(&schema).migrate().await.unwrap();
        }
        for error in [
            read_only(&url()).connect().await.unwrap_err(),
            read_only(&url()).migrate().await.unwrap_err(),
        ] {
            assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
        }
    }
}

/// Another isolation level is set right on the store's connections, and refused behind a pooler.
#[tokio::test]
async fn another_isolation_level_is_not_used() {
    let mark = if url().contains('?') { '&' } else { '?' };
    let options = "options=-c%20default_transaction_isolation%3Dserializable";
    let url = format!("{}{mark}{options}", url());
    let open = || PostgresStore::builder(&url).schema(schema());
    open().connect().await.unwrap();
    let error = open().transaction_pooler(true).connect().await.unwrap_err();
    assert!(matches!(&error, ConnectError::Isolation { found } if found == "serializable"));
}

/// The primary becomes a standby while the store is open.
#[tokio::test]
async fn a_primary_that_becomes_read_only_is_an_outage_of_writes() {
    let schema = schema();
    let store = PostgresStore::builder(&url()).schema(&schema).connect().await.unwrap();
    let scene = Scene::new(&store, 1).await;
    let admin = stranger().await;
    let refuse = format!(
        "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN RAISE EXCEPTION 'read only' USING ERRCODE = '25006'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {schema}.grants \
         EXECUTE FUNCTION {schema}.refuse()"
    );
    admin.run(&refuse).await;
    for method in ["create", "advance", "revoke grant"] {
        is_unavailable(method, scene.call(method).await);
    }
    scene.call("find").await.unwrap();
    admin.run(&format!("DROP TRIGGER refuse ON {schema}.grants")).await;
    for method in METHODS {
        scene.call(method).await.unwrap();
    }
}

/// Nobody listens at the address, or somebody who is no database.
#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_with_its_source() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    let connect = |port: u16| {
        let url = format!("postgres://test@127.0.0.1:{port}/test");
        PostgresStore::builder(&url).connect_timeout(Duration::from_millis(50)).connect()
    };
    // It accepts, and says nothing.
    let error = connect(port).await.unwrap_err();
    assert!(matches!(error, ConnectError::Store(StoreError::Unavailable { .. })), "{error:?}");
    drop(nobody);
    let error = connect(port).await.unwrap_err();
    let ConnectError::Store(error) = error else { panic!("{error:?}") };
    is_unavailable::<()>("connect", Err(error));
}

/// Whatever a duration is set to: the store opens, or says why not.
#[tokio::test]
async fn no_duration_makes_a_store_panic() {
    for extreme in [Duration::from_secs(1 << 40), Duration::MAX, Duration::ZERO] {
        let builder = builder().statement_timeout(extreme).connect_timeout(extreme).poll(extreme);
        match builder.connect().await {
            Ok(store) => {
                let _ = store.heartbeat(NOW, NOW + DAY).await;
            }
            Err(error) => assert!(matches!(error, ConnectError::Store(_)), "{error:?}"),
        }
    }
}

/// A thousand calls on one or two connections: all of them are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_share_few_connections() {
    let schema = schema();
    let builder = PostgresStore::builder(&url()).schema(&schema).connections(1, 1);
    let store = builder.connect().await.unwrap();
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let (grant, token) = put(&store).await.unwrap();
                let found = store.find(grant.id, Some(token.digest)).await.unwrap();
                assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let used = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE query LIKE '%{schema}%' AND pid <> pg_backend_pid()"
    );
    assert!(stranger().await.number(&used).await <= 6);
}
