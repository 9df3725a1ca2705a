//! Servers that are full, busy, emptied, killed or refused.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::revocation::{
    Cursor, Epoch, LogNotifications, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::{
    CheckValues as _, CreateOutcome, Housekeeping, Lookup, RevokeOutcome, StoreError,
    TokenStore as _, TokenStoreExt as _,
};
use cloakroom_core::time::{Clock as _, SystemClock, UnixTime};
use cloakroom_core::{GrantId, Subject};
use cloakroom_redis::redis::{Client, cmd};
use cloakroom_redis::{OpenError, RedisStore};
use futures_util::StreamExt as _;

use crate::free_port::free_port;
use crate::server::Server;
use crate::support::{DAY, NOW, ask, connection, grant, prefix, revocation, token, url};
use crate::with_redis::kit::{open, path};

async fn entries(store: &RedisStore, after: Cursor) -> Option<(usize, Cursor)> {
    match store.revocations(after, 1_000).await.unwrap() {
        RevocationBatch::Entries { entries, next, .. } => Some((entries.len(), next)),
        RevocationBatch::Gap => None,
    }
}

#[tokio::test]
async fn a_server_that_comes_back_empty_brings_no_token_back() {
    let mut server = Server::start(&[]);
    let store = open(&server.url(), "a").await;
    let now = SystemClock::new().now();
    let record = grant(&store, "alice", "app").await;
    let held = token(&record);
    assert_eq!(
        store.create(record.clone(), vec![held.clone()]).await.unwrap(),
        CreateOutcome::Inserted
    );
    let until = now + DAY;
    store.revoke(Revocation::new(Target::Grant(record.id), now, until)).await.unwrap();
    let target = Target::Subject(Subject::user("bob").unwrap());
    store.revoke(Revocation::new(target, now, until)).await.unwrap();
    let (count, read) = entries(&store, Cursor::start()).await.unwrap();
    let (_, early) = match store.revocations(Cursor::start(), 1).await.unwrap() {
        RevocationBatch::Entries { entries, next, .. } => (entries, next),
        RevocationBatch::Gap => panic!("a gap"),
    };
    assert_eq!(count, 2);
    let before = store.epoch().await.unwrap();

    server.kill();
    assert!(store.find(record.id, None).await.unwrap_err().is_retryable());
    server.resume();
    let lookup = store.find(record.id, Some(held.digest)).await.unwrap();
    assert_eq!(lookup, Lookup::Absent);
    for cursor in [read, early] {
        assert_eq!(entries(&store, cursor).await, None, "the reader sees no gap");
    }
    let (count, _) = entries(&store, Cursor::start()).await.unwrap();
    assert_eq!(count, 0);
    // No login of after has an epoch that a replica knows a bound for.
    assert!(store.epoch().await.unwrap() >= before, "the newest bound went back");
}

#[tokio::test]
async fn a_log_that_lost_its_state_or_its_entries_is_another_one() {
    for lost in ["state", "log"] {
        let (url, prefix) = (url(), prefix());
        let store = open(&url, &prefix).await;
        let far = NOW + 9_000 * DAY;
        store.heartbeat(far, far + DAY).await.unwrap();
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        let (_, cursor) = entries(&store, Cursor::start()).await.unwrap();
        ask::<i64>(&url, cmd("DEL").arg(format!("{{{prefix}}}:{lost}"))).await;
        assert_eq!(entries(&store, cursor.clone()).await, None, "{lost}");
        // As many entries as before do not hide it.
        for _ in 0..3 {
            store.heartbeat(NOW, NOW + DAY).await.unwrap();
        }
        assert_eq!(entries(&store, cursor).await, None, "{lost}");
        assert_eq!(entries(&store, Cursor::start()).await.unwrap().0, 3, "{lost}");
        if lost == "log" {
            let newest = Epoch::new(far.as_millis());
            assert!(store.epoch().await.unwrap() > newest, "the newest bound went back");
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_if_the_server_writes_it_to_disk_first() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(&server.url(), "a").await;
    let (mut revoked, mut cursor, mut count) = (Vec::new(), Cursor::start(), 0);
    for _ in 0..5 {
        for _ in 0..20 {
            let record = grant(&store, "alice", "app").await;
            let created = store.create(record.clone(), vec![token(&record)]).await.unwrap();
            assert_eq!(created, CreateOutcome::Inserted);
            store.revoke(revocation(Target::Grant(record.id))).await.unwrap();
            revoked.push(record.id);
        }
        server.kill();
        server.resume();
        while store.find(revoked[0], None).await.is_err() {
            tokio::task::yield_now().await;
        }
        let (read, next) = entries(&store, cursor).await.expect("the log goes on");
        (cursor, count) = (next, count + read);
    }
    assert_eq!(count, revoked.len());
    for id in revoked {
        let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("{id:?}") };
        assert!(found.grant.revoked_at.is_some());
    }
}

/// A snapshot from before a revocation: readers that knew more see a gap.
#[tokio::test]
async fn a_server_that_comes_back_older_is_noticed() {
    let mut server = Server::start(&["--appendonly", "no", "--dbfilename", "snapshot"]);
    let store = open(&server.url(), "a").await;
    let record = grant(&store, "alice", "app").await;
    let _ = store.create(record.clone(), vec![]).await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    let (_, old) = entries(&store, Cursor::start()).await.unwrap();
    ask::<()>(&server.url(), &cmd("SAVE")).await;
    store.revoke(revocation(Target::Grant(record.id))).await.unwrap();
    let (_, new) = entries(&store, Cursor::start()).await.unwrap();
    server.kill();
    server.resume();
    while store.find(record.id, None).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(entries(&store, new.clone()).await, None);
    assert!(entries(&store, old).await.is_some());
    // Another entry takes the place of the one that was lost.
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    assert_eq!(entries(&store, new).await, None);
}

#[tokio::test]
async fn a_full_server_says_so_and_still_revokes() {
    let server = Server::start(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let store = open(&server.url(), "a").await;
    let mut held = Vec::new();
    let error = loop {
        let mut record = grant(&store, "alice", "app").await;
        record.username = Some("x".repeat(200).into());
        let mut tokens = Vec::new();
        tokens.resize_with(40, || token(&record));
        match store.create(record.clone(), tokens).await {
            Ok(created) => assert_eq!(created, CreateOutcome::Inserted),
            Err(error) => break error,
        }
        held.push(record);
        assert!(held.len() < 10_000, "the server is never full");
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let why = error.source().unwrap().to_string();
    assert!(why.contains("maxmemory"), "{why}");
    let first = &held[0];
    assert!(matches!(store.find(first.id, None).await.unwrap(), Lookup::Found(_)));
    let revoked = store.revoke(revocation(Target::Grant(first.id))).await.unwrap();
    assert_eq!(revoked, RevokeOutcome::Done);
    let Lookup::Found(found) = store.find(first.id, None).await.unwrap() else { panic!("gone") };
    assert!(found.grant.revoked_at.is_some());
    let everywhere = revocation(Target::Subject(first.subject.clone()));
    assert_eq!(store.revoke(everywhere).await.unwrap(), RevokeOutcome::Done);
    for record in &held {
        let Lookup::Found(found) = store.find(record.id, None).await.unwrap() else {
            panic!("gone")
        };
        assert!(found.grant.revoked_at.is_some());
    }
    let end = NOW + 9 * DAY;
    let task = Housekeeping { now: end, before: end, limit: 100_000, sweep: None };
    while store.maintain(task).await.unwrap().more {}
    let record = grant(&store, "alice", "app").await;
    assert_eq!(store.create(record, vec![]).await.unwrap(), CreateOutcome::Inserted);
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = Server::start(&["--maxmemory", "50mb", "--maxmemory-policy", policy]);
        let error = RedisStore::connect(&server.url()).await.unwrap_err();
        assert!(matches!(&error, OpenError::Evicts { policy: is } if is == policy), "{error}");
        RedisStore::builder(&server.url()).allow_eviction().connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Server::start(&[]);
    let of = format!("127.0.0.1 {}", master.port());
    let replica = Server::start(&["--replicaof", &of]);
    let error = RedisStore::connect(&replica.url()).await.unwrap_err();
    assert!(matches!(error, OpenError::Replica), "{error}");
}

#[tokio::test]
async fn a_server_out_of_reach_is_an_error_at_once() {
    let port = free_port();
    let error = RedisStore::connect(&format!("redis://127.0.0.1:{port}")).await.unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::Unavailable { .. })), "{error}");
    // One that accepts and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("redis://{}", listener.local_addr().unwrap());
    let timeout = Duration::from_millis(20);
    let error = RedisStore::builder(&silent).connect_timeout(timeout).connect().await.unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::Unavailable { .. })), "{error}");
}

/// A script of somebody else blocks the server.
#[tokio::test]
async fn a_busy_server_is_an_outage_until_its_script_is_killed() {
    let server = Server::start(&["--busy-reply-threshold", "50"]);
    let store = RedisStore::builder(&server.url())
        .response_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    let record = grant(&store, "alice", "app").await;
    assert_eq!(store.create(record.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let mut busy = connection(&server.url()).await;
    let endless = tokio::spawn(async move {
        let script = cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut busy).await;
        script.unwrap_err().to_string()
    });
    let error = loop {
        match store.find(record.id, None).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error:?}");
    assert!(store.revoke(revocation(Target::Grant(record.id))).await.unwrap_err().is_retryable());
    // `SCRIPT KILL` is all that such a server does, once it says that it is busy.
    let mut admin = connection(&server.url()).await;
    while cmd("SCRIPT").arg("KILL").query_async::<()>(&mut admin).await.is_err() {
        tokio::task::yield_now().await;
    }
    let killed = endless.await.unwrap();
    assert!(killed.contains("killed"), "{killed}");
    while store.find(record.id, None).await.is_err() {
        tokio::task::yield_now().await;
    }
    store.revoke(revocation(Target::Grant(record.id))).await.unwrap();
}

#[tokio::test]
async fn connections_that_the_server_kills_are_replaced() {
    let server = Server::start(&[]);
    let store = open(&server.url(), "a").await;
    let LogNotifications::Stream(mut woken) = store.wakeups() else { panic!("there is a stream") };
    woken.next().await.unwrap();
    let mut admin = connection(&server.url()).await;
    for _ in 0..20 {
        let mut kill = cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("NORMAL").arg("SKIPME").arg("YES");
        let _: i64 = kill.query_async(&mut admin).await.unwrap();
        let record = grant(&store, "alice", "app").await;
        assert_eq!(store.create(record, vec![]).await.unwrap(), CreateOutcome::Inserted);
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        // Readers hear of it over a connection that was killed as well.
        woken.next().await.unwrap();
    }
}

/// Many apps on one server, each with a user that may touch its keys alone.
#[tokio::test]
async fn a_user_who_may_touch_its_own_keys_alone_suffices() {
    let server = Server::start(&[]);
    for app in ["one", "two"] {
        let mut user = cmd("ACL");
        user.arg("SETUSER").arg(app).arg("on").arg(">hunter2").arg(format!("~{{{app}*"));
        user.arg("+@all").arg("-@dangerous").arg("-@admin");
        ask::<()>(&server.url(), &user).await;
    }
    let mut stores = Vec::new();
    for app in ["one", "two"] {
        let builder = RedisStore::builder(&server.url()).login(app, "hunter2").prefix(app);
        assert!(!format!("{builder:?}").contains("hunter2"));
        stores.push(builder.connect().await.unwrap());
    }
    for store in &stores {
        let record = grant(store, "alice", "app").await;
        let held = token(&record);
        let _ = store.create(record.clone(), vec![held]).await.unwrap();
        store.revoke(revocation(Target::Subject(record.subject.clone()))).await.unwrap();
        let task = Housekeeping { now: NOW, before: NOW, limit: 10, sweep: None };
        store.maintain(task).await.unwrap();
        assert_eq!(entries(store, Cursor::start()).await.unwrap().0, 1);
    }
    let foreign = RedisStore::builder(&server.url()).login("one", "hunter2").prefix("two");
    let error = foreign.connect().await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"));
}

/// Over the app's own connections.
#[tokio::test]
async fn a_connection_of_the_app_serves() {
    let (url, now) = (url(), UnixTime::from_millis(1));
    let client = Client::open(&url[..]).unwrap();
    let prefix = prefix();
    let manager = client.get_connection_manager().await.unwrap();
    let question = if url.contains('?') { "&" } else { "?" };
    let slash = if path(&url).is_empty() { "/" } else { "" };
    let client = Client::open(format!("{url}{slash}{question}protocol=resp3")).unwrap();
    let multiplexed = client.get_multiplexed_async_connection().await.unwrap();
    let stores = [
        RedisStore::over(manager).prefix(&prefix).connect().await.unwrap(),
        RedisStore::over(multiplexed).prefix(&prefix).connect().await.unwrap(),
    ];
    let record = grant(&stores[0], "alice", "app").await;
    let _ = stores[0].create(record.clone(), vec![]).await.unwrap();
    assert!(matches!(stores[1].find(record.id, None).await.unwrap(), Lookup::Found(_)));
    for store in &stores {
        assert!(matches!(store.wakeups(), LogNotifications::Poll(_)));
        store.heartbeat(now, NOW).await.unwrap();
        assert!(store.set_check_value("issuer", None, Some(b"one")).await.unwrap());
        assert_eq!(store.check_values().await.unwrap().len(), 1);
        store.revoke(revocation(Target::Subject(record.subject.clone()))).await.unwrap();
        let task = Housekeeping { now: NOW, before: NOW, limit: 10, sweep: None };
        store.maintain(task).await.unwrap();
    }
    for store in &stores {
        assert_eq!(entries(store, Cursor::start()).await.unwrap().0, 4);
    }
}

#[tokio::test]
async fn a_prefix_is_checked() {
    for bad in ["", "a{b", "}", &"x".repeat(65)] {
        let error = RedisStore::builder(&url()).prefix(bad).connect().await.unwrap_err();
        assert!(matches!(error, OpenError::Prefix), "{bad}");
    }
}

/// A revocation whose process died after each of its commands is finished by another node.
#[tokio::test]
async fn a_dropped_revocation_is_finished_by_housekeeping() {
    let (url, prefix) = (url(), prefix());
    let store = Arc::new(open(&url, &prefix).await);
    let mut ids: Vec<GrantId> = Vec::new();
    for _ in 0..300 {
        let record = grant(&*store, "alice", "app").await;
        ids.push(record.id);
        let _ = store.create(record, vec![]).await.unwrap();
    }
    let of_app = Target::Client(cloakroom_core::ClientId::new("app").unwrap());
    let mut sweep = Box::pin(store.revoke(revocation(of_app)));
    // Until its entry is there; its sweep has hardly begun.
    while entries(&store, Cursor::start()).await.unwrap().0 == 0 {
        assert!(futures_util::poll!(&mut sweep).is_pending());
    }
    drop(sweep);
    let other = open(&url, &prefix).await;
    let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 100, sweep: None };
    while other.maintain(task).await.unwrap().more {}
    for id in ids {
        let Lookup::Found(found) = other.find(id, None).await.unwrap() else { panic!("gone") };
        assert!(found.grant.revoked_at.is_some());
    }
}
