use std::sync::Barrier;

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_memory::MemoryStore;

use crate::support::{NOW, is_misuse, ready, store};

fn key(generation: u64, version: u64) -> KeyRecord {
    let kid = Kid::new(format!("kid-{generation}")).unwrap();
    let public = serde_json::json!({"kty": "EC"});
    let times = KeyTimes::published(NOW);
    let mut key = KeyRecord::new(generation, kid, "ES256", public, vec![1, 2, 3], times);
    key.version = version;
    key
}

fn generations(store: &MemoryStore) -> Vec<(u64, u64)> {
    ready(store.load()).iter().map(|key| (key.generation, key.version)).collect()
}

#[test]
fn a_generation_is_never_reused() {
    let store = store();
    assert_eq!(ready(store.insert(key(0, 1))), KeyInserted::Taken, "from 1");
    assert_eq!(ready(store.insert(key(1, 1))), KeyInserted::Inserted);
    assert_eq!(ready(store.insert(key(3, 1))), KeyInserted::Inserted);
    for taken in [1, 2, 3] {
        assert_eq!(ready(store.insert(key(taken, 9))), KeyInserted::Taken);
    }
    assert_eq!(ready(store.delete(3, 1)), KeyUpdated::Updated);
    assert_eq!(ready(store.insert(key(3, 1))), KeyInserted::Taken);
    assert_eq!(ready(store.insert(key(4, 1))), KeyInserted::Inserted);
    assert_eq!(generations(&store), [(1, 1), (4, 1)]);
}

#[test]
fn only_the_expected_version_is_replaced_or_deleted() {
    let store = store();
    let _ = ready(store.insert(key(1, 1)));
    assert_eq!(ready(store.update(key(1, 2), 1)), KeyUpdated::Updated);
    assert_eq!(ready(store.update(key(1, 3), 1)), KeyUpdated::Stale);
    assert_eq!(ready(store.update(key(2, 2), 1)), KeyUpdated::Stale, "absent");
    assert!(is_misuse(store.update(key(1, 2), 2)));
    assert_eq!(ready(store.delete(1, 1)), KeyUpdated::Stale);
    assert_eq!(ready(store.load()), [key(1, 2)]);
    assert_eq!(ready(store.delete(1, 2)), KeyUpdated::Updated);
    assert_eq!(ready(store.delete(1, 2)), KeyUpdated::Stale);
    assert!(ready(store.load()).is_empty());
}

#[test]
fn of_racing_writers_one_wins() {
    let store = store();
    let _ = ready(store.insert(key(1, 1)));
    let barrier = Barrier::new(4);
    let (inserted, updated) = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4)
            .map(|racer| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let inserted = ready(store.insert(key(2, 1))) == KeyInserted::Inserted;
                    let updated = ready(store.update(key(1, 2 + racer), 1)) == KeyUpdated::Updated;
                    (u32::from(inserted), u32::from(updated))
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    assert_eq!((inserted, updated), (1, 1));
}
