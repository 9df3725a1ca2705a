use std::sync::atomic::Ordering;
use std::time::Duration;

use cloakroom_core::keys::schedule::KeyState;
use cloakroom_core::time::Clock as _;

use super::super::*;
use crate::test_support::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Nobody runs maintenance any more, but the store can be read: keys go on the schedule that they
/// have, and then there are none, rather than one whose time is over.
#[tokio::test]
async fn without_maintenance_each_key_ends_when_its_times_say_so() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let [first, second] = &store.records()[..] else { panic!("two keys") };
    let (end, last) =
        (first.times.signing.as_ref().unwrap(), second.times.signing.as_ref().unwrap());
    assert_eq!(end.until, last.from);
    let writes = store.writes.load(Ordering::SeqCst);

    for (now, signs, published) in [
        (end.until - MILLISECOND, Some(first), vec![first, second]),
        (end.until, Some(second), vec![first, second]),
        (end.published_until - MILLISECOND, Some(second), vec![first, second]),
        (end.published_until, Some(second), vec![second]),
        (last.until - MILLISECOND, Some(second), vec![second]),
        (last.until, None, vec![second]),
        (last.published_until - MILLISECOND, None, vec![second]),
        (last.published_until, None, vec![]),
    ] {
        // The ring is loaded anew, at this very moment.
        clock.advance(manager.policy().reload + secs(1));
        clock.set(now);
        manager.refresh().await.unwrap();
        let signer = manager.signer().await.map(|signer| signer.kid().clone());
        match signs {
            Some(key) => assert_eq!(signer.unwrap(), key.kid, "{now:?}"),
            None => assert!(matches!(signer, Err(KeyManagerError::NoKey)), "{now:?}"),
        }
        let expected: Vec<&Kid> = published.iter().map(|key| &key.kid).collect();
        match manager.jwks().await {
            Ok(jwks) => assert_eq!(kids(&jwks).iter().collect::<Vec<_>>(), expected, "{now:?}"),
            Err(error) => {
                assert!(matches!(error, KeyManagerError::NoKey), "{error}");
                assert!(expected.is_empty(), "{now:?}");
            }
        }
        for key in [first, second] {
            let is_known = manager.keys().unwrap().contains(&key.kid);
            assert_eq!(is_known, published.contains(&key), "{now:?}");
            assert_eq!(is_known, key.state(now) != KeyState::Gone, "{now:?}");
        }
    }
    assert_eq!(store.writes.load(Ordering::SeqCst), writes);
}

/// A key whose time was over while the ring in memory was as good as it ever was.
#[tokio::test]
async fn a_key_that_ended_since_the_last_load_does_not_sign() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let last = store.records()[1].times.signing.clone().unwrap();
    clock.set(last.until - secs(1));
    manager.refresh().await.unwrap();
    store.down(true);
    manager.signer().await.unwrap();
    clock.set(last.until);
    assert!(matches!(manager.signer().await, Err(KeyManagerError::NoKey)));
}

/// The rule on a compromised key must outlive what every verifier may think of it.
#[tokio::test]
async fn a_rule_on_a_compromised_key_lasts_until_no_verifier_trusts_it() {
    let policy = KeyPolicy::default();
    let trusted = policy.jwks_max_age + policy.clock_skew;
    // One that signs, the next one, one that has ended, and one that is out of the JWK Set.
    let after = policy.rotation + policy.retention;
    for (index, wait) in [(0, 0), (1, 0), (0, policy.rotation.as_secs()), (0, after.as_secs() + 60)]
    {
        let (store, clock) = (RingStore::new(), clock());
        let manager = manager(&store, &clock).await;
        let record = store.records().swap_remove(index);
        clock.advance(secs(wait));
        let rule = manager.compromise(&record.kid).await.unwrap().rule_until;
        let end = record.times.signing.unwrap().published_until.max(clock.now());
        assert_eq!(rule, end + trusted, "key {index} after {wait} s");
    }
}

#[tokio::test]
async fn a_rule_on_a_key_that_never_signed_does_not_end_in_the_past() {
    let policy = KeyPolicy::default();
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    // Published, and then nobody gave it its times.
    store.tamper(|ring| ring[1].times.signing = None);
    let kid = store.records()[1].kid.clone();
    clock.advance(secs(3600));
    let at = clock.now();
    let expected = at + policy.retention + policy.jwks_max_age + policy.clock_skew;
    assert_eq!(manager.compromise(&kid).await.unwrap().rule_until, expected);
    // Asked again later, it counts from when the key was declared compromised.
    clock.advance(secs(3600));
    assert_eq!(manager.compromise(&kid).await.unwrap().rule_until, expected);
    // Its record stays as long as the rule: who repeats the call must find it.
    clock.set(expected - MILLISECOND);
    manager.maintain().await.unwrap();
    assert!(store.records().iter().any(|record| record.kid == kid));
    clock.set(expected);
    manager.maintain().await.unwrap();
    assert!(store.records().iter().all(|record| record.kid != kid));
}
