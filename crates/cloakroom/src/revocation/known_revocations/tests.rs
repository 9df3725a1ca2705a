use std::time::Duration;

use cloakroom_core::revocation::EntryId;
use cloakroom_core::{Audience, Jti, Subject};

use super::*;

const NOW: UnixTime = UnixTime::from_millis(1_000_000);
const LIFE: Duration = Duration::from_secs(100);

fn jti(name: &str) -> Target {
    Target::Jti(Jti::new(name).unwrap())
}

fn alice() -> Target {
    Target::Subject(Subject::user("alice").unwrap())
}

fn revocation(target: Target, until: UnixTime) -> Revocation {
    Revocation::new(target, NOW, until)
}

fn entry(revocation: &Revocation, bound: Option<u64>) -> LogEntry {
    LogEntry {
        id: EntryId::from_bytes([7; 16]),
        event: revocation.event(bound.map(Epoch::new)),
        at: revocation.at,
        until: revocation.until,
    }
}

fn grant(epoch: u64) -> GrantRecord {
    let mut grant = GrantRecord::new(
        GrantId::from_bytes([1; 16]),
        ClientId::new("app").unwrap(),
        Subject::user("alice").unwrap(),
        Audience::one("https://orders.example").unwrap(),
        NOW,
        NOW + LIFE,
    );
    grant.epoch = Epoch::new(epoch);
    grant
}

fn is_dead(known: &KnownRevocations, epoch: u64) -> bool {
    known.read().is_some_and(|known| known.grant(&grant(epoch)).is_some())
}

fn missing(known: &KnownRevocations, reading: u64) -> Vec<Revocation> {
    known.take_missing(reading, usize::MAX, NOW)
}

#[test]
fn a_subject_is_dead_up_to_its_bound_and_the_log_brings_the_later_one() {
    let (known, logout) = (KnownRevocations::new(), revocation(alice(), NOW + LIFE));
    assert!(!is_dead(&known, 5));
    known.remember_own(&logout, Some(Epoch::new(5)), NOW);
    assert!(is_dead(&known, 5) && !is_dead(&known, 6));
    known.remember_logged(&[entry(&logout, Some(9))], 1, NOW);
    assert!(is_dead(&known, 9) && !is_dead(&known, 10));
    // An entry that is delivered again, or an older one, takes nothing back.
    known.remember_logged(&[entry(&logout, Some(3))], 1, NOW);
    assert!(is_dead(&known, 9));
    assert!(missing(&known, 1).is_empty());
}

#[test]
fn what_has_ended_is_forgotten_and_costs_nothing() {
    let known = KnownRevocations::new();
    known.remember_own(&revocation(jti("short"), NOW + LIFE), None, NOW);
    known.remember_own(&revocation(jti("long"), NOW + 3 * LIFE), None, NOW);
    // A later end of the same counts.
    known.remember_own(&revocation(alice(), NOW + LIFE), None, NOW);
    known.remember_own(&revocation(alice(), NOW + 3 * LIFE), None, NOW);
    known.remember_logged(&[], 1, NOW + 2 * LIFE);
    assert_eq!(known.count.load(Ordering::SeqCst), 2);
    known.remember_logged(&[], 1, NOW + 3 * LIFE);
    assert!(known.read().is_none());
    let state = known.write();
    assert_eq!((state.revocations.len(), state.ends.len(), state.bounded), (0, 0, 0));
}

#[test]
fn what_a_reading_does_not_bring_is_missing_once() {
    let known = KnownRevocations::new();
    let (own, logged) = (revocation(alice(), NOW + LIFE), revocation(jti("a"), NOW + LIFE));
    known.remember_own(&own, Some(Epoch::new(5)), NOW);
    known.remember_logged(&[entry(&logged, None)], 1, NOW);
    let repeated = missing(&known, 1);
    assert_eq!(repeated, std::slice::from_ref(&own), "as it was written");
    assert!(missing(&known, 1).is_empty(), "once in a reading");
    // Too low a bound is not the same revocation.
    known.remember_logged(&[entry(&own, Some(4))], 2, NOW);
    assert_eq!(missing(&known, 2).len(), 2);
    known.remember_logged(&[entry(&own, Some(5)), entry(&logged, None)], 3, NOW);
    assert!(!known.is_missing_any(3, NOW) && missing(&known, 3).is_empty());
    assert!(!known.is_missing_any(4, NOW + LIFE), "what has ended is not missed");
}

#[test]
fn what_this_server_wrote_is_waited_for() {
    let known = KnownRevocations::new();
    let first = revocation(jti("a"), NOW + LIFE);
    known.remember_own(&first, None, NOW);
    assert!(!known.lacks_own(1, NOW, NOW), "no heartbeat is later yet");
    let later = NOW + Duration::from_millis(1);
    assert!(known.lacks_own(1, later, NOW));
    known.remember_logged(&[entry(&first, None)], 1, NOW);
    assert!(!known.lacks_own(1, later, NOW));
    assert!(known.write().written.is_empty());
    known.remember_own(&revocation(jti("b"), NOW + LIFE), None, NOW);
    assert!(!known.lacks_own(1, NOW + 2 * LIFE, NOW + LIFE), "it has ended");
}

#[test]
fn beyond_the_most_what_ends_first_is_forgotten_and_that_is_known() {
    let known = KnownRevocations::with_max(2);
    for (name, lives) in [("a", 3), ("b", 1), ("c", 2)] {
        known.remember_own(&revocation(jti(name), NOW + lives * LIFE), None, NOW);
    }
    let rule = |name| known.read().unwrap().rule(&jti(name).rule_key().unwrap());
    assert!(rule("a").is_some() && rule("b").is_none() && rule("c").is_some());
    assert_eq!(known.forgotten_until(NOW), Some(NOW + LIFE));
    assert_eq!(known.forgotten_until(NOW + LIFE), None);
}

#[test]
fn what_nobody_asks_for_does_not_pile_up() {
    let known = KnownRevocations::with_max(2);
    let earliest = revocation(jti("a"), NOW + 3 * LIFE);
    for second in 0..100 {
        let at = NOW + Duration::from_secs(second);
        known.remember_own(&earliest, None, at);
        known.remember_own(&revocation(jti(&second.to_string()), at + LIFE), None, at);
        assert!(known.write().written.len() <= 5, "at most two for each that is remembered");
    }
    let later = NOW + Duration::from_millis(1);
    assert!(known.lacks_own(1, later, NOW + LIFE), "the first time counts, not the last");
}
