//! The key-encryption key is replaced, and the ring is sealed again.

use std::sync::atomic::AtomicBool;

use cloakroom_core::keys::{KeyInserted, KeyStore as _};
use cloakroom_core::store::CheckValues as _;
use cloakroom_core::time::ManualClock;

use super::*;
use crate::{AesGcmSealer, SealError, danger};

async fn build(
    store: &Arc<RingStore>,
    clock: &Arc<ManualClock>,
    sealer: impl KeySealer,
) -> Result<KeyManager, KeyManagerError> {
    let builder = KeyManager::builder(Arc::clone(store) as _, Arc::new(sealer));
    builder.clock(Arc::clone(clock) as _).build().await
}

/// The key of everybody at first.
fn first() -> AesGcmSealer {
    AesGcmSealer::new(1, [7; 32])
}

/// The key that replaces it.
fn second() -> AesGcmSealer {
    AesGcmSealer::new(2, [8; 32])
}

fn both() -> AesGcmSealer {
    second().with_former(1, [7; 32])
}

/// A sealer that names its keys and has no check values, as a key management service may be.
#[derive(Debug)]
struct Service {
    keys: AesGcmSealer,
    store: Arc<RingStore>,
    /// The next time that it seals, another node writes the whole ring meanwhile.
    is_raced: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl KeySealer for Service {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if self.is_raced.swap(false, Ordering::SeqCst) {
            self.store.tamper(|ring| ring.iter_mut().for_each(|record| record.version += 1));
        }
        self.keys.seal(context, plain).await
    }
    async fn unseal(
        &self,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, SealError> {
        self.keys.unseal(context, sealed).await
    }
    fn current_key(&self) -> Option<String> {
        self.keys.current_key()
    }
    fn key_of(&self, sealed: &[u8]) -> Option<String> {
        self.keys.key_of(sealed)
    }
    fn replaced_keys(&self) -> Vec<String> {
        self.keys.replaced_keys()
    }
}

/// The key-encryption keys of the ring, in its order.
fn sealed_under(store: &RingStore) -> Vec<String> {
    store.records().iter().map(|record| first().key_of(&record.sealed).unwrap()).collect()
}

#[tokio::test]
async fn what_an_older_key_sealed_is_sealed_again_and_then_the_older_key_may_go() {
    let (store, clock) = (RingStore::new(), clock());
    let old = build(&store, &clock, first().with_former(2, [8; 32])).await.unwrap();
    let kids = kids(&old.jwks().await.unwrap());
    // A former key that has the id of the current one changes nothing.
    let new = build(&store, &clock, both().with_former(2, [5; 32])).await.unwrap();
    assert_eq!(sealed_under(&store), ["1", "1"], "nothing changes before the order");
    let versions = || store.records().iter().map(|record| record.version).collect::<Vec<_>>();
    let versions_before = versions();
    let without = build(&store, &clock, second()).await.unwrap_err();
    assert!(without.to_string().contains("the key-encryption key 1"), "{without}");

    let done = new.reseal().await.unwrap();
    assert_eq!((done.resealed, done.remaining), (2, 0));
    assert_eq!((&*done.current, &done.removable[..]), ("2", &["1".to_owned()][..]));
    assert_eq!(sealed_under(&store), ["2"; 3], "a key was made under the new one");
    for (after, before) in versions().into_iter().zip(versions_before) {
        assert_eq!(after, before + 1, "one write, and no version a second time");
    }
    let events = new.take_events();
    for kid in &kids {
        assert!(events.contains(&KeyEvent::Resealed { kid: kid.clone() }), "{events:?}");
    }

    // A second order changes nothing.
    let (before, writes) = (store.records(), store.writes.load(Ordering::SeqCst));
    let loads = store.loads();
    let again = new.reseal().await.unwrap();
    assert_eq!(
        (again.resealed, again.remaining, &again.removable[..]),
        (0, 0, &["1".to_owned()][..])
    );
    assert_eq!((store.records(), store.writes.load(Ordering::SeqCst)), (before, writes));
    assert_eq!(store.loads() - loads, 3, "before, after, and to maintain the ring");
    assert_eq!(new.take_events(), []);

    // The keys are the same, and open without the older key.
    let alone = build(&store, &clock, second()).await.unwrap();
    for kid in &kids {
        assert!(alone.keys().unwrap().contains(kid));
    }
    assert_eq!(signer(&alone).await, kids[0]);
    // A node that has the new key as a former one goes on, and remembers when it signed.
    let last_used = async || old.states().await.unwrap()[0].last_used;
    assert_eq!(last_used().await, None);
    assert_eq!(signer(&old).await, kids[0]);
    let used = last_used().await;
    assert!(used.is_some());
    clock.advance(KeyPolicy::default().reload + secs(1));
    old.jwks().await.unwrap();
    assert_eq!(last_used().await, used);
    assert_eq!(signer(&old).await, kids[0]);
}

#[tokio::test]
async fn a_node_that_seals_under_a_replaced_key_makes_no_keys() {
    let (store, clock) = (RingStore::new(), clock());
    let late = build(&store, &clock, first().with_former(2, [8; 32])).await.unwrap();
    build(&store, &clock, both()).await.unwrap().reseal().await.unwrap();
    let is_named = |error: &KeyManagerError| {
        let KeyManagerError::ReplacedSealingKey { key, by } = error else { return false };
        (&**key, &**by) == ("1", "2")
    };
    // It is told so when it starts, long before it would have to make a key.
    let error = build(&store, &clock, first().with_former(2, [8; 32])).await.unwrap_err();
    assert!(is_named(&error), "{error:?}");
    let keys = first().with_former(2, [8; 32]);
    let service = Service { keys, store: Arc::clone(&store), is_raced: Arc::default() };
    let error = build(&store, &clock, service).await.unwrap_err();
    assert!(is_named(&error), "{error:?}");
    clock.advance(secs(60 * 86_400));
    let error = late.maintain().await.unwrap_err();
    assert!(is_named(&error), "{error:?}");
    // Nor can it bring the older key back.
    assert!(is_named(&late.reseal().await.unwrap_err()));
    let error = build(&store, &clock, first().with_former(2, [8; 32])).await.unwrap_err();
    assert!(is_named(&error), "{error:?}");
    assert!(sealed_under(&store).iter().all(|key| key == "2"));
    build(&store, &clock, second()).await.unwrap();
}

/// A key that another node seals under the older key in the meantime is not left behind.
#[tokio::test]
async fn no_key_appears_later_that_the_older_key_has_sealed() {
    let (store, clock) = (RingStore::new(), clock());
    let late = build(&store, &clock, first().with_former(2, [8; 32])).await.unwrap();
    // It has read the marks, and sealed a key for the next generation; then it sleeps.
    let sealing = &late.inner.sealing;
    let mut sleeping = ring::generate(3, MAIN_RING, Algorithm::Es256, sealing).await.unwrap();
    sleeping.times.published = clock.now();
    let new = build(&store, &clock, both()).await.unwrap();
    let done = new.reseal().await.unwrap();
    assert_eq!(done.removable, ["1"]);
    assert_eq!(store.insert(sleeping).await.unwrap(), KeyInserted::Taken);
    assert!(sealed_under(&store).iter().all(|key| key == "2"));
}

/// The same, if the key was marked by an order that was cut off and is never repeated.
#[tokio::test]
async fn a_mark_of_an_order_that_was_cut_off_is_no_fence() {
    let (store, clock) = (RingStore::new(), clock());
    let late = build(&store, &clock, first()).await.unwrap();
    let sealing = &late.inner.sealing;
    let sleeping = ring::generate(3, MAIN_RING, Algorithm::Es256, sealing).await.unwrap();
    let marked = store.set_check_value("sealing-key-replaced/1", None, Some(b"2*")).await;
    assert!(marked.unwrap());
    let third = AesGcmSealer::new(3, [9; 32]);
    let new = build(&store, &clock, third.clone().with_former(1, [7; 32])).await.unwrap();
    assert_eq!(new.reseal().await.unwrap().removable, ["1"]);
    assert_eq!(store.insert(sleeping).await.unwrap(), KeyInserted::Taken);
    build(&store, &clock, third).await.unwrap();
}

#[tokio::test]
async fn an_order_that_was_cut_off_is_completed_by_the_next() {
    let (store, clock) = (RingStore::new(), clock());
    build(&store, &clock, first()).await.unwrap();
    let new = build(&store, &clock, both()).await.unwrap();
    // The older key is marked, and then the store goes down.
    store.answers_lost.store(true, Ordering::SeqCst);
    new.reseal().await.unwrap_err();
    store.answers_lost.store(false, Ordering::SeqCst);
    // One key of the two is sealed again, and then the store goes down.
    store.last_update.store(true, Ordering::SeqCst);
    new.reseal().await.unwrap_err();
    store.last_update.store(false, Ordering::SeqCst);
    store.down(false);
    assert_eq!(sealed_under(&store).iter().filter(|key| *key == "1").count(), 1);
    let done = new.reseal().await.unwrap();
    assert_eq!((done.resealed, done.remaining, &done.removable[..]), (1, 0, &["1".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_may_seal_again_at_once_while_keys_rotate() {
    for _ in 0..10 {
        let (store, clock) = (RingStore::new(), clock());
        build(&store, &clock, first()).await.unwrap();
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(build(&store, &clock, both()).await.unwrap());
        }
        clock.advance(secs(30 * 86_400));
        let tasks: Vec<_> = nodes
            .iter()
            .cloned()
            .enumerate()
            .map(|(index, node)| {
                tokio::spawn(async move {
                    if index % 2 == 0 {
                        node.reseal().await.map(|done| done.resealed)
                    } else {
                        node.maintain().await.map(|_| 0)
                    }
                })
            })
            .collect();
        let mut resealed = 0;
        for task in tasks {
            resealed += task.await.unwrap().unwrap();
        }
        let under: Vec<String> = store
            .records()
            .iter()
            .filter(|record| record.is_published(clock.now()))
            .map(|record| first().key_of(&record.sealed).unwrap())
            .collect();
        assert!(under.iter().all(|key| key == "2"), "{under:?}");
        assert!(resealed <= 2, "each private key once: {resealed}");
        build(&store, &clock, second()).await.unwrap();
    }
}

/// One key that does not open does not keep the others under the older key, and is named.
#[tokio::test]
async fn what_can_be_sealed_again_is_and_the_rest_is_named() {
    let (store, clock) = (RingStore::new(), clock());
    build(&store, &clock, first()).await.unwrap();
    let new = build(&store, &clock, both()).await.unwrap();
    store.tamper(|records| *records[0].sealed.last_mut().unwrap() ^= 1);
    let error = new.reseal().await.unwrap_err();
    assert!(error.to_string().contains(store.records()[0].kid.as_str()), "{error}");
    assert!(matches!(error, KeyManagerError::Seal { source: SealError::Refused, .. }));
}

/// A record that another node writes at the same moment is tried again, until nothing more can be done.
#[tokio::test]
async fn a_lost_race_leaves_no_key_under_the_older_one() {
    for is_damaged in [false, true] {
        let (store, clock) = (RingStore::new(), clock());
        build(&store, &clock, first()).await.unwrap();
        // An earlier order has got as far as this.
        let marked = store.set_check_value("sealing-key-replaced/1", None, Some(b"2")).await;
        assert!(marked.unwrap());
        let is_raced = Arc::<AtomicBool>::default();
        let (keys, ring) = (both(), Arc::clone(&store));
        let service = Service { keys, store: ring, is_raced: Arc::clone(&is_raced) };
        let new = build(&store, &clock, service).await.unwrap();
        is_raced.store(true, Ordering::SeqCst);
        if is_damaged {
            store.tamper(|records| *records[0].sealed.last_mut().unwrap() ^= 1);
            let error = new.reseal().await.unwrap_err();
            assert!(matches!(error, KeyManagerError::Seal { .. }), "{error:?}");
            assert_eq!(sealed_under(&store), ["1", "2"], "the other key was not left behind");
        } else {
            let done = new.reseal().await.unwrap();
            assert_eq!((done.resealed, done.remaining), (2, 0));
            assert_eq!(sealed_under(&store), ["2", "2"]);
        }
        assert!(!is_raced.load(Ordering::SeqCst));
    }
}

/// A key that has ended may still be published by a node whose clock is behind.
#[tokio::test]
async fn a_key_is_sealed_again_until_it_has_ended_by_every_clock() {
    let skew = KeyPolicy::default().clock_skew;
    for (after, under) in [(skew - std::time::Duration::from_millis(1), "2"), (skew, "1")] {
        let (store, clock) = (RingStore::new(), clock());
        build(&store, &clock, first()).await.unwrap();
        let first = store.records()[0].clone();
        clock.set(first.times.signing.unwrap().published_until + after);
        let new = build(&store, &clock, both()).await.unwrap();
        assert_eq!(new.reseal().await.unwrap().removable, ["1"]);
        assert_eq!(store.records()[0].kid, first.kid);
        assert_eq!(sealed_under(&store)[0], under, "{after:?} after its end");
    }
}

/// What is never opened again need not be sealed again, even if nobody can open it any more.
#[tokio::test]
async fn a_compromised_key_is_left_as_it_is() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = build(&store, &clock, first()).await.unwrap();
    let bad = signer(&manager).await;
    let _ = manager.compromise(&bad).await.unwrap();
    let new = build(&store, &clock, both()).await.unwrap();
    let done = new.reseal().await.unwrap();
    assert_eq!((done.resealed, done.remaining, &done.removable[..]), (2, 0, &["1".to_owned()][..]));
    let left = store.records().into_iter().find(|record| record.kid == bad).unwrap();
    assert_eq!(first().key_of(&left.sealed).as_deref(), Some("1"));
    build(&store, &clock, second()).await.unwrap();
}

#[tokio::test]
async fn a_sealer_without_names_cannot_tell_what_to_seal_again() {
    /// Names its current key at most, and tells of no sealed value which key sealed it.
    #[derive(Debug)]
    struct Taciturn(Option<&'static str>);
    #[async_trait::async_trait]
    impl KeySealer for Taciturn {
        async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
            first().seal(context, plain).await
        }
        async fn unseal(
            &self,
            context: &[u8],
            sealed: &[u8],
        ) -> Result<zeroize::Zeroizing<Vec<u8>>, SealError> {
            first().unseal(context, sealed).await
        }
        fn current_key(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }
    }
    let store = RingStore::new();
    let manager = build(&store, &clock(), Taciturn(None)).await.unwrap();
    let error = manager.reseal().await.unwrap_err();
    assert!(matches!(error, KeyManagerError::UnnamedSealingKeys), "{error:?}");
    assert_eq!(manager.states().await.unwrap()[0].sealed_under, None, "an operator sees no name");
    // One that has no older key has nothing to seal again, and marks no key as replaced.
    let manager = build(&store, &clock(), Taciturn(Some("only"))).await.unwrap();
    let done = manager.reseal().await.unwrap();
    assert_eq!((done.resealed, done.remaining, done.removable), (0, 0, vec![]));
    assert_eq!(store.check_values().await.unwrap(), []);
}

/// All keys have ended, and the key-encryption key is gone: a new ring would hide that.
#[tokio::test]
async fn a_missing_key_is_never_answered_by_a_new_ring() {
    let (store, clock) = (RingStore::new(), clock());
    build(&store, &clock, first()).await.unwrap();
    clock.advance(secs(365 * 86_400));
    let before = store.records();
    let error = build(&store, &clock, second()).await.unwrap_err();
    assert!(matches!(&error, KeyManagerError::MissingSealingKey(key) if key == "1"), "{error:?}");
    assert_eq!(store.records(), before);
    // Even if the records are gone as well.
    store.tamper(Vec::clear);
    assert!(build(&store, &clock, second()).await.is_err());
    build(&store, &clock, both()).await.unwrap();
    build(&store, &clock, second()).await.unwrap();
}

#[tokio::test]
async fn no_private_key_is_stored_unsealed_except_by_that_name() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = build(&store, &clock, first()).await.unwrap();
    let is_plain = |store: &RingStore| {
        let opens =
            |bytes: &[u8]| crate::SigningKey::from_pkcs8_der(Algorithm::Es256, bytes).is_ok();
        let holds = |record: &KeyRecord| {
            (0..record.sealed.len()).any(|start| opens(&record.sealed[start..]))
        };
        store.records().iter().any(holds)
    };
    assert!(!is_plain(&store));
    drop(manager);

    let store = RingStore::new();
    let plain = KeyManager::builder(Arc::clone(&store) as _, danger::unsealed())
        .clock(Arc::clone(&clock) as _)
        .build()
        .await
        .unwrap();
    assert!(is_plain(&store));
    // A sealer takes nothing that is not sealed, unless it is told by that name.
    let error = build(&store, &clock, first()).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::Seal { source: SealError::Damaged, .. }), "{error:?}");
    let moving = KeyManager::builder(Arc::clone(&store) as _, danger::formerly_unsealed(first()))
        .clock(Arc::clone(&clock) as _)
        .build()
        .await
        .unwrap();
    assert_eq!(signer(&moving).await, signer(&plain).await);
    let done = moving.reseal().await.unwrap();
    assert_eq!((done.resealed, &*done.current), (2, "1"));
    assert_eq!(done.removable, ["unsealed"]);
    assert!(!is_plain(&store));
    // Another key with the id of the first is noticed, as it is without this help.
    let other = danger::formerly_unsealed(AesGcmSealer::new(1, [9; 32]));
    let other = KeyManager::builder(Arc::clone(&store) as _, other);
    let error = other.clock(Arc::clone(&clock) as _).build().await.unwrap_err();
    assert!(matches!(&error, KeyManagerError::OtherSealingKey(key) if key == "1"), "{error:?}");
    build(&store, &clock, first()).await.unwrap();
    let back = KeyManager::builder(Arc::clone(&store) as _, danger::unsealed());
    assert!(back.clock(clock as _).build().await.is_err());
}

/// Tenants of one store share the generations, and nothing else: each has its rings and its keys.
#[tokio::test]
async fn tenants_of_one_store_replace_their_keys_each_for_itself() {
    use cloakroom_core::store::TenantStore;

    let (store, clock) = (RingStore::new(), clock());
    let tenant = async |name: &str, sealer: AesGcmSealer| {
        let store = Arc::new(TenantStore::new(Arc::clone(&store), name).unwrap());
        KeyManager::builder(store, Arc::new(sealer))
            .further_algorithm(Algorithm::EdDsa)
            .clock(Arc::clone(&clock) as _)
            .build()
            .await
    };
    // Both call their key 1.
    let one = tenant("one", first()).await.unwrap();
    let two = tenant("two", AesGcmSealer::new(1, [5; 32])).await.unwrap();
    let before = two.states().await.unwrap();
    assert_eq!(one.states().await.unwrap().len(), 4);
    let new = tenant("one", both()).await.unwrap();
    let done = new.reseal().await.unwrap();
    assert_eq!((done.resealed, &done.removable[..]), (4, &["1".to_owned()][..]));
    assert_eq!(two.states().await.unwrap(), before);
    clock.advance(secs(40 * 86_400));
    two.maintain().await.unwrap();
    tenant("one", second()).await.unwrap();
    assert!(one.maintain().await.is_err(), "its key was replaced");
    let rings = |all: Vec<crate::KeyStatus>| {
        let signs = all.into_iter().filter(|key| key.signs_now);
        signs.map(|key| key.algorithm).collect::<Vec<_>>()
    };
    for manager in [&new, &two] {
        assert_eq!(rings(manager.states().await.unwrap()), ["ES256", "EdDSA"]);
    }
}
