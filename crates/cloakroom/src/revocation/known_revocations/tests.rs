use std::sync::{Arc, Mutex};
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

/// A repeated revocation says all that the first one said.
#[test]
fn what_is_missing_is_repeated_whole() {
    let known = KnownRevocations::new();
    let mut first = revocation(jti("a"), NOW + LIFE);
    first.rule_until = NOW + 2 * LIFE;
    first.client = Some(ClientId::new("app").unwrap());
    first.grant = Some(GrantId::from_bytes([1; 16]));
    known.remember_own(&first, None, NOW);
    assert_eq!(missing(&known, 1), [first]);
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
    assert_eq!(state.forgotten_until, None, "not for lack of space");
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
    assert!(known.take_missing(4, usize::MAX, NOW + LIFE).is_empty());
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

#[test]
fn repeats_are_dropped_when_they_are_twice_as_many_as_can_be_remembered() {
    let known = KnownRevocations::with_max(3);
    let again = || {
        known.remember_own(&revocation(jti("a"), NOW + LIFE), None, NOW);
        known.write().written.len()
    };
    let lengths: Vec<_> = (0..8).map(|_| again()).collect();
    assert_eq!(lengths, [1, 2, 3, 4, 5, 6, 1, 2]);
}

/// What is traced.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn that_revocations_are_forgotten_is_said_once_until_they_have_ended() {
    // A thread that nobody listens to must not switch the place off that traces.
    drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let said = || {
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.matches("than this server can remember").count()
    };
    tracing::subscriber::with_default(subscriber, || {
        let known = KnownRevocations::with_max(1);
        let remember = |name: &str, now| {
            known.remember_own(&revocation(jti(name), now + LIFE), None, now);
        };
        for (now, times) in [(NOW, 1), (NOW + LIFE, 2)] {
            for name in ["a", "b", "c", "d"] {
                remember(name, now);
            }
            assert_eq!(said(), times);
        }
    });
}

#[cfg(feature = "memory")]
mod with_a_store {
    use cloakroom_core::revocation::{Cursor, RevocationBatch};
    use cloakroom_core::store::TokenStore as _;
    use cloakroom_core::time::ManualClock;
    use cloakroom_memory::MemoryStore;

    use super::*;
    use crate::revocation::remembering_store::RememberingStore;
    use crate::revocation::store_regression::Regression;

    fn store() -> RememberingStore {
        let clock = Arc::new(ManualClock::at(NOW));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        RememberingStore::new(store, clock, LIFE)
    }

    #[tokio::test]
    async fn a_rule_that_both_know_is_told_once() {
        let store = store();
        for target in [alice(), jti("a")] {
            store.revoke(revocation(target, NOW + LIFE)).await.unwrap();
        }
        let asked = [jti("a"), alice()].map(|target| target.rule_key().unwrap());
        let told = store.rules(asked.to_vec()).await.unwrap().rules;
        let bounds: Vec<_> = told.iter().map(|rule| (&rule.key, rule.bound.is_some())).collect();
        assert_eq!(bounds.len(), 2, "{told:?}");
        assert!(bounds.contains(&(&asked[0], false)) && bounds.contains(&(&asked[1], true)));
    }

    #[test]
    fn what_was_suspected_during_a_repair_stays_open() {
        let store = store();
        let memory = store.memory();
        memory.suspect_regression_reported();
        let first = memory.open_suspicion().unwrap();
        memory.suspect_regression(None);
        memory.settle(first, None);
        assert!(memory.is_in_doubt() && memory.may_lack_revocations(NOW) && memory.is_reported());
        memory.settle(memory.open_suspicion().unwrap(), None);
        assert!(!memory.is_in_doubt() && !memory.is_reported());
        assert_eq!(memory.open_suspicion(), None);
    }

    #[test]
    fn signs_that_nobody_reports_are_bounded() {
        let store = store();
        for n in 0..100 {
            let (seen, found) = (Epoch::new(n + 1), Epoch::new(n));
            store.memory().suspect_regression(Some(Regression::Bound { seen, found }));
        }
        assert_eq!(store.memory().take_noticed().len(), 16);
    }

    /// More than this server can remember were in force when its store went back.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_forgot_revocations_goes_on_once_they_have_ended() {
        let clock = Arc::new(ManualClock::at(NOW));
        let store = MemoryStore::with_clock(clock.clone());
        let clients = [crate::Client::public("app")];
        let issuer = crate::Issuer::dev().store(Arc::new(store.clone())).clock(clock.clone());
        let issuer = issuer.static_clients(clients).unwrap().build().await.unwrap();
        let memory = issuer.inner.store.memory();
        memory.suspect_regression_reported();
        memory.settle(memory.open_suspicion().unwrap(), Some(NOW + LIFE));
        let heartbeats = async || {
            tokio::select! {
                () = issuer.run_maintenance() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            let log = store.revocations(Cursor::start(), 100).await.unwrap();
            let RevocationBatch::Entries { entries, .. } = log else { panic!("a gap") };
            entries.len()
        };
        clock.advance(LIFE - Duration::from_millis(1));
        assert!(issuer.epoch().await.is_err());
        assert_eq!(heartbeats().await, 0);
        clock.advance(Duration::from_millis(1));
        issuer.epoch().await.unwrap();
        assert_eq!(heartbeats().await, 1);
    }
}
