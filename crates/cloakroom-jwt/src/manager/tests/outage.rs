use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloakroom_core::keys::KeyRecord;
use cloakroom_core::store::StoreError;
use cloakroom_core::time::Clock as _;

use super::super::*;
use crate::test_support::*;
use crate::{AesGcmSealer, Algorithm, SealError};

#[tokio::test]
async fn while_the_store_is_down_signing_goes_on_and_the_jwk_set_does_not() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let manager = manager(&store, &clock).await;
    let sent = clock.now();
    let kid = signer(&manager).await;
    store.down(true);

    clock.advance(policy.reload);
    manager.jwks().await.unwrap();
    clock.advance(Duration::from_millis(1));
    let error = manager.jwks().await.unwrap_err();
    assert!(matches!(error, KeyManagerError::Outdated { .. }), "{error:?}");
    // `Outdated` ← an `Arc` ← `Store` ← the store's own.
    let mut cause = error.source();
    while let Some(error) = cause.filter(|error| !error.is::<StoreError>()) {
        cause = error.source();
    }
    assert!(cause.is_some(), "the cause is the store's own error");

    let before = store.loads();
    for _ in 0..100 {
        assert_eq!(signer(&manager).await, kid);
        assert!(manager.jwks().await.is_err());
        assert!(manager.keys().unwrap().contains(&kid));
    }
    assert_eq!(store.loads(), before, "no call a signature");
    clock.advance(secs(1));
    for _ in 0..100 {
        assert_eq!(signer(&manager).await, kid);
    }
    assert_eq!(store.loads(), before + 1, "one attempt a second");

    clock.advance(policy.max_blind - clock.now().since(sent));
    assert_eq!(signer(&manager).await, kid);
    clock.advance(Duration::from_millis(1));
    assert!(matches!(
        manager.signer().await,
        Err(KeyManagerError::Outdated { limit, .. }) if limit == policy.max_blind
    ));
    assert!(manager.keys().is_err());
    assert!(manager.refresh().await.is_err());

    store.down(false);
    clock.advance(secs(1));
    assert_eq!(signer(&manager).await, kid, "and back again");
    manager.jwks().await.unwrap();
}

#[tokio::test]
async fn the_age_of_a_ring_is_the_longer_of_both_clocks() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    store.down(true);
    // Asleep for two hours: monotonic time stood still.
    clock.set(START + secs(7200));
    assert!(manager.signer().await.is_err());
    // Wall time set back: monotonic time went on.
    clock.set(START);
    manager.signer().await.unwrap();
    clock.advance(secs(3601));
    clock.set(START);
    assert!(manager.signer().await.is_err());
}

#[tokio::test]
async fn a_load_counts_from_when_it_was_sent() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    clock.advance(secs(100));
    let waiting = tokio::spawn({
        let manager = manager.clone();
        async move { manager.jwks().await }
    });
    tokio::task::yield_now().await;
    // The store answers late: what it said may be as old as the request.
    clock.advance(KeyPolicy::default().reload + secs(1));
    assert!(matches!(waiting.await.unwrap(), Err(KeyManagerError::Outdated { source: None, .. })));
}

#[tokio::test]
async fn a_ring_that_does_not_open_is_an_error_at_the_start() {
    let (store, clock) = (RingStore::new(), clock());
    let first = manager(&store, &clock).await;
    let build = |sealer: AesGcmSealer| {
        KeyManager::builder(Arc::clone(&store) as _, Arc::new(sealer))
            .clock(Arc::clone(&clock) as _)
            .build()
    };
    let error = build(AesGcmSealer::new(1, [8; 32])).await.unwrap_err();
    assert!(matches!(&error, KeyManagerError::OtherSealingKey(id) if id == "1"), "{error:?}");
    // A store that does not remember it, as one whose sealer gives no check values.
    store.forget();
    let error = build(AesGcmSealer::new(1, [8; 32])).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::Seal { source: SealError::Refused, .. }));
    assert!(error.to_string().contains(store.records()[0].kid.as_str()));
    let error = build(AesGcmSealer::new(2, [8; 32])).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::Seal { source: SealError::UnknownKey(1), .. }));
    let moved = build(AesGcmSealer::new(2, [8; 32]).with_former(1, [7; 32]));
    assert_eq!(signer(&moved.await.unwrap()).await, signer(&first).await);
}

#[tokio::test]
async fn a_wrong_sealing_key_is_noticed_where_nothing_is_left_to_open() {
    let (store, clock) = (RingStore::new(), clock());
    manager(&store, &clock).await;
    let build = |sealer: AesGcmSealer| {
        KeyManager::builder(Arc::clone(&store) as _, Arc::new(sealer))
            .clock(Arc::clone(&clock) as _)
            .build()
    };
    // The issuer slept for a year: every key of the ring is gone.
    clock.advance(secs(365 * 86_400));
    let before = store.records();
    let wrong = AesGcmSealer::new(2, [5; 32]).with_former(1, [8; 32]);
    let error = build(wrong).await.unwrap_err();
    assert!(error.to_string().contains("key-encryption key 1"), "{error}");
    assert_eq!(store.records(), before, "no key was made in their place");
    build(AesGcmSealer::new(2, [5; 32]).with_former(1, [7; 32])).await.unwrap();
    // Now the new one is known, too.
    assert!(build(AesGcmSealer::new(2, [6; 32])).await.is_err());
    // Whoever starts first with an id says what it is.
    let (one, other) = (RingStore::new(), AesGcmSealer::new(1, [3; 32]));
    let both = [(sealer(), &one), (Arc::new(other), &one)].map(|(sealer, store)| {
        KeyManager::builder(Arc::clone(store) as _, sealer).clock(Arc::clone(&clock) as _).build()
    });
    let [first, second] = both;
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    manager(&one, &clock).await.maintain().await.map_or_else(|_| assert!(second.is_ok()), |_| ());
}

#[tokio::test]
async fn the_keys_of_one_issuer_do_not_open_for_another() {
    let (store, clock) = (RingStore::new(), clock());
    let build = |issuer: &str, former: &[&str]| {
        let builder = KeyManager::builder(Arc::clone(&store) as _, sealer())
            .clock(Arc::clone(&clock) as _)
            .issuer(issuer);
        former.iter().fold(builder, |builder, former| builder.former_issuer(*former)).build()
    };
    let first = signer(&build("https://one.example", &[]).await.unwrap()).await;
    for stranger in ["https://two.example", ""] {
        let error = build(stranger, &["https://three.example"]).await.unwrap_err();
        assert!(matches!(error, KeyManagerError::Seal { source: SealError::Refused, .. }));
    }
    let renamed = build("https://two.example", &["https://zero.example", "https://one.example"]);
    assert_eq!(signer(&renamed.await.unwrap()).await, first);
}

#[tokio::test]
async fn whoever_can_write_to_the_store_alone_can_publish_nothing() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let before = manager.jwks().await.unwrap();
    type Change<'a> = dyn Fn(&mut Vec<KeyRecord>) + 'a;
    let stranger = crate::SigningKey::generate(Algorithm::Es256).unwrap();

    let good = store.records();
    let swapped = |ring: &mut Vec<KeyRecord>| {
        let (a, b) = ring.split_at_mut(1);
        std::mem::swap(&mut a[0].sealed, &mut b[0].sealed);
    };
    let injected = |ring: &mut Vec<KeyRecord>| {
        let mut record = ring[1].clone();
        record.generation = 3;
        record.kid = stranger.kid().clone();
        record.public_jwk = serde_json::to_value(stranger.public_jwk()).unwrap();
        ring.push(record);
    };
    let replaced = |ring: &mut Vec<KeyRecord>| {
        ring[1].public_jwk = serde_json::to_value(stranger.public_jwk()).unwrap();
        ring[1].kid = stranger.kid().clone();
    };
    let renamed = |ring: &mut Vec<KeyRecord>| ring[0].algorithm = "ES384".into();
    let promoted = |ring: &mut Vec<KeyRecord>| ring[0].generation = 9;
    let changes: [&Change<'_>; 5] = [&swapped, &injected, &replaced, &renamed, &promoted];
    for change in changes {
        store.tamper(|ring| change(ring));
        assert!(manager.maintain().await.is_err());
        assert_eq!(*manager.jwks().await.unwrap(), *before);
        store.tamper(|ring| ring.clone_from(&good));
    }
    // What stands in `public_jwk` alone is never published.
    store.tamper(|ring| ring[1].public_jwk = serde_json::to_value(stranger.public_jwk()).unwrap());
    manager.maintain().await.unwrap();
    assert_eq!(*manager.jwks().await.unwrap(), *before);
}

#[tokio::test]
async fn a_key_that_would_not_open_again_never_gets_into_the_ring() {
    #[derive(Debug)]
    struct Forgetful;
    #[async_trait::async_trait]
    impl KeySealer for Forgetful {
        async fn seal(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, SealError> {
            Ok(vec![1, 2, 3])
        }
        async fn unseal(
            &self,
            _: &[u8],
            _: &[u8],
        ) -> Result<zeroize::Zeroizing<Vec<u8>>, SealError> {
            Err(SealError::Damaged)
        }
    }
    let store = RingStore::new();
    let built = KeyManager::builder(Arc::clone(&store) as _, Arc::new(Forgetful)).build();
    assert!(matches!(built.await.unwrap_err(), KeyManagerError::Seal { .. }));
    assert!(store.records().is_empty());
}

#[tokio::test]
async fn an_outage_at_the_start_is_an_error_and_changes_nothing() {
    let store = RingStore::new();
    store.down(true);
    let built = KeyManager::builder(Arc::clone(&store) as _, sealer()).build();
    assert!(matches!(
        built.await.unwrap_err(),
        KeyManagerError::Store(StoreError::Unavailable { .. })
    ));
    assert!(store.records().is_empty());
}

#[tokio::test]
async fn records_deleted_by_hand_do_not_bring_their_generations_back() {
    let (store, clock) = (RingStore::new(), clock());
    for _ in 0..30 {
        let manager = manager(&store, &clock).await;
        let jwks = manager.jwks().await.unwrap();
        assert_eq!(kids(&jwks).len(), 2);
        store.tamper(Vec::clear);
    }
    let generations = store.generations.lock().unwrap().clone();
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
}

#[tokio::test]
async fn what_a_failed_call_did_is_reported_by_the_next() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    manager.maintain().await.unwrap();
    manager.rotate().await.unwrap();
    store.last_update.store(true, Ordering::SeqCst);
    clock.advance(KeyPolicy::default().rotation);
    assert!(manager.maintain().await.is_err());
    store.last_update.store(false, Ordering::SeqCst);
    store.down(false);
    let events = manager.maintain().await.unwrap();
    let published = |event: &&KeyEvent| matches!(event, KeyEvent::Published { .. });
    assert!(
        events.iter().filter(published).count() >= 2,
        "one by the rotation, one by the call that failed: {events:?}"
    );
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_reported_once() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let mut events = manager.maintain().await.unwrap();
    let mut failed = 0;
    for _ in 0..40 {
        clock.advance(KeyPolicy::default().rotation / 4);
        // Again and again, until a round has nothing to write.
        store.answers_lost.store(true, Ordering::SeqCst);
        let told = loop {
            match manager.maintain().await {
                Ok(told) => break told,
                Err(error) => assert!(matches!(error, KeyManagerError::Store(_)), "{error:?}"),
            }
            failed += 1;
        };
        events.extend(told);
    }
    let compromised = signer(&manager).await;
    store.answers_lost.store(true, Ordering::SeqCst);
    assert!(manager.compromise(&compromised).await.is_err());
    store.answers_lost.store(false, Ordering::SeqCst);
    events.extend(manager.maintain().await.unwrap());
    events.extend(manager.maintain().await.unwrap());

    assert!(failed > 20, "{failed} answers were lost");
    let told: std::collections::BTreeSet<_> =
        events.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(told.len(), events.len(), "none twice: {events:#?}");
    let count = |is: fn(&KeyEvent) -> bool| events.iter().filter(|event| is(event)).count();
    let made = store.generations.lock().unwrap().len();
    assert_eq!(count(|event| matches!(event, KeyEvent::Published { .. })), made);
    let deleted = count(|event| matches!(event, KeyEvent::Deleted { .. }));
    assert_eq!(deleted, made - store.records().len());
    assert!(deleted > 3, "{deleted}");
    assert!(events.contains(&KeyEvent::Compromised { kid: compromised }));
}

#[tokio::test]
async fn a_change_that_was_not_made_is_not_reported() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    manager.maintain().await.unwrap();
    let kid = signer(&manager).await;
    // It failed, another node was faster, and the record is another now.
    store.writes_fail.store(true, Ordering::SeqCst);
    assert!(manager.compromise(&kid).await.is_err());
    store.writes_fail.store(false, Ordering::SeqCst);
    store.tamper(|ring| ring[0].version += 1);
    assert_eq!(manager.maintain().await.unwrap(), []);
    // It arrives late.
    let before = store.records();
    store.answers_lost.store(true, Ordering::SeqCst);
    assert!(manager.compromise(&kid).await.is_err());
    store.answers_lost.store(false, Ordering::SeqCst);
    let after = store.records();
    store.tamper(|ring| *ring = before);
    assert_eq!(manager.maintain().await.unwrap(), []);
    store.tamper(|ring| *ring = after);
    assert!(manager.maintain().await.unwrap().contains(&KeyEvent::Compromised { kid }));
}

#[tokio::test]
async fn a_change_that_is_made_at_the_second_attempt_is_reported_once() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    manager.maintain().await.unwrap();
    let kid = signer(&manager).await;
    store.writes_fail.store(true, Ordering::SeqCst);
    assert!(manager.compromise(&kid).await.is_err());
    store.writes_fail.store(false, Ordering::SeqCst);
    let _ = manager.compromise(&kid).await.unwrap();
    let events = manager.maintain().await.unwrap();
    let marked = KeyEvent::Compromised { kid };
    assert_eq!(events.iter().filter(|event| **event == marked).count(), 1, "{events:?}");
}

/// A driver that sends a write again gets the answer to the second one, which comes too late.
#[tokio::test]
async fn a_change_that_was_sent_twice_is_reported_once() {
    let (store, clock) = (RingStore::new(), clock());
    store.sent_twice.store(true, Ordering::SeqCst);
    let manager = manager(&store, &clock).await;
    let mut events = manager.maintain().await.unwrap();
    for _ in 0..40 {
        clock.advance(KeyPolicy::default().rotation / 4);
        events.extend(manager.maintain().await.unwrap());
    }
    let kid = signer(&manager).await;
    let _ = manager.compromise(&kid).await.unwrap();
    clock.advance(KeyPolicy::default().publish_ahead);
    events.extend(manager.maintain().await.unwrap());
    let from = signer(&manager).await;
    let rotated = manager.rotate().await.unwrap();
    assert_eq!(rotated, KeyEvent::Rotated { from, to: signer(&manager).await });
    events.extend(manager.maintain().await.unwrap());

    let told: std::collections::BTreeSet<_> =
        events.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(told.len(), events.len(), "none twice: {events:#?}");
    let count = |is: fn(&KeyEvent) -> bool| events.iter().filter(|event| is(event)).count();
    let made = store.generations.lock().unwrap().len();
    assert_eq!(count(|event| matches!(event, KeyEvent::Published { .. })), made);
    let deleted = count(|event| matches!(event, KeyEvent::Deleted { .. }));
    assert_eq!(deleted, made - store.records().len());
    assert!(count(|event| matches!(event, KeyEvent::Scheduled { .. })) >= made);
    assert!(events.contains(&KeyEvent::Compromised { kid }));
}
