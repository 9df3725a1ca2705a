use proptest::prelude::*;

use super::*;
use crate::ids::Kid;

fn at(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs)
}

fn key(generation: u64, published: UnixTime) -> KeyRecord {
    KeyRecord {
        generation,
        version: 1,
        kid: Kid::new(generation.to_string()).unwrap(),
        algorithm: "ES256".into(),
        public_jwk: serde_json::Value::Null,
        sealed: vec![],
        times: KeyTimes::published(published),
        compromised_at: None,
        unknown: Default::default(),
    }
}

/// Does what [`next_step`] says until it says nothing.
fn settle(ring: &mut Vec<KeyRecord>, now: UnixTime, policy: &KeyPolicy) {
    for _ in 0..32 {
        match next_step(ring, now, policy) {
            None => return,
            Some(KeyStep::Publish { generation }) => ring.push(key(generation, now)),
            Some(KeyStep::Schedule { generation, signing }) => {
                let key = ring.iter_mut().find(|key| key.generation == generation).unwrap();
                key.times.signing = Some(signing);
            }
            Some(KeyStep::Delete { generation }) => ring.retain(|key| key.generation != generation),
        }
    }
    panic!("the ring never comes to rest: {ring:#?}");
}

#[test]
fn the_defaults_are_consistent_and_each_bound_bites() {
    let good = KeyPolicy::default();
    good.check().unwrap();
    let second = Duration::from_secs(1);
    for (bad, setting) in [
        (KeyPolicy { publish_ahead: good.known_after() - second, ..good }, "publish_ahead"),
        (KeyPolicy { rotation: good.publish_ahead - second, ..good }, "rotation"),
        (KeyPolicy { retention: good.max_token_life, ..good }, "retention"),
        (KeyPolicy { max_blind: good.reload - second, ..good }, "max_blind"),
    ] {
        assert_eq!(bad.check().unwrap_err().setting, setting);
    }
}

#[test]
fn an_empty_ring_signs_at_once_and_has_a_known_successor() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    assert_eq!(ring.len(), 2);
    assert_eq!(signer(&ring, now).unwrap().generation, 1);
    assert!(ring[1].times.published <= ring[0].times.signing.as_ref().unwrap().from);
    assert!(rotate(&ring, now, &policy).is_ok(), "its successor was never unknown");
}

#[test]
fn a_rotation_on_order_waits_until_the_successor_is_known() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    let (generation, signing) = rotate(&ring, now, &policy).unwrap();
    assert_eq!(generation, 1);
    ring[0].times.signing = Some(signing);
    let later = now + Duration::from_secs(1);
    settle(&mut ring, later, &policy);
    assert_eq!(signer(&ring, later).unwrap().generation, 2);
    assert_eq!(ring[1].times.signing.as_ref().unwrap().from, later, "its times say that it signs");
    assert_eq!(ring[0].state(later), KeyState::Retired);
    assert_eq!(rotate(&ring, later, &policy), Err(Some(later + policy.known_after())));
    assert!(rotate(&ring, later + policy.known_after(), &policy).is_ok());
}

#[test]
fn a_compromised_key_is_out_at_once_and_its_successor_signs() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    ring[0].compromised_at = Some(now);
    assert_eq!(ring[0].state(now), KeyState::Gone);
    assert_eq!(signer(&ring, now).unwrap().generation, 2);
    settle(&mut ring, now, &policy);
    assert_eq!(ring.len(), 3, "its record stays, a new successor came");
}

#[test]
fn an_issuer_that_slept_for_a_year_signs_again() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    let later = now + Duration::from_secs(365 * 86_400);
    settle(&mut ring, later, &policy);
    let signer = signer(&ring, later).unwrap();
    assert_eq!(signer.generation, 3);
    assert!(ring.iter().all(|key| key.generation > 2), "what expired is gone: {ring:?}");
}

proptest! {
    /// Housekeeping at any times, orders and emergencies in between: there is always a signer; it
    /// was known to every verifier before it signed, unless nobody signed before it; and it stays
    /// published as long as what it signed may live.
    #[test]
    fn verifiers_always_know_the_signer(
        steps in prop::collection::vec((1u64..200_000, 0u8..10), 1..200)
    ) {
        let policy = KeyPolicy::default();
        let mut now = at(1_000_000);
        let mut ring = vec![];
        let mut last_signed: Option<(KeyRecord, UnixTime)> = None;
        settle(&mut ring, now, &policy);
        for (secs, event) in steps {
            now = now + Duration::from_secs(secs);
            if event == 0 && let Ok((generation, signing)) = rotate(&ring, now, &policy) {
                let key = ring.iter_mut().find(|key| key.generation == generation).unwrap();
                key.times.signing = Some(signing);
            }
            settle(&mut ring, now, &policy);
            let signer = signer(&ring, now).unwrap().clone();
            prop_assert!(signer.is_published(now));
            if let Some((before, signed_at)) = &last_signed
                && before.generation != signer.generation
            {
                let known = signer.times.published + policy.known_after();
                let first = signer.times.published <= before.times.signing.as_ref().unwrap().from;
                prop_assert!(now >= known || first || now >= before.times.signing.as_ref().unwrap().until);
                let still = ring.iter().find(|key| key.generation == before.generation);
                if now < *signed_at + policy.max_token_life {
                    prop_assert!(still.is_some_and(|key| key.is_published(now)));
                }
            }
            last_signed = Some((signer, now));
        }
    }
}
