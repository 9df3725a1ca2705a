mod algorithms;
mod ends;
mod import;
mod operator;
mod outage;
mod races;
mod reseal;
mod writes;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use cloakroom_core::keys::KeyRecord;
use cloakroom_core::record::UnknownFields;
use cloakroom_core::time::{Clock as _, UnixTime};

use super::*;
use crate::test_support::*;

#[tokio::test]
async fn an_empty_ring_signs_at_once_and_publishes_a_successor() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let jwks = manager.jwks().await.unwrap();
    assert_eq!(kids(&jwks).len(), 2);
    assert!(kids(&jwks).contains(&signer(&manager).await));
    assert!(jwks.etag.starts_with('"') && jwks.etag.ends_with('"'));
    assert_eq!(jwks.max_age, KeyPolicy::default().jwks_max_age);
    assert!(!jwks.json.contains("\"d\""));

    // Every node serves the same bytes under the same tag.
    let other = crate::test_support::manager(&store, &clock).await;
    assert_eq!(*other.jwks().await.unwrap(), *jwks);
    assert_eq!(signer(&other).await, signer(&manager).await);
    let events = manager.maintain().await.unwrap();
    assert_eq!(events.len(), 4, "two published, two scheduled: {events:?}");
    assert_eq!(manager.maintain().await.unwrap(), [], "reported once");
    assert_eq!(other.maintain().await.unwrap(), [], "it found them there");
}

#[tokio::test]
async fn requests_ask_the_store_once_a_reload_and_together() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let before = store.loads();
    for _ in 0..1000 {
        manager.signer().await.unwrap();
        manager.jwks().await.unwrap();
        manager.keys().unwrap();
    }
    assert_eq!(store.loads(), before);

    clock.advance(KeyPolicy::default().reload + secs(1));
    let many: Vec<_> = (0..20)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move {
                manager.jwks().await.unwrap();
                manager.signer().await.unwrap();
            })
        })
        .collect();
    for one in many {
        one.await.unwrap();
    }
    assert_eq!(store.loads(), before + 1);
}

#[tokio::test]
async fn a_planned_rotation_takes_effect_by_the_clock_alone() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let first = signer(&manager).await;
    let until = store.records()[0].times.signing.as_ref().unwrap().until;
    clock.set(until - secs(10));
    manager.maintain().await.unwrap();
    let loads = store.loads();
    store.down(true);
    assert_eq!(signer(&manager).await, first);
    clock.set(until);
    assert_ne!(signer(&manager).await, first);
    assert_eq!(store.loads(), loads);
}

#[tokio::test]
async fn what_a_newer_version_wrote_survives_a_rotation() {
    let (store, clock) = (RingStore::new(), clock());
    let first = manager(&store, &clock).await;
    let unknown = UnknownFields::from_iter([("from the future".to_owned(), true.into())]);
    store.tamper(|records| {
        for record in records {
            record.unknown = unknown.clone();
            record.times.unknown = unknown.clone();
            record.times.signing.as_mut().unwrap().unknown = unknown.clone();
        }
    });
    first.maintain().await.unwrap();
    clock.advance(KeyPolicy::default().publish_ahead);
    first.maintain().await.unwrap();
    first.rotate().await.unwrap();
    let (records, ended) = (store.records(), clock.now());
    let old: Vec<_> = records.iter().filter(|record| !record.unknown.is_empty()).collect();
    let signing = |record: &KeyRecord| record.times.signing.clone().unwrap();
    assert_eq!(old.len(), 2);
    assert_eq!(signing(old[0]).until, ended, "it was written again");
    for record in old {
        assert_eq!((&record.times.unknown, &signing(record).unknown), (&unknown, &unknown));
    }
}

#[tokio::test]
async fn over_a_year_every_signer_was_known_before_it_signed() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default().rotation(secs(7 * 86_400));
    let manager = with_policy(&store, &clock, policy).await;
    let mut first_seen: HashMap<Kid, UnixTime> = HashMap::new();
    let mut last_signed: HashMap<Kid, UnixTime> = HashMap::new();
    let mut current = signer(&manager).await;
    // Steps that share no divisor with the schedule; now and then nobody maintains for a while.
    for step in 0_u32..3000 {
        clock.advance(secs(3 * 3600 + 7));
        if step % 11 != 0 {
            manager.maintain().await.unwrap();
        }
        let now = clock.now();
        let published = kids(&manager.jwks().await.unwrap());
        for kid in &published {
            first_seen.entry(kid.clone()).or_insert(now);
        }
        let signer = signer(&manager).await;
        assert!(published.contains(&signer));
        if signer != current {
            let known = now.since(first_seen[&signer]);
            assert!(known >= policy.known_after(), "{signer} after {known:?}");
            current = signer.clone();
        }
        last_signed.insert(signer, now);
        for (kid, at) in &last_signed {
            let alive = now.since(*at) <= policy.max_token_life + policy.leeway;
            assert!(!alive || published.contains(kid), "{kid} is still needed");
        }
        assert!(published.len() <= 4, "spent keys go: {published:?}");
    }
    assert!(last_signed.len() > 45, "{} keys signed", last_signed.len());
    assert!(store.records().len() <= 4);
}

#[tokio::test]
async fn a_rotation_on_order_waits_until_verifiers_know_the_successor() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let manager = manager(&store, &clock).await;
    let other = crate::test_support::manager(&store, &clock).await;
    let first = signer(&manager).await;
    clock.advance(secs(5));
    let event = manager.rotate().await.unwrap();
    let second = signer(&manager).await;
    assert_ne!(first, second);
    assert_eq!(event, KeyEvent::Rotated { from: first.clone(), to: second.clone() });
    let published = kids(&manager.jwks().await.unwrap());
    assert!(published.contains(&first), "what it signed is still good");
    assert_eq!(published.len(), 3, "and the next successor is there");

    assert_eq!(signer(&other).await, first, "until its next load");
    clock.advance(policy.reload + secs(1));
    assert_eq!(signer(&other).await, second);

    let Err(KeyManagerError::SuccessorNotKnown { ready_at }) = manager.rotate().await else {
        panic!("nobody knows the third key");
    };
    assert_eq!(signer(&manager).await, second);
    clock.set(ready_at);
    manager.rotate().await.unwrap();
    assert_ne!(signer(&manager).await, second);
}

#[tokio::test]
async fn a_slow_insert_does_not_count_as_known_early() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    *store.slow_insert.lock().unwrap() = Some((Arc::clone(&clock), secs(1800)));
    let manager = manager(&store, &clock).await;
    manager.rotate().await.unwrap();
    let Err(KeyManagerError::SuccessorNotKnown { ready_at }) = manager.rotate().await else {
        panic!("the successor's insert has only just returned");
    };
    assert_eq!(ready_at, clock.now() + policy.known_after());
}

#[tokio::test]
async fn a_compromised_key_is_out_at_once_and_for_ever() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let manager = manager(&store, &clock).await;
    let bad = signer(&manager).await;
    let end = store.records()[0].times.signing.as_ref().unwrap().published_until;
    clock.advance(secs(5));
    let done = manager.compromise(&bad).await.unwrap();
    assert_eq!(done.kid, bad);
    assert_eq!(done.rule_until, end + policy.jwks_max_age + policy.clock_skew);
    let published = kids(&manager.jwks().await.unwrap());
    assert!(!published.contains(&bad));
    assert_eq!(published.len(), 2, "a new successor was published");
    assert!(!manager.keys().unwrap().contains(&bad));
    assert_ne!(signer(&manager).await, bad);

    clock.advance(secs(5));
    assert_eq!(manager.compromise(&bad).await.unwrap(), done, "repeatable");
    let marked = |event: &&KeyEvent| matches!(event, KeyEvent::Compromised { .. });
    let events = manager.maintain().await.unwrap();
    assert_eq!(events.iter().filter(marked).count(), 1);

    let unknown = Kid::new("unknown").unwrap();
    assert!(matches!(
        manager.compromise(&unknown).await,
        Err(KeyManagerError::UnknownKid(kid)) if kid == unknown
    ));
}

#[tokio::test]
async fn a_compromise_counts_here_even_if_the_store_fails_right_after() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let bad = signer(&manager).await;
    let etag = manager.jwks().await.unwrap().etag.clone();
    store.last_update.store(true, Ordering::SeqCst);
    let done = manager.compromise(&bad).await.unwrap();
    assert!(done.rule_until > clock.now());
    assert_ne!(signer(&manager).await, bad);
    let jwks = manager.jwks().await.unwrap();
    assert!(!kids(&jwks).contains(&bad));
    assert_ne!(jwks.etag, etag);
    clock.advance(secs(61));
    assert!(manager.jwks().await.is_err(), "no younger than it was");
}

#[tokio::test]
async fn when_every_key_is_compromised_a_new_one_signs_at_once() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let old = kids(&manager.jwks().await.unwrap());
    store.tamper(|ring| {
        for record in ring {
            record.compromised_at = Some(START);
            record.version += 1;
        }
    });
    // Nothing can be made just now: an error, and no empty JWK Set.
    store.writes_fail.store(true, Ordering::SeqCst);
    assert!(manager.maintain().await.is_err());
    assert!(matches!(manager.jwks().await, Err(KeyManagerError::NoKey)));
    assert!(matches!(manager.signer().await, Err(KeyManagerError::NoKey)));

    store.writes_fail.store(false, Ordering::SeqCst);
    manager.maintain().await.unwrap();
    let new = kids(&manager.jwks().await.unwrap());
    assert!(new.contains(&signer(&manager).await));
    assert!(new.iter().all(|kid| !old.contains(kid)));
}

#[tokio::test]
async fn every_algorithm_with_a_public_half_has_a_ring() {
    for algorithm in ["EdDSA", "ES384", "PS256"] {
        let (store, clock) = (RingStore::new(), clock());
        let manager = KeyManager::builder(Arc::clone(&store) as _, sealer())
            .clock(Arc::clone(&clock) as _)
            .algorithm(algorithm.parse().unwrap())
            .build()
            .await
            .unwrap();
        let signer = manager.signer().await.unwrap();
        assert_eq!(signer.algorithm().as_str(), algorithm);
        assert!(manager.keys().unwrap().contains(signer.kid()));
    }
    let store = RingStore::new();
    let secret = KeyManager::builder(Arc::clone(&store) as _, sealer())
        .algorithm(crate::danger::HS256)
        .build();
    assert!(matches!(secret.await.unwrap_err(), KeyManagerError::NotPublic(_)));
}

#[tokio::test]
async fn debug_shows_kids_and_nothing_sealed() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let text = format!("{manager:?}");
    assert!(text.contains(signer(&manager).await.as_str()));
    assert!(!text.contains("sealed") && text.len() < 200, "{text}");
}

#[tokio::test]
async fn a_key_counts_as_published_when_its_insert_was_sent_unless_that_took_too_long() {
    let policy = KeyPolicy::default();
    for (takes, expected) in [
        // Both inserts come before both schedules, which are when a key is first seen.
        (secs(20), [secs(0), secs(20)]),
        (policy.reload, [2 * policy.reload, policy.reload]),
        (policy.reload + secs(1), [2 * (policy.reload + secs(1)); 2]),
    ] {
        let (store, clock) = (RingStore::new(), clock());
        *store.slow_insert.lock().unwrap() = Some((Arc::clone(&clock), takes));
        let manager = manager(&store, &clock).await;
        *store.slow_insert.lock().unwrap() = None;
        let published =
            || store.records()[..2].iter().map(|key| key.times.published).collect::<Vec<_>>();
        assert_eq!(published(), expected.map(|after| START + after), "{takes:?}");
        // Times that are written later change nothing about that.
        clock.advance(secs(7200));
        manager.rotate().await.unwrap();
        assert_eq!(published(), expected.map(|after| START + after), "{takes:?}");
    }
}

/// Each write is conditional on the version before it. If a version occurred twice, a late write of another
/// node could succeed.
#[tokio::test]
async fn a_record_never_has_a_version_that_it_had_before() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let version = |kid: &Kid| {
        store.records().iter().find(|record| record.kid == *kid).map(|record| record.version)
    };
    let first = signer(&manager).await;
    assert_eq!(version(&first), Some(2), "published, scheduled");
    manager.rotate().await.unwrap();
    assert_eq!(version(&first), Some(3));
    manager.maintain().await.unwrap();
    assert_eq!(version(&first), Some(4), "its use was noted");
    let _ = manager.compromise(&first).await.unwrap();
    assert_eq!(version(&first), Some(5));
}

#[tokio::test]
async fn a_key_that_is_spent_is_deleted_and_that_is_told_once() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let manager = manager(&store, &clock).await;
    let first = store.records()[0].clone();
    let end = first.times.signing.unwrap().published_until;
    clock.set(end + policy.jwks_max_age + policy.clock_skew);
    let events = manager.maintain().await.unwrap();
    let deleted = |event: &&KeyEvent| matches!(event, KeyEvent::Deleted { .. });
    let deleted: Vec<_> = events.iter().filter(deleted).collect();
    assert_eq!(deleted, [&KeyEvent::Deleted { kid: first.kid.clone() }]);
    assert!(store.records().iter().all(|record| record.kid != first.kid));
}

#[tokio::test]
async fn a_key_is_unsealed_once_however_often_the_ring_is_loaded() {
    #[derive(Debug)]
    struct Counting(Arc<crate::AesGcmSealer>, std::sync::atomic::AtomicUsize);
    #[async_trait::async_trait]
    impl KeySealer for Counting {
        async fn seal(&self, context: &[u8], key: &[u8]) -> Result<Vec<u8>, crate::SealError> {
            self.0.seal(context, key).await
        }
        async fn unseal(
            &self,
            context: &[u8],
            sealed: &[u8],
        ) -> Result<zeroize::Zeroizing<Vec<u8>>, crate::SealError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unseal(context, sealed).await
        }
    }
    let (store, clock) = (RingStore::new(), clock());
    let sealer = Arc::new(Counting(sealer(), Default::default()));
    let manager = KeyManager::builder(Arc::clone(&store) as _, Arc::clone(&sealer) as _)
        .clock(Arc::clone(&clock) as _)
        .build()
        .await
        .unwrap();
    let before = sealer.1.load(Ordering::SeqCst);
    for _ in 0..10 {
        clock.advance(KeyPolicy::default().reload + secs(1));
        manager.jwks().await.unwrap();
    }
    assert_eq!(sealer.1.load(Ordering::SeqCst), before);
}
