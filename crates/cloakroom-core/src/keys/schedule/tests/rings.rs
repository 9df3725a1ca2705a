//! A further ring, beside the main ring.

use super::*;

const FURTHER: &str = "RS256";

/// Does what [`next_step`] says for both rings, as a node does.
fn settle_both(records: &mut Vec<KeyRecord>, now: UnixTime, policy: &KeyPolicy) {
    for _ in 0..50 {
        let steps = [MAIN_RING, FURTHER]
            .into_iter()
            .filter_map(|ring| Some((next_step(records, ring, now, policy)?, ring)));
        let step = steps.min_by_key(|(step, _)| !matches!(step, KeyStep::Publish { .. }));
        match step {
            None => return,
            Some((KeyStep::Publish { generation }, ring)) => {
                let mut key = key(generation, now);
                ring.clone_into(&mut key.ring);
                records.push(key);
            }
            Some((KeyStep::Schedule { generation, signing }, _)) => {
                let key = records.iter_mut().find(|key| key.generation == generation).unwrap();
                key.times.signing = Some(signing);
            }
            Some((KeyStep::Delete { generation }, _)) => {
                records.retain(|key| key.generation != generation);
            }
        }
    }
    panic!("it does not come to rest: {records:?}");
}

fn of_both(records: &[KeyRecord], now: UnixTime) -> [Option<u64>; 2] {
    [MAIN_RING, FURTHER].map(|ring| signer(records, ring, now).map(|key| key.generation))
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn rings_that_start_together_all_sign_at_once() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle_both(&mut records, now, &policy);
    assert_eq!(of_both(&records, now), [Some(1), Some(3)]);
    assert_eq!(records.len(), 4);
    // Each is rotated for itself.
    let later = now + policy.known_after();
    let (generation, signing) = rotate(&records, FURTHER, later, &policy).unwrap();
    assert_eq!(generation, 3);
    records[2].times.signing = Some(signing);
    settle_both(&mut records, later, &policy);
    assert_eq!(of_both(&records, later), [Some(1), Some(4)]);
    assert!(records.iter().any(|key| key.ring == FURTHER && key.generation == 5));
}

/// A change of algorithm is announced like a rotation.
#[test]
fn a_ring_that_is_added_later_is_published_before_it_signs() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut records, now, &policy);
    let later = now + Duration::from_secs(100);
    settle_both(&mut records, later, &policy);
    let start = later + policy.publish_ahead;
    let first = &records[2];
    assert_eq!((&*first.ring, first.times.signing.as_ref().unwrap().from), (FURTHER, start));
    assert!(first.is_published(later));
    assert_eq!(of_both(&records, start - MILLISECOND), [Some(1), None]);
    assert_eq!(rotate(&records, FURTHER, start - MILLISECOND, &policy), Err(None));
    assert_eq!(of_both(&records, start), [Some(1), Some(3)]);
    let before = records.clone();
    settle_both(&mut records, start - MILLISECOND, &policy);
    settle_both(&mut records, start, &policy);
    assert_eq!(records, before, "maintenance does not bring it forward");
}

#[test]
fn a_ring_whose_first_key_is_ended_before_it_signed_is_still_announced() {
    let policy = KeyPolicy::default();
    let now = at(1_000_000);
    for compromised in [false, true] {
        let mut records = vec![];
        settle(&mut records, now, &policy);
        let later = now + Duration::from_secs(100);
        settle_both(&mut records, later, &policy);
        let known = later + policy.publish_ahead;
        // Its successor was published with it, and takes its time; but not a month.
        let ended = later + Duration::from_secs(60);
        if compromised {
            records[2].compromised_at = Some(ended);
        } else {
            records[2].times.signing = retire(&records, 3, ended, &policy).unwrap();
        }
        settle_both(&mut records, ended, &policy);
        assert_eq!(of_both(&records, known - MILLISECOND), [Some(1), None], "{compromised}");
        assert_eq!(of_both(&records, known), [Some(1), Some(4)], "{compromised}");
    }
}

#[test]
fn in_an_emergency_a_ring_that_has_signed_signs_with_what_it_has() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle_both(&mut records, now, &policy);
    let later = now + policy.known_after();
    records[2].compromised_at = Some(later);
    assert_eq!(of_both(&records, later), [Some(1), Some(4)], "its successor is known");
    records[3].compromised_at = Some(later);
    assert_eq!(of_both(&records, later), [Some(1), None]);
    settle_both(&mut records, later, &policy);
    let [main, further] = of_both(&records, later);
    assert_eq!(main, Some(1), "the other ring is as it was");
    assert!(further.is_some_and(|generation| generation > 4));
    let key = records.iter().find(|key| Some(key.generation) == further).unwrap();
    assert_eq!(key.times.signing.as_ref().unwrap().from, later, "its times say that it signs");
}

#[test]
fn a_main_ring_that_lost_its_keys_signs_at_once_whatever_another_ring_has_signed() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle_both(&mut records, now, &policy);
    let later = now + policy.known_after();
    records.retain(|key| key.ring == FURTHER);
    settle_both(&mut records, later, &policy);
    let key = signer(&records, MAIN_RING, later).unwrap();
    assert_eq!(key.times.signing.as_ref().unwrap().from, later);
}

#[test]
fn a_key_that_was_compromised_when_it_was_to_begin_has_never_signed() {
    let (from, until) = (at(1_000), at(9_000));
    let mut records = [key(1, at(0)), key(2, at(0))];
    for (key, from) in records.iter_mut().zip([from, until]) {
        FURTHER.clone_into(&mut key.ring);
        key.times.signing = Some(Signing::new(from, from + Duration::from_secs(8_000), at(99_000)));
    }
    for (compromised, signs) in [(from, None), (from + MILLISECOND, Some(2))] {
        records[0].compromised_at = Some(compromised);
        let signer = signer(&records, FURTHER, compromised).map(|key| key.generation);
        assert_eq!(signer, signs, "its successor signs only if the ring has begun");
    }
}

#[test]
fn a_key_that_is_retired_stays_published_and_a_signer_needs_a_known_successor() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut records, now, &policy);
    let first = retire(&records, 1, now, &policy);
    assert_eq!(first, Ok(Some(Signing::new(now, now, now + policy.retention))));
    records[0].times.signing = first.unwrap();
    let later = now + Duration::from_secs(60);
    settle(&mut records, later, &policy);
    assert_eq!(retire(&records, 1, later, &policy), Ok(None), "it has ended");
    let known = later + policy.known_after();
    assert_eq!(retire(&records, 2, later, &policy), Err(Some(known)), "it signs");
    // The third has not begun, and is on every node by now.
    let third = retire(&records, 3, later, &policy);
    assert_eq!(third, Ok(Some(Signing::new(later, later, later + policy.retention))));
}

#[test]
fn a_successor_that_not_every_verifier_knows_does_not_count_as_born_with_its_ring() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut records, now, &policy);
    let later = now + Duration::from_secs(100);
    settle_both(&mut records, later, &policy);
    let start = later + policy.publish_ahead;
    // Its second key was lost, and another is published right before the first one signs.
    records.retain(|key| key.generation != 4);
    settle_both(&mut records, start - MILLISECOND, &policy);
    let known = start - MILLISECOND + policy.known_after();
    assert_eq!(rotate(&records, FURTHER, start, &policy), Err(Some(known)));
}

#[test]
fn a_ring_that_this_node_does_not_know_is_left_alone() {
    let (policy, now, mut records) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle_both(&mut records, now, &policy);
    let before = records.clone();
    settle(&mut records, now + Duration::from_secs(86_400), &policy);
    assert_eq!(records, before);
    assert_eq!(retire(&records, 99, now, &policy), Ok(None), "there is no such key");
}
