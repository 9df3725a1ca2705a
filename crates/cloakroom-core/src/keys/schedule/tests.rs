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
        ring: String::new(),
        public_jwk: serde_json::Value::Null,
        sealed: vec![],
        times: KeyTimes::published(published),
        compromised_at: None,
        last_used: None,
        unknown: Default::default(),
    }
}

/// Does what [`next_step`] says until it says nothing.
fn settle(ring: &mut Vec<KeyRecord>, now: UnixTime, policy: &KeyPolicy) {
    for _ in 0..32 {
        match next_step(ring, MAIN_RING, now, policy) {
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
    assert_eq!(good.known_after(), Duration::from_secs(3600 + 60 + 60 + 5));
    let millisecond = Duration::from_millis(1);
    type Set = fn(&mut KeyPolicy, Duration);
    let bounds: [(&str, Duration, Set); 4] = [
        ("publish_ahead", good.known_after(), |policy, value| policy.publish_ahead = value),
        ("rotation", good.publish_ahead, |policy, value| policy.rotation = value),
        // The longest token, the skew, the leeway, and how long a node signs blindly.
        ("retention", Duration::from_secs(3600 + 5 + 30 + 3600), |policy, value| {
            policy.retention = value;
        }),
        ("max_blind", good.reload, |policy, value| policy.max_blind = value),
    ];
    for (setting, least, set) in bounds {
        let with = |value| {
            let mut policy = good;
            set(&mut policy, value);
            policy.check()
        };
        with(least).unwrap();
        let PolicyError::TooShort { setting: named, found, least: asked, .. } =
            with(least - millisecond).unwrap_err()
        else {
            panic!("{setting} is not too short");
        };
        assert_eq!((named, found, asked), (setting, least - millisecond, least));
    }
}

#[test]
fn an_empty_ring_signs_at_once_and_has_a_known_successor() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    assert_eq!(ring.len(), 2);
    assert_eq!(signer(&ring, MAIN_RING, now).unwrap().generation, 1);
    assert!(ring[1].times.published <= ring[0].times.signing.as_ref().unwrap().from);
    assert!(rotate(&ring, MAIN_RING, now, &policy).is_ok(), "its successor was never unknown");
}

#[test]
fn a_rotation_on_order_waits_until_the_successor_is_known() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    let (generation, signing) = rotate(&ring, MAIN_RING, now, &policy).unwrap();
    assert_eq!(generation, 1);
    ring[0].times.signing = Some(signing);
    let later = now + Duration::from_secs(1);
    settle(&mut ring, later, &policy);
    assert_eq!(signer(&ring, MAIN_RING, later).unwrap().generation, 2);
    assert_eq!(ring[1].times.signing.as_ref().unwrap().from, later, "its times say that it signs");
    assert_eq!(ring[0].state(later), KeyState::Retired);
    assert_eq!(rotate(&ring, MAIN_RING, later, &policy), Err(Some(later + policy.known_after())));
    assert!(rotate(&ring, MAIN_RING, later + policy.known_after(), &policy).is_ok());
}

#[test]
fn a_compromised_key_is_out_at_once_and_its_successor_signs() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    ring[0].compromised_at = Some(now);
    assert_eq!(ring[0].state(now), KeyState::Gone);
    assert_eq!(signer(&ring, MAIN_RING, now).unwrap().generation, 2);
    settle(&mut ring, now, &policy);
    assert_eq!(ring.len(), 3, "its record stays, a new successor came");
}

#[test]
fn an_issuer_that_slept_for_a_year_signs_again() {
    let (policy, now, mut ring) = (KeyPolicy::default(), at(1_000_000), vec![]);
    settle(&mut ring, now, &policy);
    let later = now + Duration::from_secs(365 * 86_400);
    settle(&mut ring, later, &policy);
    let signer = signer(&ring, MAIN_RING, later).unwrap();
    assert_eq!(signer.generation, 3);
    assert!(ring.iter().all(|key| key.generation > 2), "what expired is gone: {ring:?}");
}

/// A key with its times.
fn scheduled(
    generation: u64,
    published: u64,
    from: u64,
    until: u64,
    policy: &KeyPolicy,
) -> KeyRecord {
    let (from, until) = (at(from), at(until));
    let signing = Signing::new(from, until, until + policy.retention);
    let times = KeyTimes { signing: Some(signing), ..KeyTimes::published(at(published)) };
    KeyRecord { times, ..key(generation, at(published)) }
}

#[test]
fn a_key_signs_until_its_successor_that_was_published_late_is_known() {
    const END: u64 = 10_000_000;
    let policy = KeyPolicy::default();
    let ahead = policy.publish_ahead.as_secs();
    // Maintenance comes back when the only key that is left has this long to go.
    for left in [1, ahead / 2, ahead - 1, ahead, ahead + 1] {
        let now = END - left;
        let mut ring = vec![scheduled(7, 0, 1_000, END, &policy)];
        settle(&mut ring, at(now), &policy);
        let times = |generation: u64| {
            let key = ring.iter().find(|key| key.generation == generation).unwrap();
            (key.times.published, key.times.signing.clone().unwrap())
        };
        let end = END.max(now + ahead);
        let (_, old) = times(7);
        let expected = scheduled(7, 0, 1_000, end, &policy).times.signing.unwrap();
        assert_eq!(old, expected, "{left} s left");
        let (published, new) = times(8);
        assert_eq!((published, new.from), (at(now), at(end)), "{left} s left");
        for (time, generation) in
            [(now, 7), (END, if end > END { 7 } else { 8 }), (end - 1, 7), (end, 8)]
        {
            assert_eq!(
                signer(&ring, MAIN_RING, at(time)).unwrap().generation,
                generation,
                "{left} s left"
            );
        }
    }
}

#[test]
fn the_key_that_is_kept_longer_is_the_one_right_before() {
    let policy = KeyPolicy::default();
    // The last of three, which leave no gap but between the second and the third.
    let mut ring = vec![
        scheduled(3, 0, 1_000, 1_000_000, &policy),
        scheduled(4, 0, 1_000_000, 2_000_000, &policy),
        scheduled(5, 0, 2_500_000, 4_000_000, &policy),
    ];
    let end = at(2_500_000);
    let signing = Signing::new(at(1_000_000), end, end + policy.retention);
    // By generation, not by where they stand.
    ring.reverse();
    let step = next_step(&ring, MAIN_RING, at(500_000), &policy);
    assert_eq!(step, Some(KeyStep::Schedule { generation: 4, signing }));
}

#[test]
fn a_third_key_is_published_ahead_of_a_change_and_not_before() {
    let policy = KeyPolicy::default();
    let ring =
        [scheduled(1, 0, 0, 5_000_000, &policy), scheduled(2, 0, 5_000_000, 9_000_000, &policy)];
    let near = at(5_000_000) - policy.publish_ahead;
    let millisecond = Duration::from_millis(1);
    assert_eq!(next_step(&ring, MAIN_RING, near - millisecond, &policy), None);
    assert_eq!(
        next_step(&ring, MAIN_RING, near, &policy),
        Some(KeyStep::Publish { generation: 3 })
    );
}

#[test]
fn a_key_does_each_thing_from_the_very_moment() {
    let policy = KeyPolicy::default();
    let key = scheduled(1, 100, 200, 300, &policy);
    let gone = at(300) + policy.retention;
    let millisecond = Duration::from_millis(1);
    for (now, state) in [
        (at(200) - millisecond, KeyState::Published),
        (at(200), KeyState::Signing),
        (at(300) - millisecond, KeyState::Signing),
        (at(300), KeyState::Retired),
        (gone - millisecond, KeyState::Retired),
        (gone, KeyState::Gone),
    ] {
        assert_eq!(key.state(now), state, "{now:?}");
        assert_eq!(key.is_published(now), state != KeyState::Gone, "{now:?}");
        let signs = matches!(state, KeyState::Published | KeyState::Signing);
        assert_eq!(signer(std::slice::from_ref(&key), MAIN_RING, now).is_some(), signs, "{now:?}");
    }
}

/// The record of a key that was gone when a verifier still trusted it could not tell that it was
/// compromised.
#[test]
fn a_record_stays_until_no_verifier_trusts_the_key() {
    let policy = KeyPolicy::default();
    let trusted = policy.retention + policy.jwks_max_age + policy.clock_skew;
    let millisecond = Duration::from_millis(1);
    let ended = scheduled(1, 100, 200, 300, &policy);
    let compromised = |key: KeyRecord, secs| KeyRecord { compromised_at: Some(at(secs)), ..key };
    for (spent, end) in [
        (ended.clone(), at(300)),
        // It counts as trusted for as long as its times said.
        (compromised(ended.clone(), 250), at(300)),
        // It never signed, but may have been trusted since it was published.
        (compromised(key(1, at(100)), 400), at(400)),
    ] {
        // Two others, so that nothing else is to be done.
        let others = [
            scheduled(2, 0, 300, 10_000_000, &policy),
            scheduled(3, 0, 10_000_000, 20_000_000, &policy),
        ];
        let ring: Vec<KeyRecord> = std::iter::once(spent.clone()).chain(others).collect();
        assert_eq!(
            next_step(&ring, MAIN_RING, end + trusted - millisecond, &policy),
            None,
            "{spent:?}"
        );
        let delete = Some(KeyStep::Delete { generation: 1 });
        assert_eq!(next_step(&ring, MAIN_RING, end + trusted, &policy), delete, "{spent:?}");
    }
    assert!(!may_delete(&key(1, at(100)), UnixTime::MAX, &policy), "it may be the next to sign");
}

#[test]
fn a_rotation_on_order_keeps_what_the_signer_has_signed() {
    let policy = KeyPolicy::default();
    let ring =
        [scheduled(1, 0, 0, 5_000_000, &policy), scheduled(2, 0, 5_000_000, 9_000_000, &policy)];
    let now = at(1_000_000);
    let signing = Signing::new(at(0), now, now + policy.retention);
    assert_eq!(rotate(&ring, MAIN_RING, now, &policy), Ok((1, signing)));

    // Of two that were published together, the older has signed before: whether the younger is
    // known counts from its publication.
    let ring = [
        scheduled(1, 0, 0, 900_000, &policy),
        scheduled(2, 899_000, 900_000, 5_000_000, &policy),
        scheduled(3, 899_000, 5_000_000, 9_000_000, &policy),
    ];
    let known = at(899_000) + policy.known_after();
    assert_eq!(rotate(&ring, MAIN_RING, at(900_000), &policy), Err(Some(known)));
    let millisecond = Duration::from_millis(1);
    assert_eq!(rotate(&ring, MAIN_RING, known - millisecond, &policy), Err(Some(known)));
    assert!(rotate(&ring, MAIN_RING, known, &policy).is_ok());
    assert_eq!(rotate(&ring[..1], MAIN_RING, at(1), &policy), Err(None), "no successor");
    assert_eq!(rotate(&[], MAIN_RING, now, &policy), Err(None), "no signer");
}

proptest! {
    /// Housekeeping at any times, long absences, orders and emergencies in between: there is always
    /// a signer; it was known to every verifier before it signed, unless nobody could sign before
    /// it; what it signed is published as long as it may live; and a record goes only when nobody
    /// can need it.
    #[test]
    fn verifiers_always_know_the_signer(
        steps in prop::collection::vec((1u64..200_000, 0u8..12), 1..200)
    ) {
        // Rotations follow each other closely, and a key is known only just before it is to sign.
        let policy = KeyPolicy {
            rotation: Duration::from_secs(4 * 86_400),
            jwks_max_age: Duration::from_secs(23 * 3600),
            ..KeyPolicy::default()
        };
        policy.check().unwrap();
        let mut now = at(1_000_000);
        let mut ring = vec![];
        settle(&mut ring, now, &policy);
        let mut before = signer(&ring, MAIN_RING, now).unwrap().clone();
        let mut signed = vec![(before.generation, now)];
        for (secs, event) in steps {
            // Mostly days; now and then weeks, in which nobody does anything.
            let scale = if event == 11 { 15 } else { 1 };
            now = now + Duration::from_secs(secs * scale);
            if event == 0 && let Ok((generation, signing)) = rotate(&ring, MAIN_RING, now, &policy) {
                let key = ring.iter_mut().find(|key| key.generation == generation).unwrap();
                key.times.signing = Some(signing);
            }
            // Nodes sign before housekeeping, too.
            let unattended = signer(&ring, MAIN_RING, now).map(|key| key.generation);
            let records = ring.clone();
            settle(&mut ring, now, &policy);
            let signer = signer(&ring, MAIN_RING, now).unwrap().clone();
            prop_assert!(signer.is_published(now));
            if let Some(unattended) = unattended {
                prop_assert_eq!(unattended, signer.generation, "housekeeping changes no signer");
                if before.generation != signer.generation {
                    let known = signer.times.published + policy.known_after();
                    let first = signer.times.published <= before.times.signing.as_ref().unwrap().from;
                    prop_assert!(now >= known || first, "{before:?} {signer:?} {now:?}");
                }
            }
            let trusted = policy.jwks_max_age + policy.clock_skew;
            for gone in records.iter().filter(|old| ring.iter().all(|key| key.kid != old.kid)) {
                let end = gone.times.signing.as_ref().unwrap().published_until;
                prop_assert!(now >= end + trusted, "{gone:?} {now:?}");
            }
            signed.push((signer.generation, now));
            signed.retain(|(_, at)| now < *at + policy.max_token_life);
            for (generation, _) in &signed {
                let key = ring.iter().find(|key| key.generation == *generation);
                prop_assert!(key.is_some_and(|key| key.is_published(now)));
            }
            for key in &ring {
                let signing = key.times.signing.as_ref().unwrap();
                prop_assert_eq!(signing.published_until, signing.until + policy.retention);
            }
            before = signer;
        }
    }
}

#[test]
fn every_setting_is_bounded_and_the_error_names_it() {
    let with = |change: fn(&mut KeyPolicy)| {
        let mut policy = KeyPolicy::default();
        change(&mut policy);
        // Of any settings, too.
        let _ = policy.known_after();
        policy.check().unwrap_err()
    };
    assert_eq!(KeyPolicy::MAX_DURATION.as_secs(), 3_162_240_000, "a hundred years");
    for (error, setting) in [
        (with(|p| p.rotation = Duration::MAX), "rotation"),
        (with(|p| p.publish_ahead = Duration::MAX), "publish_ahead"),
        (with(|p| p.retention = Duration::MAX), "retention"),
        (with(|p| p.jwks_max_age = Duration::MAX), "jwks_max_age"),
        (with(|p| p.reload = Duration::MAX), "reload"),
        (with(|p| p.max_blind = Duration::MAX), "max_blind"),
        (with(|p| p.clock_skew = Duration::MAX), "clock_skew"),
        (with(|p| p.clock_skew = Duration::from_secs(301)), "clock_skew"),
        (with(|p| p.leeway = Duration::MAX), "leeway"),
        (with(|p| p.max_token_life = Duration::MAX), "max_token_life"),
        (with(|p| p.reload = Duration::ZERO), "reload"),
        (with(|p| p.max_token_life = Duration::ZERO), "max_token_life"),
        (with(|p| p.publish_ahead = Duration::ZERO), "publish_ahead"),
        (with(|p| p.retention = Duration::ZERO), "retention"),
    ] {
        assert_eq!(error.setting(), setting);
        assert!(error.to_string().starts_with(setting), "{error}");
    }
}

mod rings;
