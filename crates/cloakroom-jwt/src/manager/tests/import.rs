//! Keys that another program made.

use super::*;
use crate::SigningKey;

/// It is published at once, and signs when the keys before it have ended, like a key that was made
/// here.
#[tokio::test]
async fn an_imported_key_waits_for_its_turn_in_the_jwk_set() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let first = signer(&manager).await;
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let event = manager.import(&key).await.unwrap();
    assert_eq!(event, KeyEvent::Published { kid: key.kid().clone() });
    assert!(kids(&manager.jwks().await.unwrap()).contains(key.kid()));
    assert_eq!(signer(&manager).await, first);

    let records = store.records();
    let imported = records.iter().find(|record| record.kid == *key.kid()).unwrap();
    let signing = imported.times.signing.as_ref().unwrap();
    let before = records.iter().filter(|record| record.kid != *key.kid());
    let last = before.filter_map(|record| record.times.signing.as_ref()).map(|times| times.until);
    assert_eq!(Some(signing.from), last.max());
    clock.set(signing.from - secs(60));
    manager.maintain().await.unwrap();
    assert_ne!(signer(&manager).await, *key.kid());
    clock.set(signing.from);
    assert_eq!(signer(&manager).await, *key.kid());

    // Another node opens it with the same sealer.
    let other = crate::test_support::manager(&store, &clock).await;
    assert_eq!(signer(&other).await, *key.kid());
}

#[tokio::test]
async fn a_key_is_imported_once_and_not_after_it_was_compromised() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    manager.import(&key).await.unwrap();
    let known = |result| matches!(result, Err(KeyManagerError::KnownKid(_)));
    assert!(known(manager.import(&key).await));
    let _ = manager.compromise(key.kid()).await.unwrap();
    assert!(known(manager.import(&key).await));
    // The store went back in time, and this node remembers.
    store.tamper(|records| records.retain(|record| record.kid != *key.kid()));
    assert!(known(manager.import(&key).await));
}

#[tokio::test]
async fn a_key_joins_the_ring_of_its_algorithm_or_else_the_main_ring() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = KeyManager::builder(Arc::clone(&store) as _, sealer())
        .further_algorithm(Algorithm::EdDsa)
        .clock(clock as _)
        .build()
        .await
        .unwrap();
    for (algorithm, ring) in
        [(Algorithm::EdDsa, "EdDSA"), (Algorithm::Es256, ""), (Algorithm::Es384, "")]
    {
        let key = SigningKey::generate(algorithm).unwrap();
        manager.import(&key).await.unwrap();
        let records = store.records();
        let imported = records.iter().find(|record| record.kid == *key.kid()).unwrap();
        assert_eq!(imported.ring, ring, "{algorithm}");
    }
}

/// The driver sends the insert again, and the answer to the second one is that the generation is taken.
#[tokio::test]
async fn an_import_that_was_sent_twice_is_done_and_told_once() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    store.sent_twice.store(true, Ordering::SeqCst);
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let event = manager.import(&key).await.unwrap();
    assert_eq!(event, KeyEvent::Published { kid: key.kid().clone() });
    let events = manager.maintain().await.unwrap();
    assert_eq!(events.iter().filter(|told| **told == event).count(), 1, "{events:?}");
    assert_eq!(store.records().iter().filter(|record| record.kid == *key.kid()).count(), 1);
}
