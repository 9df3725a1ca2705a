//! The revocation log: late commits, strangers, restores, and how readers are woken.

use std::time::Duration;

use cloakroom_core::revocation::{
    Cursor, EntryId, LogEntry, LogEvent, LogNotifications, RevocationBatch, Target,
};
use cloakroom_core::store::{TokenStore, TokenStoreExt as _};
use cloakroom_core::{GrantId, Random, Subject};
use cloakroom_postgres::PostgresStore;
use cloakroom_postgres::tokio_postgres::Config;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::task::yield_now;

use crate::proxy::Proxy;
use crate::server::{connect, schema, stranger, url, without_sslmode};
use crate::support::{DAY, NOW, grant, revocation};

async fn open(schema: &str) -> PostgresStore {
    PostgresStore::builder(&url()).schema(schema).connect().await.unwrap()
}

fn absent() -> Target {
    Target::Grant(GrantId::random(&Random::system()).unwrap())
}

/// The next entries, and where to read on.
async fn read(store: &dyn TokenStore, after: Cursor) -> (Vec<LogEntry>, Cursor) {
    match store.revocations(after, 1_000).await.unwrap() {
        RevocationBatch::Entries { entries, next, .. } => (entries, next),
        RevocationBatch::Gap => panic!("a gap"),
    }
}

async fn has_gap(store: &dyn TokenStore, after: Cursor) -> bool {
    matches!(store.revocations(after, 10).await.unwrap(), RevocationBatch::Gap)
}

fn targets(entries: &[LogEntry]) -> Vec<Target> {
    let target = |entry: &LogEntry| match &entry.event {
        LogEvent::Revoked { target, .. } => Some(target.clone()),
        _ => None,
    };
    entries.iter().filter_map(target).collect()
}

/// An append that commits late: its number is lower than those of all later ones, and no reader sees them
/// before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_skips_an_entry_that_commits_late() {
    let schema = schema();
    let store = open(&schema).await;
    let (before, later) = (absent(), absent());
    store.revoke(revocation(before.clone())).await.unwrap();
    let (first, cursor) = read(&store, Cursor::start()).await;
    assert_eq!(targets(&first), [before]);

    // By hand, what the statement of another node does, up to its commit.
    let late = stranger().await;
    let (id, target) = (EntryId::random(&Random::system()).unwrap(), absent());
    let event = revocation(target.clone()).event(None);
    let body = LogEntry { id, event, at: NOW, until: NOW + DAY }.to_body();
    late.run("BEGIN").await;
    let take = format!("UPDATE {schema}.log_state SET position = position + 1 RETURNING position");
    let position: i64 = late.query(&take, &[]).await[0].get(0);
    let insert =
        format!("INSERT INTO {schema}.log (position, until, id, body) VALUES ($1, $2, $3, $4)");
    let until = (NOW + DAY).as_millis().cast_signed();
    late.query(&insert, &[&position, &until, &id.as_bytes().as_slice(), &body]).await;

    // Others are not numbered before it is decided.
    let (other, revoked) = (store.clone(), later.clone());
    let waiting = tokio::spawn(async move { other.revoke(revocation(revoked)).await });
    until_blocked(&schema).await;
    assert_eq!(read(&store, cursor.clone()).await.0, []);
    assert!(!waiting.is_finished());
    late.run("COMMIT").await;
    waiting.await.unwrap().unwrap();
    let (entries, _) = read(&store, cursor).await;
    assert_eq!(targets(&entries), [target, later]);
}

/// Until a statement on the tables of this schema waits for a lock.
pub(crate) async fn until_blocked(schema: &str) {
    let stranger = stranger().await;
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND query LIKE '%{schema}%' AND pid <> pg_backend_pid()"
    );
    while stranger.number(&waits).await == 0 {
        yield_now().await;
    }
}

/// A transaction that somebody left open in another database of the same server holds nothing up.
#[tokio::test]
async fn a_strangers_open_transaction_stalls_nothing() {
    let schema = schema();
    let store = open(&schema).await;
    let mut config: Config = without_sslmode(&url()).parse().unwrap();
    let other = connect(config.dbname("template1")).await;
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()").await;
    // And one in this database.
    let same = stranger().await;
    same.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()").await;
    let mut cursor = Cursor::start();
    for _ in 0..20 {
        let target = absent();
        store.revoke(revocation(target.clone())).await.unwrap();
        let (entries, next) = read(&store, cursor).await;
        assert_eq!(targets(&entries), [target]);
        cursor = next;
    }
    other.run("ROLLBACK").await;
    same.run("ROLLBACK").await;
}

/// Many nodes append at once. Each reader sees all of it once, in one order, with bounds that grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_readers_see_the_appends_of_all_nodes_in_one_order() {
    let schema = schema();
    let (one, other) = (open(&schema).await, open(&schema).await);
    let user = |node: usize, number: usize| {
        Target::Subject(Subject::user(format!("user {node} {number}")).unwrap())
    };
    let writers = [&one, &other].into_iter().enumerate().flat_map(|(node, store)| {
        (0..200).map(move |number| {
            let (store, target) = (store.clone(), user(node, number));
            tokio::spawn(async move { store.revoke(revocation(target)).await.unwrap() })
        })
    });
    let writers = join_all(writers.collect::<Vec<_>>());
    let reader = |store: PostgresStore| async move {
        let (mut seen, mut cursor) = (Vec::new(), Cursor::start());
        while seen.len() < 400 {
            let (entries, next) = read(&store, cursor).await;
            seen.extend(entries);
            cursor = next;
            yield_now().await;
        }
        seen
    };
    let readers =
        [one.clone(), other.clone(), open(&schema).await].map(|store| tokio::spawn(reader(store)));
    for written in writers.await {
        let _ = written.unwrap();
    }
    let mut logs = Vec::new();
    for reader in readers {
        logs.push(reader.await.unwrap());
    }
    assert!(logs.iter().all(|log| *log == logs[0]));
    let bounds: Vec<_> = logs[0]
        .iter()
        .map(|entry| match entry.event {
            LogEvent::Revoked { bound: Some(bound), .. } => bound,
            _ => panic!("{entry:?}"),
        })
        .collect();
    assert!(bounds.is_sorted_by(|one, other| one < other));
    assert!(one.epoch().await.unwrap() > *bounds.last().unwrap());
}

/// A dump from before the last entries is restored.
#[tokio::test]
async fn a_log_that_went_back_is_a_gap() {
    let schema = schema();
    let store = open(&schema).await;
    store.revoke(revocation(absent())).await.unwrap();
    let stranger = stranger().await;
    let copy = format!(
        "CREATE TABLE {schema}.old_log AS TABLE {schema}.log; \
         CREATE TABLE {schema}.old_state AS TABLE {schema}.log_state"
    );
    stranger.run(&copy).await;
    let old = read(&store, Cursor::start()).await.1;
    store.revoke(revocation(absent())).await.unwrap();
    let new = read(&store, old.clone()).await.1;
    stranger
        .run(&format!(
            "BEGIN; TRUNCATE {schema}.log, {schema}.log_state; \
             INSERT INTO {schema}.log TABLE {schema}.old_log; \
             INSERT INTO {schema}.log_state TABLE {schema}.old_state; COMMIT"
        ))
        .await;
    // Who had read the lost entry notices, and who had not reads on.
    assert!(has_gap(&store, new.clone()).await);
    assert_eq!(read(&store, old.clone()).await.0, []);
    // Another entry takes the place of the lost one.
    let target = absent();
    store.revoke(revocation(target.clone())).await.unwrap();
    assert!(has_gap(&store, new).await);
    assert_eq!(targets(&read(&store, old).await.0), [target]);
}

/// A restored database allots no bound that replicas know: a heartbeat and an open raise the newest bound.
#[tokio::test]
async fn what_is_granted_after_a_restore_is_newer_than_what_was_revoked_since() {
    use cloakroom_core::revocation::Epoch;
    use std::sync::Arc;

    let schema = schema();
    let clock = Arc::new(cloakroom_core::time::ManualClock::at(NOW));
    let open = async || {
        let builder = PostgresStore::builder(&url()).schema(&schema).clock(clock.clone());
        builder.connect().await.unwrap()
    };
    let store = open().await;
    clock.advance(DAY);
    let mut logout = revocation(Target::Subject(Subject::user("alice").unwrap()));
    logout.at = NOW + DAY;
    store.revoke(logout).await.unwrap();
    let known = store.epoch().await.unwrap();
    let back = format!("UPDATE {schema}.log_state SET newest_bound = 7");
    let stranger = stranger().await;
    clock.advance(Duration::from_secs(1));
    let now = NOW + DAY + Duration::from_secs(1);
    for reopens in [true, false] {
        stranger.run(&back).await;
        if reopens {
            open().await;
        } else {
            store.heartbeat(now, now + DAY).await.unwrap();
        }
        let rules = store.rules(Vec::new()).await.unwrap();
        assert_eq!(rules.newest_bound, Epoch::new(now.as_millis()), "{reopens}");
        assert!(store.epoch().await.unwrap() > known);
    }
}

async fn woken(store: &PostgresStore) -> impl futures_util::Stream<Item = ()> + use<> {
    let LogNotifications::Stream(stream) = store.wakeups() else { panic!("there is a stream") };
    stream
}

/// A reader is woken by what another node wrote, long before it would have looked by itself.
#[tokio::test]
async fn readers_are_woken_by_other_nodes() {
    let schema = schema();
    let hour = Duration::from_secs(3600);
    let deaf = PostgresStore::builder(&url()).schema(&schema).poll(hour).connect().await.unwrap();
    let other = open(&schema).await;
    let mut wakeups = Box::pin(woken(&deaf).await);
    wakeups.next().await.unwrap();
    let mut cursor = Cursor::start();
    for _ in 0..10 {
        let target = absent();
        other.revoke(revocation(target.clone())).await.unwrap();
        // Until it is there: the connection may have begun to listen meanwhile.
        loop {
            wakeups.next().await.unwrap();
            let (entries, next) = read(&deaf, cursor.clone()).await;
            cursor = next;
            if !entries.is_empty() {
                assert_eq!(targets(&entries), [target]);
                break;
            }
        }
    }
}

/// The connection that listens is cut, and what was written meanwhile wakes all the same.
#[tokio::test]
async fn readers_are_woken_after_the_connection_broke() {
    let schema = schema();
    let proxy = Proxy::start().await;
    let hour = Duration::from_secs(3600);
    let cut = PostgresStore::builder(proxy.url()).schema(&schema).poll(hour);
    let cut = cut.connect().await.unwrap();
    let other = open(&schema).await;
    let mut wakeups = Box::pin(woken(&cut).await);
    let mut cursor = Cursor::start();
    for _ in 0..5 {
        proxy.cut().await;
        let target = absent();
        other.revoke(revocation(target.clone())).await.unwrap();
        loop {
            wakeups.next().await.unwrap();
            let (entries, next) = read(&cut, cursor.clone()).await;
            cursor = next;
            if !entries.is_empty() {
                assert_eq!(targets(&entries), [target]);
                break;
            }
        }
    }
}

/// Where nobody can listen, the head of the log is read.
#[tokio::test]
async fn behind_a_pooler_readers_poll() {
    let schema = schema();
    let builder = PostgresStore::builder(&url()).schema(&schema).transaction_pooler(true);
    let polling = builder.poll(Duration::from_millis(1)).connect().await.unwrap();
    let other = open(&schema).await;
    let mut wakeups = Box::pin(woken(&polling).await);
    let target = absent();
    other.revoke(revocation(target.clone())).await.unwrap();
    loop {
        wakeups.next().await.unwrap();
        let (entries, _) = read(&polling, Cursor::start()).await;
        if !entries.is_empty() {
            assert_eq!(targets(&entries), [target]);
            break;
        }
    }
}

/// A stream ends with its store, and does not keep it alive.
#[tokio::test]
async fn a_stream_ends_with_its_store() {
    let store = open(&schema()).await;
    let grant = grant(&store, "alice", "app").await;
    let _ = store.create(grant, vec![]).await.unwrap();
    let mut wakeups = Box::pin(woken(&store).await);
    wakeups.next().await.unwrap();
    drop(store);
    while wakeups.next().await.is_some() {}
}
