//! When things end, to the millisecond; and what the log says of them.

use std::time::Duration;

use cloakroom::core::GrantId;
use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::revocation::{Cursor, LogEntry, LogEvent, RevocationBatch, RuleKey, Target};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::UnixTime;
use cloakroom::{GrantRefusal, Lifetimes};

use super::support::*;

const MILLISECOND: Duration = Duration::from_millis(1);
/// The largest difference between two clocks: not the default, so that the setting shows.
const SKEW: Duration = secs(7);
/// The longest leeway of a verifier (2 minutes), and the skew.
const TAIL: Duration = secs(120 + 7);

async fn fixture() -> Fixture {
    Fixture::with(|issuer| issuer.key_policy(KeyPolicy::default().clock_skew(SKEW))).await
}

/// The revocations in the log so far.
async fn log(fixture: &Fixture) -> Vec<LogEntry> {
    let batch = fixture.store.memory().revocations(Cursor::start(), 100).await.unwrap();
    let RevocationBatch::Entries { entries, .. } = batch else { panic!("{batch:?}") };
    entries.into_iter().filter(|entry| matches!(entry.event, LogEvent::Revoked { .. })).collect()
}

/// What ends a grant of `web-app`.
#[derive(Debug, Clone, Copy)]
enum End {
    RefreshTokenReused,
    CodeReused,
    StoreRegressed,
    RevokedByRefreshToken,
    RevokedByCode,
    RevokedByUser,
}

impl End {
    const ALL: [Self; 6] = [
        Self::RefreshTokenReused,
        Self::CodeReused,
        Self::StoreRegressed,
        Self::RevokedByRefreshToken,
        Self::RevokedByCode,
        Self::RevokedByUser,
    ];

    /// Makes a grant, and ends it.
    async fn of_a_new_grant(self, fixture: &Fixture) -> GrantId {
        let (session, code) = (fixture.session().await, fixture.code().await);
        let client = client_id("web-app");
        match self {
            Self::RefreshTokenReused => {
                fixture.refresh(&session.refresh).await.unwrap();
                fixture.clock.advance(HOUR);
                let refused = fixture.refresh(&session.refresh).await;
                assert_eq!(refusal(refused), GrantRefusal::Reused);
            }
            Self::CodeReused => {
                fixture.redeem(&code).await.unwrap();
                assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Reused);
            }
            Self::StoreRegressed => {
                let before = fixture.store.grant(grant_of(&session.refresh)).await;
                let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
                fixture.store.fail_over(before).await;
                let refused = fixture.refresh(&next.refresh).await;
                assert_eq!(refusal(refused), GrantRefusal::Regressed);
            }
            Self::RevokedByRefreshToken => {
                fixture.issuer.revoke(&session.refresh, &client).await.unwrap();
            }
            Self::RevokedByCode => fixture.issuer.revoke(&code, &client).await.unwrap(),
            Self::RevokedByUser => {
                let grant = grant_of(&session.refresh);
                assert!(fixture.issuer.revoke_session(&alice(), grant).await.unwrap());
            }
        }
        match self {
            Self::CodeReused | Self::RevokedByCode => grant_of(&code),
            _ => grant_of(&session.refresh),
        }
    }
}

/// A client can have its own grants ended in a loop. A reader of the log can only bound what one
/// client makes it remember if every entry names the client.
#[tokio::test]
async fn the_log_names_the_client_of_a_grant_whatever_ends_it() {
    for end in End::ALL {
        let fixture = fixture().await;
        let grant = end.of_a_new_grant(&fixture).await;
        let [entry] = &log(&fixture).await[..] else { panic!("{end:?}: one entry") };
        let LogEvent::Revoked { client, target, .. } = &entry.event else { panic!("{entry:?}") };
        assert_eq!(*target, Target::Grant(grant), "{end:?}");
        assert_eq!(client.as_ref(), Some(&client_id("web-app")), "{end:?}");
    }
}

#[tokio::test]
async fn a_revocation_is_remembered_as_long_as_something_may_hang_off_it() {
    let lifetimes = Lifetimes::default();
    let fixture = fixture().await;
    // A token that is taken over may come from a clock that is ahead.
    let life = KeyPolicy::default().max_token_life.max(lifetimes.adopted_token + SKEW);
    let (session, issuer) = (fixture.session().await, &fixture.issuer);
    let client = client_id("web-app");

    issuer.revoke(&session.access, &client).await.unwrap();
    issuer.revoke(&session.refresh, &client).await.unwrap();
    issuer.revoke_client(&client).await.unwrap();
    issuer.revoke_subject(&alice()).await.unwrap();
    issuer.revoke_subject_at_client(&alice(), &client).await.unwrap();
    let ends: Vec<UnixTime> = log(&fixture).await.iter().map(|entry| entry.until).collect();
    // The last token may have been made this moment.
    assert_eq!(ends, [START + life + TAIL; 5]);
    // Grants that were being made meanwhile may be refreshed for their whole life.
    let rules = vec![
        RuleKey::Client(client.clone()),
        RuleKey::Subject(alice()),
        RuleKey::SubjectAtClient(alice(), client),
    ];
    let rules = fixture.store.memory().rules(rules).await.unwrap().rules;
    let ends: Vec<UnixTime> = rules.iter().map(|rule| rule.until).collect();
    assert_eq!(ends, [START + lifetimes.grant + SKEW; 3]);
}

#[tokio::test]
async fn where_grants_are_short_the_rule_on_a_subject_outlives_their_tokens() {
    let fixture = Fixture::with(|issuer| {
        let lifetimes = Lifetimes::default().grant(HOUR).refresh_idle(HOUR).adopted_token(HOUR);
        let keys = KeyPolicy::default().clock_skew(SKEW);
        issuer.lifetimes(lifetimes).key_policy(keys)
    })
    .await;
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    let key = vec![RuleKey::Subject(alice())];
    let rules = fixture.store.memory().rules(key).await.unwrap().rules;
    assert_eq!(rules[0].until, START + HOUR + SKEW + TAIL + SKEW);
}

#[tokio::test]
async fn the_retry_window_ends_with_the_clock_skew_added() {
    let window = Lifetimes::default().retry_window + SKEW;
    let fixture = fixture().await;
    for (after, is_open) in [(window - MILLISECOND, true), (window, false)] {
        let session = fixture.session().await;
        let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
        fixture.clock.advance(after);
        match fixture.refresh(&session.refresh).await {
            Ok(again) if is_open => {
                assert_eq!(Session::of(again).refresh.expose(), next.refresh.expose());
            }
            other => {
                assert!(!is_open, "{after:?}: {other:?}");
                assert_eq!(refusal(other), GrantRefusal::Reused);
            }
        }
    }
}

/// The row of a grant must outlive every access token that its chain may still bring.
#[tokio::test]
async fn a_row_outlives_the_last_token_of_its_chain() {
    let lifetimes = Lifetimes::default();
    let tail = lifetimes.access_token + lifetimes.retry_window + SKEW;
    let fixture = fixture().await;
    let session = fixture.session().await;
    let row = fixture.store.grant(grant_of(&session.refresh)).await;
    assert_eq!(row.row_expires_at, START + lifetimes.refresh_idle + tail);

    fixture.clock.advance(HOUR);
    let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    let row = fixture.store.grant(grant_of(&next.refresh)).await;
    assert_eq!(row.row_expires_at, START + HOUR + lifetimes.refresh_idle + tail);

    let redeemed = Session::of(fixture.redeem(&fixture.code().await).await.unwrap());
    let row = fixture.store.grant(grant_of(&redeemed.refresh)).await;
    assert_eq!(row.row_expires_at, START + HOUR + lifetimes.refresh_idle + tail);
    // But it never outlives its grant.
    fixture.clock.set(row.expires_at - MINUTE);
    let last = fixture.session().await;
    let row = fixture.store.grant(grant_of(&last.refresh)).await;
    assert!(row.row_expires_at < row.expires_at);
}
