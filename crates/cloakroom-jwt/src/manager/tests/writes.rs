//! What is known of a write whose answer was lost, as later loads of the ring show it.

use cloakroom_core::keys::schedule::{KeyTimes, Signing};

use super::*;
use crate::manager::unanswered_writes::{Sent, Write};

fn record(kid: &str, version: u64) -> KeyRecord {
    let kid = Kid::new(kid).unwrap();
    let times = KeyTimes::published(START);
    let mut record = KeyRecord::new(1, kid, "ES256", serde_json::Value::Null, vec![1], times);
    record.version = version;
    record
}

/// The record after a write of this node, which gave it its times.
fn written() -> KeyRecord {
    let mut record = record("own", 2);
    record.times.signing = Some(Signing::new(START, START + secs(10), START + secs(20)));
    record
}

/// How often the write is told as done by each load, one after another, that finds this record or none.
fn told(write: Write, loads: &[Option<&KeyRecord>]) -> Vec<usize> {
    let mut sent = Sent::default();
    sent.push(write, KeyEvent::Published { kid: Kid::new("own").unwrap() });
    let load = |found: &Option<&KeyRecord>| {
        let records: Vec<KeyRecord> = found.iter().copied().cloned().collect();
        sent.settle(&records).len()
    };
    loads.iter().map(load).collect()
}

#[test]
fn a_key_that_is_inserted_late_is_told_when_it_is_seen() {
    let (own, other) = (record("own", 1), record("other", 1));
    let insert = || Write::Insert(own.clone());
    assert_eq!(told(insert(), &[None, None, Some(&own)]), [0, 0, 1]);
    assert_eq!(told(insert(), &[Some(&own), Some(&own)]), [1, 0], "once");
    // The generation belongs to the key of another node.
    assert_eq!(told(insert(), &[Some(&other), Some(&own)]), [0, 0]);
}

#[test]
fn a_late_update_is_told_unless_another_write_came_first() {
    let (before, own, other) = (record("own", 1), written(), record("own", 2));
    let update = || Write::Update { record: own.clone(), expected: 1 };
    assert_eq!(told(update(), &[Some(&before), Some(&own)]), [0, 1]);
    assert_eq!(told(update(), &[Some(&other), Some(&own)]), [0, 0]);
    assert_eq!(told(update(), &[None, Some(&own)]), [0, 0], "the record is gone");
    // Another node has noted its use of the key since.
    let mut noted = own.clone();
    (noted.version, noted.last_used) = (3, Some(START));
    assert_eq!(told(update(), &[Some(&noted)]), [1]);
    // The same content in another version is the write of another node.
    let mut newer = own.clone();
    newer.version = 3;
    assert_eq!(told(update(), &[Some(&newer)]), [0]);
    assert_eq!(told(update(), &[Some(&before), None]), [0, 0]);
}

#[test]
fn a_late_deletion_is_told_unless_it_is_that_of_another_node() {
    let delete = || Write::Delete { generation: 1, expected: 2 };
    assert_eq!(told(delete(), &[Some(&written()), None]), [0, 1]);
    // The record was written since, so this deletion was refused, and a later one is not ours.
    assert_eq!(told(delete(), &[Some(&record("own", 3)), None]), [0, 0]);
}

#[tokio::test]
async fn a_write_that_is_refused_is_not_told_as_done() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let _ = manager.take_events();
    let inner = &manager.inner;
    let mut flight = inner.flight.lock().await;
    let stored = store.records().remove(0);
    let (generation, expected) = (stored.generation, stored.version);
    let event = KeyEvent::Deleted { kid: stored.kid.clone() };
    let mut newer = stored.clone();
    newer.version += 2;
    for refused in [
        Write::Insert(stored),
        Write::Update { record: newer, expected: expected + 1 },
        Write::Delete { generation, expected: expected + 1 },
    ] {
        assert!(!inner.write(&mut flight, refused, event.clone()).await.unwrap());
        assert_eq!(manager.take_events(), []);
    }
    let delete = Write::Delete { generation, expected };
    assert!(inner.write(&mut flight, delete, event.clone()).await.unwrap());
    assert_eq!(manager.take_events(), [event]);
}
