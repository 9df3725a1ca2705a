//! The work beside the requests, one round at a time.

use std::sync::{Arc, Mutex};

use cloakroom::Event;
use cloakroom::core::revocation::{Cursor, Revocation, RevocationBatch, Target};
use cloakroom::core::store::{Lookup, TokenStore as _};
use cloakroom::core::{GrantId, Subject};
use cloakroom::jwt::KeyEvent;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;

use super::regression::tend;
use super::store::When;
use super::support::*;

impl Fixture {
    async fn is_stored(&self, grant: GrantId) -> bool {
        let found = self.store.memory().find(grant, None).await.unwrap();
        !matches!(found, Lookup::Absent)
    }
}

#[tokio::test]
async fn what_has_ended_is_deleted_a_minute_later_and_what_lives_is_not() {
    let fixture = Fixture::new().await;
    let (code, session) = (fixture.code().await, fixture.session().await);
    let grant = grant_of(&code);
    // Its end, the clock skew, and the margin.
    fixture.clock.advance(MINUTE + secs(5) + MINUTE);
    fixture.issuer.maintain().await.unwrap();
    assert!(fixture.is_stored(grant).await);
    fixture.clock.advance(secs(1));
    let done = fixture.issuer.maintain().await.unwrap();
    assert_eq!((done.grants, done.more), (1, false));
    assert!(!fixture.is_stored(grant).await);
    assert!(fixture.is_active(&session.access).await);

    fixture.clock.advance(10 * MINUTE);
    let done = fixture.issuer.maintain().await.unwrap();
    assert_eq!((done.grants, done.tokens), (0, 1), "an access token, but not its grant");
    let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    fixture.clock.advance(91 * DAY);
    fixture.issuer.maintain().await.unwrap();
    assert!(!fixture.is_stored(grant_of(&next.refresh)).await);
}

#[tokio::test]
async fn a_revoked_grant_stays_dead_through_housekeeping() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    for _ in 0..200 {
        fixture.clock.advance(DAY / 2);
        fixture.issuer.maintain().await.unwrap();
        fixture.refresh(&session.refresh).await.unwrap_err();
    }
    assert!(!fixture.is_stored(grant_of(&session.access)).await, "and goes in the end");
}

#[tokio::test]
async fn a_rule_lives_as_long_as_a_grant_that_it_denies_might() {
    let fixture = Fixture::new().await;
    let epoch = fixture.issuer.epoch().await.unwrap();
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    // A login that took absurdly long is still covered.
    fixture.clock.advance(90 * DAY);
    fixture.issuer.maintain().await.unwrap();
    let grant = cloakroom::Grant::user("web-app", "alice").unwrap().epoch(epoch);
    let late = fixture.issuer.issue(grant).await;
    assert!(matches!(late, Err(cloakroom::TokenError::Barred)));
    let done = fixture.issuer.maintain().await.unwrap();
    assert_eq!(done.revocations, 0);
    fixture.clock.advance(DAY);
    let done = fixture.issuer.maintain().await.unwrap();
    assert!(done.revocations > 0, "and is forgotten after");
}

#[tokio::test]
async fn what_happens_to_the_keys_is_told() {
    let fixture = Fixture::new().await;
    fixture.issuer.maintain().await.unwrap();
    fixture.events.take();
    fixture.clock.advance(29 * DAY + HOUR);
    fixture.issuer.maintain().await.unwrap();
    let events = fixture.events.take();
    let published = |event: &Event| matches!(event, Event::Key(KeyEvent::Published { .. }));
    assert_eq!(events.iter().filter(|event| published(event)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_worked_off_at_once_and_where_there_is_none_housekeeping_rests() {
    let fixture = Fixture::new().await;
    fixture.store.sweep_later();
    // More than three rounds of 20 calls.
    for number in 0..70 {
        let target = Target::Subject(Subject::user(format!("user-{number}")).unwrap());
        let revocation = Revocation::new(target, START, START + DAY);
        fixture.store.revoke(revocation).await.unwrap();
    }
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    let rounds = async |time| {
        fixture.store.calls();
        tokio::time::sleep(time).await;
        fixture.store.calls().iter().filter(|call| **call == "maintain").count()
    };
    assert_eq!(rounds(secs(10)).await, 71, "one for each, and one that finds nothing");
    assert_eq!(rounds(10 * MINUTE).await, 20, "every half minute");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn no_housekeeping_holds_a_heartbeat_up() {
    let fixture = Fixture::new().await;
    fixture.store.before_next("maintain", std::future::pending());
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    tokio::time::sleep(60 * secs(1)).await;
    let calls = fixture.store.calls();
    let beats = calls.iter().filter(|call| **call == "heartbeat").count();
    assert!((60..=61).contains(&beats), "{beats} heartbeats in a minute");
    running.abort();
}

/// A heartbeat tells readers that the log is complete. Nobody knows that of a log that cannot be read.
#[tokio::test(start_paused = true)]
async fn an_unreadable_log_gets_no_heartbeat() {
    let fixture = Fixture::new().await;
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    let beats = async || {
        fixture.store.calls();
        tokio::time::sleep(10 * secs(1)).await;
        fixture.store.calls().iter().filter(|call| **call == "heartbeat").count()
    };
    assert!(beats().await >= 9);
    fixture.store.fail_all("revocations", true);
    assert_eq!(beats().await, 0);
    fixture.store.fail_all("revocations", false);
    assert!(beats().await >= 9);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_pile_up() {
    let fixture = Fixture::new().await;
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    let mut longest = 0;
    for minute in 0..60 {
        for _ in 0..60 {
            tokio::time::sleep(secs(1)).await;
            fixture.clock.advance(secs(1));
        }
        let log = fixture.store.memory().revocations(Cursor::start(), u32::MAX).await.unwrap();
        let RevocationBatch::Entries { entries, .. } = log else { panic!("a gap at the start") };
        longest = longest.max(entries.len());
        assert!(minute == 0 || entries.len() >= 2, "a reader needs the newest few");
    }
    // The minute for which one lives, the margin and the clock skew, and the pause of housekeeping.
    assert!(longest <= 180, "the log grew to {longest} entries, and nothing was revoked");
    running.abort();
}

#[tokio::test]
async fn whoever_forgets_maintenance_is_told_once_an_hour() {
    let (lines, _guard) = listen(LevelFilter::ERROR);
    let told = || {
        let lines = lines.lock().unwrap();
        lines.iter().filter(|line| line.contains("no maintenance for an hour")).count()
    };

    let fixture = Fixture::new().await;
    fixture.clock.advance(HOUR - secs(1));
    fixture.session().await;
    assert_eq!(told(), 0);
    fixture.clock.advance(secs(1));
    for _ in 0..10 {
        fixture.session().await;
    }
    assert_eq!(told(), 1);
    fixture.issuer.maintain().await.unwrap();
    fixture.clock.advance(HOUR - secs(1));
    fixture.session().await;
    assert_eq!(told(), 1, "maintenance was run");
}

/// What this thread traces from now on, line by line.
pub(super) fn listen(level: LevelFilter) -> (Arc<Mutex<Vec<String>>>, DefaultGuard) {
    hear_everything();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || Lines(writer.clone()))
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

/// Keeps what is traced.
struct Lines(Arc<Mutex<Vec<String>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn damage_that_a_sweep_meets_is_told() {
    let fixture = Fixture::new().await;
    fixture.store.sweep_later();
    fixture.store.meet_damage(3);
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    assert_eq!(fixture.events.names(), ["Revoked", "CorruptRow"]);
    fixture.store.meet_damage(3);
    assert_eq!(fixture.issuer.maintain().await.unwrap().unreadable, 3);
}

#[tokio::test]
async fn damage_is_told_even_if_the_rest_of_the_round_fails() {
    let fixture = Fixture::new().await;
    fixture.store.meet_damage(3);
    let store = fixture.store.clone();
    fixture.store.before_next("maintain", async {});
    fixture.store.before_next("maintain", async move { store.fail_next("maintain", When::Before) });
    fixture.issuer.maintain().await.unwrap_err();
    assert_eq!(fixture.events.names(), ["CorruptRow"]);
}

/// The log is read every second. An alarm for each time would fill a disk.
#[tokio::test]
async fn damage_that_stops_the_log_or_the_keys_is_told_once_until_it_is_mended() {
    for method in ["revocations", "keys.load"] {
        let fixture = Fixture::new().await;
        for _ in 0..2 {
            fixture.store.damage(method, true);
            for _ in 0..3 {
                tend(&fixture.issuer).await;
            }
            assert_eq!(fixture.events.names(), ["CorruptRow"], "{method}");
            fixture.store.damage(method, false);
            tend(&fixture.issuer).await;
            assert_eq!(fixture.events.names(), [""; 0], "{method}");
        }
    }
}
