use cloakroom_core::keys::schedule::Signing;
use cloakroom_core::keys::{KeyPolicy, KeyStore as _, schedule};
use cloakroom_core::time::{Clock as _, ManualClock};

use super::*;
use crate::test_support::*;
use crate::{KeyEvent, KeyManager};

fn regressed(events: &[KeyEvent]) -> Vec<&Kid> {
    let mut kids = Vec::new();
    for event in events {
        if let KeyEvent::Regressed { kid } = event {
            kids.push(kid);
        }
    }
    kids
}

/// Lets the ring be loaded anew, by a request.
async fn reload(manager: &KeyManager, clock: &ManualClock) {
    clock.advance(secs(61));
    manager.refresh().await.unwrap();
}

async fn is_published(manager: &KeyManager, kid: &Kid) -> bool {
    kids(&manager.jwks().await.unwrap()).contains(kid)
}

fn is_known(manager: &KeyManager, kid: &Kid) -> bool {
    manager.keys().unwrap().contains(kid)
}

#[tokio::test]
async fn a_compromised_key_stays_so_in_a_store_that_forgot_it() {
    let (store, clock) = (RingStore::new(), clock());
    let (manager, other) = (manager(&store, &clock).await, manager(&store, &clock).await);
    clock.advance(secs(61));
    let (bad, copy) = (signer(&manager).await, store.copy());
    let _ = manager.compromise(&bad).await.unwrap();
    manager.maintain().await.unwrap();

    store.restore(copy);
    for _ in 0..3 {
        reload(&manager, &clock).await;
        assert_ne!(signer(&manager).await, bad);
        assert!(!is_published(&manager, &bad).await);
        assert!(!is_known(&manager, &bad));
    }
    let events = manager.maintain().await.unwrap();
    assert!(regressed(&events).contains(&&bad), "{events:?}");
    // The store knows again, and so does everybody else.
    let stored = store.records().into_iter().find(|record| record.kid == bad).unwrap();
    assert!(stored.compromised_at.is_some());
    reload(&other, &clock).await;
    assert_ne!(signer(&other).await, bad);
    assert_eq!(regressed(&manager.maintain().await.unwrap()).len(), 0, "told once");
}

#[tokio::test]
async fn a_mark_that_is_only_heard_of_counts_at_once_and_is_written() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let bad = signer(&manager).await;
    manager.note_compromised(&bad, clock.now()).unwrap();
    assert_ne!(signer(&manager).await, bad);
    assert!(!is_published(&manager, &bad).await);
    let events = manager.maintain().await.unwrap();
    assert_eq!(regressed(&events).len(), 0, "nothing was forgotten");
    assert!(store.records().iter().any(|own| own.kid == bad && own.compromised_at.is_some()));
}

#[tokio::test]
async fn a_key_that_has_ended_does_not_sign_again() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let (first, copy) = (signer(&manager).await, store.copy());
    manager.rotate().await.unwrap();
    clock.advance(secs(10));
    store.restore(copy.clone());
    reload(&manager, &clock).await;
    assert_ne!(signer(&manager).await, first);
    manager.maintain().await.unwrap();
    let ring = store.records();
    let signs = schedule::signer(&ring, schedule::MAIN_RING, clock.now()).unwrap();
    assert_ne!(signs.kid, first, "in the store as well");

    // Nor if its record was deleted long ago, and a fresh node has given the copy newer versions.
    for _ in 0..(40 * 24) {
        clock.advance(secs(3600));
        manager.maintain().await.unwrap();
    }
    assert!(store.records().iter().all(|record| record.kid != first));
    let mut copy = copy;
    let end = copy.0.iter_mut().find(|record| record.kid == first).unwrap();
    end.version += 9;
    let signing = end.times.signing.as_mut().unwrap();
    signing.until = clock.now() + secs(1_000_000);
    signing.published_until = clock.now() + secs(2_000_000);
    store.restore(copy);
    reload(&manager, &clock).await;
    assert!(!is_known(&manager, &first));
    let events = manager.maintain().await.unwrap();
    assert!(regressed(&events).contains(&&first), "{events:?}");
    assert_ne!(signer(&manager).await, first);
    assert!(!is_published(&manager, &first).await);
}

#[tokio::test]
async fn no_generation_is_made_twice() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let copy = store.copy();
    for _ in 0..3 {
        clock.advance(secs(2 * 86_400));
        let bad = signer(&manager).await;
        let _ = manager.compromise(&bad).await.unwrap();
        manager.maintain().await.unwrap();
    }
    let used: Vec<_> = store.records().iter().map(|record| record.generation).collect();
    store.restore(copy);
    manager.maintain().await.unwrap();
    let highest = used.iter().max().unwrap();
    let fresh = store.records().into_iter().filter(|record| record.compromised_at.is_none());
    let fresh: Vec<_> = fresh.map(|record| record.generation).collect();
    assert!(!fresh.is_empty() && fresh.iter().all(|own| own > highest), "{fresh:?}, {used:?}");
}

/// Each writes above what it has seen, and takes the other's word for what is newer.
#[tokio::test]
async fn two_nodes_that_put_a_ring_right_come_to_rest() {
    let (store, clock) = (RingStore::new(), clock());
    let nodes = [manager(&store, &clock).await, manager(&store, &clock).await];
    let copy = store.copy();
    let first = signer(&nodes[0]).await;
    nodes[0].rotate().await.unwrap();
    nodes[1].maintain().await.unwrap();
    let second = signer(&nodes[0]).await;
    let _ = nodes[0].compromise(&first).await.unwrap();
    nodes[0].maintain().await.unwrap();
    clock.advance(secs(10));
    store.restore(copy);
    for _ in 0..3 {
        for node in &nodes {
            node.maintain().await.unwrap();
        }
    }
    let ring = store.records();
    for node in &nodes {
        node.maintain().await.unwrap();
        assert_eq!(signer(node).await, second);
        assert_eq!(regressed(&node.maintain().await.unwrap()).len(), 0);
    }
    assert_eq!(store.records(), ring, "nothing is written any more");
}

#[tokio::test]
async fn what_is_deleted_in_time_is_not_missed() {
    let (store, clock) = (RingStore::new(), clock());
    let nodes = [manager(&store, &clock).await, manager(&store, &clock).await];
    for _ in 0..(70 * 4) {
        clock.advance(secs(6 * 3600));
        for node in &nodes {
            let events = node.maintain().await.unwrap();
            assert_eq!(regressed(&events).len(), 0, "{events:?}");
        }
    }
    assert!(store.load().await.unwrap().iter().all(|record| record.generation > 1));
    let policy = KeyPolicy::default();
    assert!(clock.now().since(START) > policy.rotation + policy.retention);
}

/// A record of the key of this generation, whose signing ends then.
fn record(generation: u64, version: u64, until: Option<UnixTime>) -> KeyRecord {
    let signing = until.map(|until| Signing::new(START, until, until + secs(1_000)));
    let mut times = KeyTimes::published(START);
    times.signing = signing;
    let kid = Kid::new(format!("key {generation}")).unwrap();
    let mut record =
        KeyRecord::new(generation, kid, "ES256", serde_json::Value::Null, vec![1], times);
    record.version = version;
    record
}

fn marked(record: &KeyRecord, at: UnixTime) -> KeyRecord {
    let mut marked = record.clone();
    marked.compromised_at = Some(at);
    marked
}

/// What one load after another brings, and what is said of the last: who has regressed, and which
/// generations are to be written.
fn last(loads: Vec<(Vec<KeyRecord>, UnixTime)>) -> (Vec<KeyRecord>, Vec<String>, Vec<Repair>) {
    let mut remembered = Remembered::default();
    let mut last = Reconciled::default();
    for (records, now) in loads {
        last = remembered.reconcile(records, now, &KeyPolicy::default());
    }
    let regressed = last.regressed.iter().map(|kid| kid.as_str().to_owned()).collect();
    (last.records, regressed, last.repairs)
}

#[test]
fn a_record_that_is_gone_too_early_is_missed() {
    let policy = KeyPolicy::default();
    let until = START + secs(100);
    // `record` lets it be published for 1,000 s after its end.
    let end = until + secs(1_000) + policy.jwks_max_age;
    let (first, second) = (record(1, 1, Some(until)), record(2, 1, None));
    let gone = |at: UnixTime| {
        last(vec![(vec![first.clone(), second.clone()], START), (vec![second.clone()], at)]).1
    };
    assert_eq!(gone(end - secs(1)), ["key 1"]);
    assert!(gone(end).is_empty());
    // One that has not got its times yet never goes by itself, a compromised one after its retention.
    let gone = |record: KeyRecord, at| last(vec![(vec![record], START), (vec![], at)]).1;
    assert_eq!(gone(second.clone(), START + secs(1 << 32)), ["key 2"]);
    let end = START + policy.retention + policy.jwks_max_age;
    assert_eq!(gone(marked(&second, START), end - secs(1)), ["key 2"]);
    assert!(gone(marked(&second, START), end).is_empty());
    // It is said once.
    let loads = vec![(vec![second], START), (vec![], START), (vec![], START)];
    assert!(last(loads).1.is_empty());
}

#[test]
fn an_older_record_is_put_right() {
    let (old, new) = (record(1, 1, None), record(1, 3, Some(START + secs(9_000))));
    let loads = vec![(vec![new.clone()], START), (vec![old.clone()], START)];
    let (records, regressed, repairs) = last(loads.clone());
    assert_eq!((&records[0].times, records[0].version), (&new.times, 1));
    assert_eq!(regressed, ["key 1"]);
    assert_eq!(repairs, [Repair { generation: 1, version: 4 }]);
    // Again and again until it is written, and told once.
    let (_, regressed, repairs) = last([loads, vec![(vec![old.clone()], START)]].concat());
    assert!(regressed.is_empty());
    assert_eq!(repairs.len(), 1);

    // Of an older version alone nothing is left to write.
    let mut same = new.clone();
    same.version = 2;
    let (_, regressed, repairs) = last(vec![(vec![new.clone()], START), (vec![same], START)]);
    assert_eq!((regressed.len(), repairs.len()), (1, 0));
    // A newer one is news.
    let newer = record(1, 4, Some(START + secs(8_000)));
    let (records, regressed, repairs) =
        last(vec![(vec![new], START), (vec![newer.clone()], START)]);
    assert_eq!((records, regressed.len(), repairs.len()), (vec![newer], 0, 0));
}

#[test]
fn what_this_node_wrote_is_known_before_it_is_loaded() {
    let mut remembered = Remembered::default();
    let old = record(1, 1, None);
    remembered.reconcile(vec![old.clone()], START, &KeyPolicy::default());
    remembered.note(&record(1, 2, Some(START + secs(100))));
    remembered.note(&record(7, 1, None));
    assert_eq!(remembered.highest(), 7);
    let loaded = remembered.reconcile(vec![old], START, &KeyPolicy::default());
    assert_eq!(loaded.regressed.len(), 2, "one is older, one is missing");
    assert_eq!(loaded.repairs.len(), 1);
}

#[test]
fn a_record_that_is_back_is_as_old_as_the_copy_that_it_comes_from() {
    let ended = record(1, 1, Some(START + secs(100)));
    let later = START + secs(1 << 30);
    let loads = vec![(vec![ended.clone()], START), (vec![], later), (vec![ended.clone()], later)];
    let (_, regressed, repairs) = last(loads);
    assert_eq!((regressed.len(), repairs.len()), (1, 0));
    // A key of which the log alone has told, so far, has not been gone.
    let mut remembered = Remembered::default();
    remembered.compromise(&ended.kid, START + secs(5));
    remembered.compromise(&ended.kid, START + secs(9));
    let loaded = remembered.reconcile(vec![ended.clone()], START, &KeyPolicy::default());
    assert_eq!(loaded.records[0].compromised_at, Some(START + secs(5)));
    assert_eq!((loaded.regressed.len(), loaded.repairs.len()), (0, 1));
    // The store need not have been told yet; once it was, the mark must not go.
    let loaded = remembered.reconcile(vec![ended.clone()], START, &KeyPolicy::default());
    assert_eq!((loaded.regressed.len(), loaded.repairs.len()), (0, 1));
    let stored = marked(&ended, START + secs(5));
    let loaded = remembered.reconcile(vec![stored], START, &KeyPolicy::default());
    assert_eq!((loaded.regressed.len(), loaded.repairs.len()), (0, 0));
    let loaded = remembered.reconcile(vec![ended], START, &KeyPolicy::default());
    assert_eq!((loaded.regressed.len(), loaded.repairs.len()), (1, 1));
}

#[test]
fn what_had_ended_by_every_clock_stays_so() {
    let skew = KeyPolicy::default().clock_skew;
    let until = START + secs(1_000);
    let known = record(1, 1, Some(until));
    let revived = record(1, 2, Some(until + secs(50_000)));
    let load = |now| last(vec![(vec![known.clone()], START), (vec![revived.clone()], now)]);

    let (records, regressed, repairs) = load(until + skew);
    let signing = records[0].times.signing.as_ref().unwrap();
    assert_eq!((signing.until, signing.published_until), (until, until + secs(1_000)));
    assert_eq!(regressed, ["key 1"]);
    assert_eq!(repairs, [Repair { generation: 1, version: 3 }]);
    // Where it may still live by the clock of another node, that node may have moved its end.
    let (records, regressed, repairs) = load(until + skew - secs(1));
    assert_eq!((records, regressed.len(), repairs.len()), (vec![revived], 0, 0));
}

#[test]
fn a_mark_that_this_node_wrote_must_not_go() {
    let (mut remembered, policy) = (Remembered::default(), KeyPolicy::default());
    remembered.reconcile(vec![record(1, 1, None)], START, &policy);
    remembered.note(&marked(&record(1, 2, None), START));
    // The record is newer, and lacks the mark.
    let loaded = remembered.reconcile(vec![record(1, 3, None)], START, &policy);
    assert_eq!(loaded.records[0].compromised_at, Some(START));
    assert_eq!((loaded.regressed.len(), loaded.repairs.len()), (1, 1));
}
