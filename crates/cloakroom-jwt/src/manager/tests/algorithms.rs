//! Several algorithms at once: a ring for each.

use cloakroom_core::time::ManualClock;

use super::*;

async fn with(
    store: &Arc<RingStore>,
    clock: &Arc<ManualClock>,
    main: Algorithm,
    further: &[Algorithm],
) -> KeyManager {
    let builder = KeyManager::builder(Arc::clone(store) as _, sealer())
        .clock(Arc::clone(clock) as _)
        .algorithm(main);
    let builder = further.iter().fold(builder, |builder, one| builder.further_algorithm(*one));
    builder.build().await.unwrap()
}

async fn algorithm_of(manager: &KeyManager, wanted: Algorithm) -> Algorithm {
    manager.signer_for(wanted).await.unwrap().algorithm()
}

#[tokio::test]
async fn each_algorithm_signs_from_the_first_day_and_the_jwk_set_has_all() {
    let (store, clock) = (RingStore::new(), clock());
    let further = [Algorithm::EdDsa, Algorithm::Es384, Algorithm::Es256, Algorithm::EdDsa];
    let manager = with(&store, &clock, Algorithm::Es256, &further).await;
    assert_eq!(store.records().len(), 6, "two keys for each of three algorithms");
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Es384] {
        let signer = manager.signer_for(algorithm).await.unwrap();
        assert_eq!(signer.algorithm(), algorithm);
        assert!(manager.keys().unwrap().contains(signer.kid()));
        assert!(kids(&manager.jwks().await.unwrap()).contains(signer.kid()));
    }
    assert_eq!(manager.signer().await.unwrap().algorithm(), Algorithm::Es256);
    assert_eq!(manager.algorithms(), [Algorithm::Es256], "those of the main ring");
    // Without a ring of its own, an algorithm is that of the main ring.
    assert_eq!(algorithm_of(&manager, Algorithm::Rs256).await, Algorithm::Es256);
    let signs = manager.states().await.unwrap().into_iter().filter(|key| key.signs_now);
    let signs: Vec<_> = signs.map(|key| (key.algorithm, key.ring)).collect();
    let expected = [("ES256", ""), ("EdDSA", "EdDSA"), ("ES384", "ES384")];
    assert_eq!(signs, expected.map(|(one, ring)| (one.to_owned(), ring.to_owned())));
}

/// However long it takes to make the first keys.
#[tokio::test]
async fn rings_that_start_together_sign_at_once_even_if_that_takes_time() {
    let (store, clock) = (RingStore::new(), clock());
    *store.slow_insert.lock().unwrap() = Some((Arc::clone(&clock), secs(3)));
    *store.slow_update.lock().unwrap() = Some((Arc::clone(&clock), secs(3)));
    let manager = with(&store, &clock, Algorithm::Es256, &[Algorithm::EdDsa]).await;
    assert_eq!(algorithm_of(&manager, Algorithm::EdDsa).await, Algorithm::EdDsa);
}

#[tokio::test]
async fn a_further_algorithm_is_announced_before_it_signs() {
    let (store, clock) = (RingStore::new(), clock());
    with(&store, &clock, Algorithm::Es256, &[]).await;
    clock.advance(secs(3600));
    let manager = with(&store, &clock, Algorithm::Es256, &[Algorithm::EdDsa]).await;
    let ahead = KeyPolicy::default().publish_ahead;
    let published = kids(&manager.jwks().await.unwrap());
    assert_eq!(published.len(), 4, "it is published at once");
    assert_eq!(algorithm_of(&manager, Algorithm::EdDsa).await, Algorithm::Es256);
    let early = manager.rotate_of(Algorithm::EdDsa).await.unwrap_err();
    assert!(matches!(early, KeyManagerError::NoKey), "{early:?}");
    clock.advance(ahead - secs(1));
    manager.maintain().await.unwrap();
    assert_eq!(algorithm_of(&manager, Algorithm::EdDsa).await, Algorithm::Es256);
    clock.advance(secs(1));
    let signer = manager.signer_for(Algorithm::EdDsa).await.unwrap();
    assert_eq!(signer.algorithm(), Algorithm::EdDsa);
    assert!(published.contains(signer.kid()));
}

#[tokio::test]
async fn rings_are_rotated_retired_and_compromised_each_for_itself() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = with(&store, &clock, Algorithm::Es256, &[Algorithm::EdDsa]).await;
    let key = async |algorithm| manager.signer_for(algorithm).await.unwrap().kid().clone();
    let both = async || (key(Algorithm::Es256).await, key(Algorithm::EdDsa).await);
    clock.advance(secs(7200));
    let (main, further) = both().await;
    let KeyEvent::Rotated { from, to } = manager.rotate_of(Algorithm::EdDsa).await.unwrap() else {
        panic!("it was rotated")
    };
    assert_eq!((both().await, from), ((main.clone(), to), further));
    clock.advance(secs(7200));
    manager.rotate_of(Algorithm::Es256).await.unwrap();
    let (next, further) = both().await;
    assert_ne!(next, main, "its own algorithm is that of the main ring");
    clock.advance(secs(7200));
    manager.retire(&further).await.unwrap();
    let (same, after) = both().await;
    assert!(same == next && after != further);
    clock.advance(secs(7200));
    let _ = manager.compromise(&after).await.unwrap();
    let (same, last) = both().await;
    assert!(same == next && last != after);
    assert_eq!(algorithm_of(&manager, Algorithm::EdDsa).await, Algorithm::EdDsa);
}

/// A node that was not told of an algorithm yet publishes its keys, and leaves them alone.
#[tokio::test]
async fn nodes_with_other_settings_serve_the_same_jwk_set() {
    let (store, clock) = (RingStore::new(), clock());
    let new = with(&store, &clock, Algorithm::Es256, &[Algorithm::EdDsa]).await;
    let old = with(&store, &clock, Algorithm::Es256, &[]).await;
    let before = store.records();
    for _ in 0..3 {
        old.maintain().await.unwrap();
        new.maintain().await.unwrap();
    }
    assert_eq!(store.records(), before);
    assert_eq!(old.jwks().await.unwrap(), new.jwks().await.unwrap());
    // And in the order of their making, whatever the rings.
    let in_order: Vec<_> = store.records().iter().map(|record| record.kid.clone()).collect();
    assert_eq!(kids(&old.jwks().await.unwrap()), in_order);
    // It can sign with a key of a ring that it does not maintain.
    assert_eq!(algorithm_of(&old, Algorithm::EdDsa).await, Algorithm::EdDsa);
}

/// The algorithm of the main ring changes with the key that is published next.
#[tokio::test]
async fn a_change_of_the_main_algorithm_is_a_rotation() {
    let (store, clock) = (RingStore::new(), clock());
    with(&store, &clock, Algorithm::Es256, &[]).await;
    let manager = with(&store, &clock, Algorithm::EdDsa, &[Algorithm::Es256]).await;
    assert_eq!(manager.signer().await.unwrap().algorithm(), Algorithm::Es256);
    let mut changed = None;
    for hour in 0..24 * 62 {
        clock.advance(secs(3600));
        manager.maintain().await.unwrap();
        assert_eq!(algorithm_of(&manager, Algorithm::Es256).await, Algorithm::Es256);
        if manager.signer().await.unwrap().algorithm() == Algorithm::EdDsa {
            changed.get_or_insert(hour);
        } else {
            assert_eq!(changed, None);
        }
    }
    assert_eq!(changed.map(|hour| hour / 24), Some(59), "the next key was published before");
    assert_eq!(manager.algorithms(), [Algorithm::EdDsa]);
}
