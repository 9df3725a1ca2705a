//! What asynchronous replication loses: it is noticed, and nothing that a store can know comes back to life.

use std::collections::HashMap;

use cloakroom_core::revocation::{Cursor, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{CreateOutcome, Housekeeping, Lookup, Selector, TokenStore as _};
use cloakroom_core::store::{PageRequest, TokenStoreExt as _};
use cloakroom_redis::RedisStore;
use cloakroom_redis::redis::aio::MultiplexedConnection;
use cloakroom_redis::redis::cmd;

use crate::proxy::{Mode, Proxy};
use crate::support::{DAY, NOW, connection, grant, keys, prefix, revocation, step, token, url};
use crate::topology::Pair;
use crate::with_redis::kit::open;

/// The keys of all buckets, as they are now.
async fn snapshot(url: &str, prefix: &str) -> HashMap<Vec<u8>, (Vec<u8>, i64)> {
    let mut connection = connection(url).await;
    let mut snapshot = HashMap::new();
    for key in keys(url, prefix).await {
        if key.starts_with(format!("{{{prefix}.").as_bytes()) {
            let value = cmd("DUMP").arg(&key[..]).query_async(&mut connection).await.unwrap();
            let ends = cmd("PEXPIRETIME").arg(&key[..]).query_async(&mut connection).await.unwrap();
            snapshot.insert(key, (value, ends));
        }
    }
    snapshot
}

/// The buckets are as they were, as after the fail-over of a shard that lost its last second. The log, which
/// is on another shard, has lost nothing.
async fn lose(url: &str, prefix: &str, to: &HashMap<Vec<u8>, (Vec<u8>, i64)>) {
    let mut connection = connection(url).await;
    for key in keys(url, prefix).await {
        if key.starts_with(format!("{{{prefix}.").as_bytes()) {
            cmd("DEL").arg(key).query_async::<i64>(&mut connection).await.unwrap();
        }
    }
    for (key, (value, ends)) in to {
        let mut restore = cmd("RESTORE");
        restore.arg(&key[..]).arg(ends).arg(&value[..]).arg("ABSTTL");
        restore.query_async::<()>(&mut connection).await.unwrap();
    }
}

/// A minute passes for the records of work that are closed.
async fn a_minute_passes(connection: &mut MultiplexedConnection, prefix: &str) {
    let key = format!("{{{prefix}}}:work-order");
    let closed: Vec<Vec<u8>> = cmd("ZRANGE")
        .arg(&key)
        .arg("(0")
        .arg("+inf")
        .arg("BYSCORE")
        .query_async(connection)
        .await
        .unwrap();
    assert!(!closed.is_empty());
    for id in closed {
        cmd("ZADD").arg(&key).arg(1).arg(id).query_async::<i64>(connection).await.unwrap();
    }
}

async fn is_revoked(store: &RedisStore, id: cloakroom_core::GrantId) -> bool {
    match store.find(id, None).await.unwrap() {
        Lookup::Found(found) => found.grant.revoked_at.is_some(),
        Lookup::Tombstone => true,
        Lookup::Absent => panic!("{id:?} is gone"),
    }
}

#[tokio::test]
async fn a_shard_that_lost_a_revocation_gets_it_again() {
    for target in [
        (|grant| Target::Grant(grant.id)) as fn(&cloakroom_core::record::GrantRecord) -> Target,
        |grant| Target::Subject(grant.subject.clone()),
        |grant| Target::Client(grant.client.clone()),
        |grant| Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
    ] {
        let (url, prefix) = (url(), prefix());
        let store = open(&url, &prefix).await;
        let mut grants = Vec::new();
        for _ in 0..10 {
            let record = grant(&store, "alice", "app").await;
            let held = token(&record);
            let created = store.create(record.clone(), vec![held]).await.unwrap();
            assert_eq!(created, CreateOutcome::Inserted);
            grants.push(record);
        }
        let revoked: Vec<_> = match target(&grants[0]) {
            Target::Grant(_) => vec![grants[0].clone()],
            _ => grants.clone(),
        };
        let before = snapshot(&url, &prefix).await;
        store.revoke(revocation(target(&grants[0]))).await.unwrap();
        let login = grant(&store, "alice", "app").await;
        let _ = store.create(login.clone(), vec![]).await.unwrap();
        let mut with_login = before.clone();
        with_login.extend(
            snapshot(&url, &prefix)
                .await
                .into_iter()
                .filter(|(key, _)| key.ends_with(login.id.as_bytes())),
        );
        lose(&url, &prefix, &with_login).await;
        assert!(!is_revoked(&store, revoked[0].id).await);
        // The rules and the log know. An AS applies them to each lookup.
        if let Some(key) = target(&grants[0]).rule_key() {
            let rules = store.rules(vec![key]).await.unwrap().rules;
            assert!(revoked.iter().all(|grant| rules[0].denies(grant.epoch)));
            let of = Selector::Subject(grants[0].subject.clone());
            let page = PageRequest { after: None, limit: 100 };
            assert!(store.list(of, page, NOW).await.unwrap().grants.is_empty());
        }

        let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 100, sweep: None };
        store.maintain(task).await.unwrap();
        assert!(!is_revoked(&store, revoked[0].id).await, "a minute has not passed");
        a_minute_passes(&mut connection(&url).await, &prefix).await;
        while store.maintain(task).await.unwrap().more {}
        for grant in &revoked {
            assert!(is_revoked(&store, grant.id).await);
        }
        assert!(!is_revoked(&store, login.id).await, "the login after the revocation");
        // It is done twice, and not for ever.
        let key = format!("{{{prefix}}}:work");
        let left: i64 =
            cmd("EXISTS").arg(key).query_async(&mut connection(&url).await).await.unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lagged_is_noticed_by_all_who_knew_more() {
    let mut pair = Pair::start().await;
    let front = Proxy::start(pair.master.address()).await;
    let store = open(&format!("redis://127.0.0.1:{}", front.port()), "a").await;
    let kept = grant(&store, "alice", "app").await;
    let held = token(&kept);
    let _ = store.create(kept.clone(), vec![held.clone()]).await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    let cursor = |batch| match batch {
        RevocationBatch::Entries { next, .. } => Some(next),
        RevocationBatch::Gap => None,
    };
    let behind = cursor(store.revocations(Cursor::start(), 10).await.unwrap()).unwrap();
    pair.catch_up().await;

    // The replica gets nothing of this.
    pair.link.set(Mode::After(0));
    let (advance, next) = step(&kept);
    let _ = store.advance(advance).await.unwrap();
    store.revoke(revocation(Target::Grant(kept.id))).await.unwrap();
    let everywhere = Target::Subject(cloakroom_core::Subject::user("bob").unwrap());
    store.revoke(revocation(everywhere.clone())).await.unwrap();
    let late = grant(&store, "carol", "app").await;
    let _ = store.create(late.clone(), vec![]).await.unwrap();
    let ahead = cursor(store.revocations(Cursor::start(), 10).await.unwrap()).unwrap();
    let newest = store.epoch().await.unwrap();

    pair.fail_over();
    front.lead_to(pair.replica.address());
    while store.find(kept.id, None).await.is_err() {
        tokio::task::yield_now().await;
    }
    // What is lost: the revocations, the step, and the login. `docs/redis.md` says so.
    let Lookup::Found(found) = store.find(kept.id, Some(held.digest)).await.unwrap() else {
        panic!("gone")
    };
    assert_eq!(found.grant.revoked_at, None);
    assert_eq!(store.find(late.id, None).await.unwrap(), Lookup::Absent);
    let key = everywhere.rule_key().unwrap();
    let rules = store.rules(vec![key, RuleKey::Client(kept.client.clone())]).await.unwrap();
    assert!(rules.rules.is_empty());
    // The client's next refresh token is newer than the row: the engine sees a store that went back.
    let generation = found.grant.chain.as_ref().unwrap().generation;
    assert!(next.chain.as_ref().unwrap().generation > generation);
    // A reader that knew the revocations sees a gap, and one that did not goes on.
    assert_eq!(cursor(store.revocations(ahead.clone(), 10).await.unwrap()), None);
    assert!(cursor(store.revocations(behind, 10).await.unwrap()).is_some());
    // Nodes that knew revoke again, and heartbeats raise the newest bound above those that replicas know.
    for _ in 0..4 {
        store.revoke(revocation(Target::Grant(kept.id))).await.unwrap();
    }
    assert_eq!(cursor(store.revocations(ahead, 10).await.unwrap()), None);
    assert!(is_revoked(&store, kept.id).await);
    let now = cloakroom_core::time::UnixTime::from_millis(newest.get());
    store.heartbeat(now, now + DAY).await.unwrap();
    assert!(store.epoch().await.unwrap() >= newest);
}

/// With `min-replicas-to-write`, a master that its replicas do not follow acknowledges nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_its_replica_refuses_to_write_if_it_is_told_to() {
    let pair = Pair::start().await;
    let store = open(&pair.master.url(), "a").await;
    let record = grant(&store, "alice", "app").await;
    let _ = store.create(record.clone(), vec![]).await.unwrap();
    for (name, value) in [("min-replicas-max-lag", "1"), ("min-replicas-to-write", "1")] {
        assert_eq!(pair.master.says(&["CONFIG", "SET", name, value]).trim(), "OK");
    }
    pair.link.set(Mode::After(0));
    let error = loop {
        match store.heartbeat(NOW, NOW + DAY).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error:?}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("replicas"), "{why}");
    assert!(store.revoke(revocation(Target::Grant(record.id))).await.unwrap_err().is_retryable());
    assert!(!is_revoked(&store, record.id).await);
}
