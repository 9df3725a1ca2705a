//! Key sets whose server is away, and keys that nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;
use cloakroom_core::revocation::Target;
use cloakroom_core::time::{Clock, ManualClock, UnixTime};
use cloakroom_resource::{BearerLayer, TokenError, UnavailableError, Verifier};
use serde_json::json;

use crate::cache_support::{GRANT, Guard, Log};
use crate::jwks::{settle, verifier};
use crate::support::{
    Key, Peer, claims, claims_with, is_invalid, is_outage, key_set, manual_clock, respond, secret,
    with_header,
};

const HOUR: u64 = 3600;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server whose set has this `Cache-Control`.
async fn peer(key: &Key, cache_control: &'static str) -> Peer {
    let body = key_set(&[key]);
    Peer::start(move |_| {
        let response = respond(200, "application/json", &body);
        match cache_control {
            "" => response,
            value => with_header(response, "cache-control", value),
        }
    })
    .await
}

#[tokio::test]
async fn a_set_outlives_its_server_for_a_bounded_time() {
    let key = Key::new();
    let token = key.token().await;
    for (cache_control, life) in [
        ("no-store", 30),
        ("no-cache", 30),
        ("max-age=0", 30),
        ("max-age=100, must-revalidate", 100),
        ("", HOUR),
    ] {
        for (limit, outlives) in [(None, HOUR), (Some(seconds(0)), 0), (Some(seconds(7)), 7)] {
            let (clock, peer) = (manual_clock(), peer(&key, cache_control).await);
            let mut verifier = verifier(&peer, &clock).cache(10);
            if let Some(limit) = limit {
                verifier = verifier.stale_if_error(limit);
            }
            verifier.verify(&secret(&token)).await.unwrap();
            match life {
                30 => peer.fail(),
                100 => peer.answer_with(|_| respond(200, "text/html", "<h1>Back soon</h1>")),
                _ => peer.answer_with(|_| respond(429, "text/plain", "")),
            }
            clock.advance(seconds(life) - Duration::from_millis(1));
            verifier.verify(&secret(&token)).await.unwrap();
            settle().await;
            clock.advance(Duration::from_millis(1));
            if outlives > 0 {
                for _ in 0..3 {
                    verifier.verify(&secret(&token)).await.unwrap();
                }
                clock.advance(seconds(outlives) - Duration::from_millis(1));
                verifier.verify(&secret(&token)).await.unwrap();
                clock.advance(Duration::from_millis(1));
            }
            let result = verifier.verify(&secret(&token)).await;
            assert!(is_outage(&result), "{cache_control} {limit:?}: {result:?}");

            peer.publish(key_set(&[&key]));
            clock.advance(seconds(1));
            verifier.verify(&secret(&token)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn while_the_server_is_away_requests_do_not_wait_for_it() {
    let (key, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = peer(&key, "no-store").await;
    let verifier = verifier(&peer, &clock).cache(10);
    let (token, other) = (key.token().await, key.sign(&json!({ "other": 1 })).await);
    verifier.verify(&secret(&token)).await.unwrap();
    peer.fail();
    clock.advance(seconds(30));
    verifier.verify(&secret(&token)).await.unwrap();
    // It was tried again a moment ago, and now the server does not even answer.
    let tried = peer.count();
    peer.close();
    clock.advance(seconds(4));
    verifier.verify(&secret(&token)).await.unwrap();
    settle().await;
    assert_eq!(peer.count(), tried);
    clock.advance(seconds(1));
    for _ in 0..3 {
        verifier.verify(&secret(&token)).await.unwrap();
        assert!(is_invalid(&verifier.verify(&secret(&other)).await), "verified by the old set");
    }
    peer.wait_for(tried + 1).await;
    // It comes back with other keys.
    peer.publish(key_set(&[&new]));
    peer.open();
    let new_token = new.token().await;
    while verifier.verify(&secret(&new_token)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(is_invalid(&verifier.verify(&secret(&token)).await));
}

#[tokio::test]
async fn a_server_that_was_away_long_ago_is_asked_before_an_old_key_serves_again() {
    let (old, new) = (Key::new(), Key::new());
    let token = old.token().await;
    for (passed, serves) in [(29_999, true), (30_000, false)] {
        for remembered in [0, 10] {
            let (clock, peer) = (manual_clock(), peer(&old, "no-store").await);
            let verifier = verifier(&peer, &clock).cache(remembered);
            verifier.verify(&secret(&token)).await.unwrap();
            peer.fail();
            clock.advance(seconds(30));
            verifier.verify(&secret(&token)).await.unwrap();
            // Nobody asks for a while, and the server comes back with other keys.
            peer.publish(key_set(&[&new]));
            clock.advance(Duration::from_millis(passed));
            let result = verifier.verify(&secret(&token)).await;
            assert_eq!((result.is_ok(), is_invalid(&result)), (serves, !serves), "{passed}");
        }
    }
}

#[tokio::test]
async fn an_issuer_that_withdraws_all_keys_is_not_away() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = peer(&key, "no-store").await;
    let verifier = verifier(&peer, &clock);
    let token = key.token().await;
    verifier.verify(&secret(&token)).await.unwrap();
    peer.answer_with(|_| respond(200, "application/json", r#"{"keys":[]}"#));
    clock.advance(seconds(30));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    // And being away afterwards does not bring them back.
    peer.fail();
    clock.advance(seconds(1));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    clock.advance(seconds(1));
    peer.publish(key_set(&[&key]));
    verifier.verify(&secret(&token)).await.unwrap();
}

#[tokio::test]
async fn a_compromised_key_does_not_outlive_the_log() {
    let (stolen, other, clock) = (Key::new(), Key::new(), manual_clock());
    let body = key_set(&[&stolen, &other]);
    let peer = Peer::start(move |_| {
        with_header(respond(200, "application/json", &body), "cache-control", "no-store")
    })
    .await;
    let log = Log::new(seconds(1));
    let replica = log.replica(&clock).await;
    let verifier: Verifier = verifier(&peer, &clock).cache(10);
    let layer = BearerLayer::new(verifier).replica(replica.clone());
    let guard = Guard::Bearer(layer);
    let claims = claims_with(&json!({ "grant_id": GRANT, "grant_epoch": 1000 }));
    let (by_stolen, by_other) = (stolen.sign(&claims).await, other.sign(&claims).await);
    log.beat(&clock).await;
    assert_eq!((guard.ask(&by_stolen).await, guard.ask(&by_other).await), (200, 200));

    // Its rule ends at once, as it were: no verifier should have the key any more.
    let kid: Kid = stolen.0.public_jwk().kid().unwrap().clone();
    log.revoke_until(Target::Key(kid), clock.now() + seconds(10)).await;
    peer.fail();
    clock.advance(seconds(31));
    log.beat(&clock).await;
    assert_eq!(replica.rules(), 0, "the rule has ended");
    assert_eq!((guard.ask(&by_stolen).await, guard.ask(&by_other).await), (401, 200));
    // From memory, too.
    assert_eq!((guard.ask(&by_stolen).await, guard.ask(&by_other).await), (401, 200));
}

/// A token of a key that does not exist.
fn junk(kid: usize) -> String {
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("made-up-{kid}") });
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.{}", part(&header.to_string()), part(&claims().to_string()), part("signature"))
}

fn is_unknown<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Unavailable(UnavailableError::SigningKey)))
}

#[tokio::test]
async fn junk_does_not_use_up_the_fetches_of_others() {
    let (old, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = verifier(&peer, &clock);
    verifier.verify(&secret(old.token().await)).await.unwrap();
    assert_eq!(peer.last().header("cache-control"), None);
    for kid in 0..3 {
        assert!(is_invalid(&verifier.verify(&secret(junk(kid))).await));
        assert_eq!(peer.last().header("cache-control"), Some("no-cache"), "past every cache");
    }
    assert_eq!(peer.count(), 4);
    // The issuer rotates now, and nobody may ask it: nobody can tell whether a key exists.
    peer.publish(key_set(&[&old, &new]));
    let token = new.token().await;
    assert!(is_unknown(&verifier.verify(&secret(&token)).await));
    assert!(is_unknown(&verifier.verify(&secret(junk(3))).await));
    // What was shown to be made up costs nothing.
    for kid in 0..3 {
        assert!(is_invalid(&verifier.verify(&secret(junk(kid))).await));
    }
    assert_eq!(peer.count(), 4);
    clock.advance(Duration::from_millis(7499));
    assert!(is_unknown(&verifier.verify(&secret(&token)).await));
    clock.advance(Duration::from_millis(12_500 - 7499));
    // The junk comes first, and only helps.
    assert!(is_invalid(&verifier.verify(&secret(junk(4))).await));
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.count(), 5);
}

#[tokio::test]
async fn a_flood_of_made_up_keys_causes_few_fetches_and_hides_no_key() {
    let (old, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = verifier(&peer, &clock);
    let (by_old, by_new) = (old.token().await, new.token().await);
    verifier.verify(&secret(&by_old)).await.unwrap();
    let mut found = None;
    for second in 0..300 {
        if second == 100 {
            peer.publish(key_set(&[&old, &new]));
        }
        for kid in 0..20 {
            let result = verifier.verify(&secret(junk(second * 20 + kid))).await;
            assert!(is_invalid(&result) || is_unknown(&result), "{result:?}");
        }
        if second >= 100 && found.is_none() {
            let result = verifier.verify(&secret(&by_new)).await;
            assert!(result.is_ok() || is_unknown(&result), "{result:?}");
            found = result.is_ok().then_some(second);
        }
        verifier.verify(&secret(&by_old)).await.unwrap();
        clock.advance(seconds(1));
    }
    assert!(found.is_some_and(|second| second <= 100 + 13), "{found:?}");
    assert!(peer.count() <= 1 + 3 + 300 / 7, "{}", peer.count());
}

#[tokio::test]
async fn only_a_fetch_that_was_sent_later_shows_that_a_key_is_absent() {
    let (old, third, new) = (Key::new(), Key::new(), Key::new());
    for first in [vec![&old], vec![&old, &third]] {
        let (clock, peer) = (manual_clock(), Peer::jwks(key_set(&[&old])).await);
        let verifier = verifier(&peer, &clock);
        verifier.verify(&secret(old.token().await)).await.unwrap();
        peer.close();
        let ask = |token: String| {
            let verifier = verifier.clone();
            tokio::spawn(async move { verifier.verify(&secret(token)).await })
        };
        let asker = ask(junk(0));
        peer.wait_for(2).await;
        // The first question is on its way, and its answer will not have the new key.
        let honest = ask(new.token().await);
        settle().await;
        let other = ask(junk(1));
        settle().await;
        let served = AtomicUsize::new(0);
        let (before, after) = (key_set(&first), key_set(&[&old, &new]));
        peer.answer_with(move |_| {
            let number = served.fetch_add(1, Ordering::SeqCst);
            respond(200, "application/json", if number == 0 { &before } else { &after })
        });
        peer.open();
        assert!(is_invalid(&asker.await.unwrap()));
        honest.await.unwrap().unwrap();
        assert!(is_invalid(&other.await.unwrap()));
        assert_eq!(peer.count(), 3, "both who waited share one");
    }
}

/// A clock by which a second passes with each look.
#[derive(Debug)]
struct Busy(Arc<ManualClock>);

impl Clock for Busy {
    fn now(&self) -> UnixTime {
        self.0.advance(seconds(1));
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test]
async fn those_who_wait_share_a_failure_however_busy_the_machine_is() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let verifier = verifier(&peer, &clock).clock(Arc::new(Busy(Arc::clone(&clock))));
    verifier.verify(&secret(key.token().await)).await.unwrap();
    peer.close();
    let ask = |kid| {
        let verifier = verifier.clone();
        tokio::spawn(async move { verifier.verify(&secret(junk(kid))).await })
    };
    let first = ask(0);
    peer.wait_for(2).await;
    let others = [ask(1), ask(2)];
    settle().await;
    let (served, keys) = (AtomicUsize::new(0), key_set(&[&key]));
    peer.answer_with(move |_| match served.fetch_add(1, Ordering::SeqCst) {
        0 => respond(200, "application/json", &keys),
        _ => respond(500, "text/plain", "boom"),
    });
    peer.open();
    assert!(is_invalid(&first.await.unwrap()));
    for other in others {
        assert!(is_outage(&other.await.unwrap()));
    }
    assert_eq!(peer.count(), 3);
}
