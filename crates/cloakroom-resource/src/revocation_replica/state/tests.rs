use cloakroom_core::revocation::{Epoch, Target};

use super::super::test_kit::{START, alice, heartbeat, manual_clock, revoked, token, with_bound};
use super::*;

fn shared() -> ReplicaState {
    ReplicaState::new(manual_clock(), Limits { per_grant: 10, total: 100 })
}

fn edition(shared: &ReplicaState) -> u64 {
    shared.edition.load(Ordering::Acquire)
}

#[test]
fn what_was_clear_is_looked_up_again_when_rules_come() {
    let (shared, facts) = (shared(), token(1));
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
    shared.apply(&[revoked(1)]);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::Revoked);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::Revoked);
}

#[test]
fn what_was_clear_is_not_looked_up_while_nothing_changes() {
    let (shared, facts) = (shared(), token(1));
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
    let before = edition(&shared);
    assert!(facts.cleared.is(before));
    shared.apply(&[heartbeat(START)]);
    shared.sweep(START);
    assert_eq!(edition(&shared), before);
    // Not even the lock is taken.
    let _locked = shared.write();
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
}

#[test]
fn a_denial_ends_with_its_rule() {
    let (shared, facts) = (shared(), token(1));
    shared.apply(&[revoked(1)]);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::Revoked);
    shared.sweep(UnixTime::MAX);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
}

#[test]
fn what_one_replica_cleared_another_looks_up() {
    let (one, other, facts) = (shared(), shared(), token(1));
    for _ in 0..5 {
        one.apply(&[revoked(2)]);
        other.apply(&[revoked(1)]);
        assert_eq!(one.revocation_status(&facts), RevocationStatus::NotRevoked);
        assert_eq!(other.revocation_status(&facts), RevocationStatus::Revoked);
    }
}

#[test]
fn facts_made_from_others_are_looked_up() {
    let (shared, facts) = (shared(), token(1));
    shared.apply(&[with_bound(Target::Subject(alice()), 1)]);
    assert_eq!(shared.revocation_status(&facts), RevocationStatus::NotRevoked);
    let older = TokenFacts { epoch: Some(Epoch::new(1)), ..facts.clone() };
    assert_eq!(shared.revocation_status(&older), RevocationStatus::Revoked);
    assert_eq!(facts, facts.clone());
}

#[test]
fn many_rules_are_taken_over_and_dropped() {
    let shared = ReplicaState::new(manual_clock(), Limits { per_grant: 10, total: 10_000 });
    let entries: Vec<_> = (0..1_000).map(revoked).collect();
    shared.apply(&entries);
    assert_eq!(shared.read().len(), 1_000);
    assert!(
        (0..1_000)
            .all(|number| shared.revocation_status(&token(number)) == RevocationStatus::Revoked)
    );
    shared.sweep(UnixTime::MAX);
    assert_eq!(shared.read().len(), 0);
}

#[test]
fn the_clock_of_who_asks_may_count_from_another_point() {
    let (own, other) = (manual_clock(), manual_clock());
    own.advance(Duration::from_secs(100));
    own.set(START);
    let shared = ReplicaState::new(own.clone(), Limits { per_grant: 10, total: 100 });
    let sent = ClockReading::now(&*own);
    shared.publish(Some(StalenessReading { sent, behind: Duration::ZERO }));
    own.advance(Duration::from_secs(3));
    for ahead in [0, 1_000] {
        other.advance(Duration::from_secs(ahead));
        other.set(START + Duration::from_secs(1));
        let staleness = shared.staleness(ClockReading::now(&*other));
        assert_eq!(staleness, Some(Duration::from_secs(3)));
    }
}

#[test]
fn what_is_steady_is_two_periods_and_the_skew() {
    let shared = shared();
    shared.set_steady(Duration::from_secs(1), Duration::from_secs(5));
    assert_eq!(shared.steady(), Duration::from_secs(7));
    shared.set_steady(Duration::MAX, Duration::MAX);
    assert!(shared.steady() > Duration::from_secs(1 << 40));
}

#[test]
fn one_sweep_drops_a_bounded_number_of_rules() {
    let shared = ReplicaState::new(manual_clock(), Limits { per_grant: 10, total: 100_000 });
    let entries: Vec<_> = (0..MAX_DROPPED as u64 + 100).map(revoked).collect();
    shared.apply(&entries);
    shared.sweep(UnixTime::MAX);
    assert_eq!(shared.read().len(), 100);
    shared.sweep(UnixTime::MAX);
    assert_eq!(shared.read().len(), 0);
}
