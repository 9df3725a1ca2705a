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
    let signs = schedule::signer(&ring, clock.now()).unwrap();
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
