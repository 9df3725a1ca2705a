//! What meets a route's freshness, and what becomes of a request when nothing does.

use std::sync::Arc;

use cloakroom_core::revocation::Target;
use cloakroom_core::time::ManualClock;
use cloakroom_resource::{
    BearerLayer, Freshness, PhantomLayer, RevocationReplica, SetupError, TokenError, Verifier,
    WhenStale,
};
use serde_json::{Value, json};

use crate::cache_support::{Authority, GRANT, Guard, Log, clock, facts, secs, with};
use crate::support::{AUDIENCE, ISSUER, Key, START, claims_with, is_outage, manual_clock, secret};

/// What the replica knows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Replica {
    None,
    /// It has just seen a heartbeat.
    Fresh,
    /// It has seen none since the token was first presented.
    Stale,
    /// Fresh, and a rule denies the token.
    Denied,
    /// Stale, and a rule denies the token.
    DeniedLongAgo,
}

async fn replica(what: Replica, time: &Arc<ManualClock>) -> (Log, Option<RevocationReplica>) {
    let log = Log::new(secs(0));
    let replica = match what {
        Replica::None => None,
        _ => Some(log.replica(time).await),
    };
    (log, replica)
}

async fn come_to_pass(what: Replica, log: &Log, time: &ManualClock, age: u64) {
    if what == Replica::DeniedLongAgo {
        log.revoke(Target::Grant(GRANT.parse().unwrap()), None).await;
    }
    time.advance(secs(age));
    if what == Replica::Denied {
        log.revoke(Target::Grant(GRANT.parse().unwrap()), None).await;
    }
    if matches!(what, Replica::Fresh | Replica::Denied) {
        log.beat(time).await;
    }
}

#[tokio::test]
async fn remembered_answers() {
    use Replica::{Denied, DeniedLongAgo, Fresh, Stale};
    let every = Freshness::every_request();
    let two = Freshness::within(secs(2));
    let (ask, refuse) = (WhenStale::Introspect, WhenStale::Refuse);
    let complete = json!({});
    let foreign = json!({ "grant_epoch": null });
    // The replica, whether the answer tells all that rules go by, the age of the answer, the
    // freshness; the status, and how often the server was asked beside the first time.
    for (what, changes, age, freshness, when_stale, status, asked) in [
        (Replica::None, &complete, 2, two, ask, 200, 0),
        (Replica::None, &complete, 3, two, ask, 200, 1),
        (Replica::None, &complete, 3, two, refuse, 200, 1),
        (Replica::None, &complete, 0, every, ask, 200, 1),
        (Replica::None, &complete, 0, every, refuse, 200, 1),
        (Fresh, &complete, 2, two, ask, 200, 0),
        (Fresh, &complete, 3000, two, ask, 200, 0),
        (Fresh, &complete, 3000, two, refuse, 200, 0),
        (Fresh, &complete, 0, every, ask, 200, 1),
        (Fresh, &complete, 0, every, refuse, 200, 1),
        (Stale, &complete, 2, two, ask, 200, 0),
        (Stale, &complete, 2, two, refuse, 200, 0),
        (Stale, &complete, 3, two, ask, 200, 1),
        (Stale, &complete, 3, two, refuse, 503, 0),
        (Stale, &complete, 0, every, ask, 200, 1),
        // What rules cannot name, nobody but the server can vouch for.
        (Fresh, &foreign, 2, two, ask, 200, 0),
        (Fresh, &foreign, 3, two, ask, 200, 1),
        (Fresh, &foreign, 3, two, refuse, 200, 1),
        (Fresh, &json!({ "exp": null }), 3, two, ask, 200, 1),
        (Fresh, &json!({ "jti": null }), 3, two, ask, 200, 1),
        (Fresh, &json!({ "sub": null }), 3, two, ask, 200, 1),
        (Fresh, &json!({ "client_id": null }), 3, two, ask, 200, 1),
        (Fresh, &json!({ "grant_id": null }), 3, two, ask, 200, 1),
        (Stale, &foreign, 3, two, refuse, 200, 1),
        // What is known to be revoked is refused, however that is known, and nobody is asked.
        (Denied, &complete, 0, two, ask, 401, 0),
        (Denied, &complete, 3, two, ask, 401, 0),
        (Denied, &complete, 3, two, refuse, 401, 0),
        (Denied, &foreign, 3, two, ask, 401, 0),
        (DeniedLongAgo, &complete, 3, two, ask, 401, 0),
        (DeniedLongAgo, &complete, 3, two, refuse, 401, 0),
        (Denied, &complete, 0, every, ask, 401, 1),
        (DeniedLongAgo, &complete, 3, every, refuse, 401, 1),
    ] {
        for phantom in [true, false] {
            let (authority, time) = (Authority::new(), manual_clock());
            let answer = with(facts("token"), changes);
            authority.answer_with(move |_| Ok(Some(answer.clone())));
            let (log, replica) = replica(what, &time).await;
            let guard = if phantom {
                let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
                    .clock(clock(&time))
                    .cache(100)
                    .freshness(freshness)
                    .unwrap()
                    .when_stale(when_stale);
                Guard::Phantom(replica.iter().fold(layer, |it, r| it.replica(r.clone())))
            } else {
                let layer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
                    .clock(clock(&time))
                    .cache(100)
                    .freshness(freshness)
                    .unwrap()
                    .when_stale(when_stale);
                Guard::Bearer(replica.iter().fold(layer, |it, r| it.replica(r.clone())))
            };
            let row = format!("{phantom} {what:?} {changes} {age} {freshness:?} {when_stale:?}");
            assert_eq!(guard.ask("token").await, 200, "{row}");
            assert_eq!(authority.count(), 1, "{row}");
            come_to_pass(what, &log, &time, age).await;
            assert_eq!(guard.ask("token").await, status, "{row}");
            assert_eq!(authority.count(), 1 + asked, "{row}");
        }
    }
}

fn jwt_claims(changes: &Value) -> Value {
    let own = json!({ "grant_id": GRANT, "grant_epoch": 1000, "jti": "token" });
    claims_with(&with(own, changes))
}

#[tokio::test]
async fn verified_jwts() {
    use Replica::{Denied, DeniedLongAgo, Fresh, Stale};
    let every = Some(Freshness::every_request());
    let two = Some(Freshness::within(secs(2)));
    let ten = Some(Freshness::within(secs(10)));
    let (ask, refuse) = (WhenStale::Introspect, WhenStale::Refuse);
    let complete = json!({});
    let foreign = json!({ "grant_epoch": null });
    let swapped = json!({ "handle_hash": "A".repeat(43) });
    let key = Key::new();
    // As above; somebody introspects, or nobody does. The JWT is issued when the test starts.
    for (what, changes, age, freshness, when_stale, introspects, status, asked) in [
        // No replica and no freshness: a JWT is good until it expires.
        (Replica::None, &complete, 3000, None, ask, false, 200, 0),
        (Replica::None, &complete, 3000, None, ask, true, 200, 0),
        (Fresh, &complete, 3000, two, ask, true, 200, 0),
        (Fresh, &complete, 3000, ten, refuse, false, 200, 0),
        (Fresh, &complete, 3000, None, ask, false, 200, 0),
        (Stale, &complete, 3000, two, ask, true, 200, 1),
        (Stale, &complete, 3000, two, refuse, true, 503, 0),
        (Stale, &complete, 3000, ten, ask, false, 503, 0),
        (Stale, &complete, 3000, None, ask, false, 503, 0),
        (Stale, &complete, 10, None, ask, false, 200, 0),
        // Young enough by its own age, less what clocks may differ by: 2 s with this replica, and
        // 5 s where no replica says it. As long as the replica is fresh, it does not come to that.
        (Replica::None, &complete, 5, ten, ask, false, 200, 0),
        (Replica::None, &complete, 6, ten, ask, false, 401, 0),
        (Replica::None, &complete, 6, ten, ask, true, 200, 1),
        (Replica::None, &complete, 6, ten, refuse, true, 200, 1),
        (Stale, &complete, 11, ten, ask, false, 503, 0),
        (Fresh, &foreign, 8, ten, ask, false, 200, 0),
        (Fresh, &foreign, 9, ten, ask, false, 503, 0),
        (Fresh, &foreign, 9, ten, ask, true, 200, 1),
        (Fresh, &foreign, 9, ten, refuse, true, 200, 1),
        (Fresh, &complete, 0, every, ask, true, 200, 1),
        (Fresh, &complete, 0, every, refuse, true, 200, 1),
        (Denied, &complete, 0, ten, ask, true, 401, 0),
        (Denied, &complete, 3000, two, ask, false, 401, 0),
        (Denied, &foreign, 0, ten, ask, false, 401, 0),
        (Denied, &complete, 0, every, ask, true, 401, 0),
        (DeniedLongAgo, &complete, 3000, ten, refuse, true, 401, 0),
        (DeniedLongAgo, &complete, 3000, None, ask, false, 401, 0),
        // What a gateway has swapped a handle for is never asked about: it would be inactive.
        (Fresh, &swapped, 3000, ten, ask, true, 200, 0),
        (Stale, &swapped, 10, ten, ask, true, 200, 0),
        (Stale, &swapped, 11, ten, ask, true, 503, 0),
        (Stale, &swapped, 11, ten, refuse, true, 503, 0),
        (Denied, &swapped, 3000, ten, ask, true, 401, 0),
        (Replica::None, &swapped, 5, ten, ask, true, 200, 0),
        (Replica::None, &swapped, 6, ten, ask, true, 503, 0),
        (Replica::None, &swapped, 6, ten, ask, false, 503, 0),
    ] {
        for remembers in [0, 100] {
            let (authority, time) = (Authority::new(), manual_clock());
            let (log, replica) = replica(what, &time).await;
            let mut verifier = key.verifier(&time).cache(remembers);
            if let Some(replica) = replica {
                verifier = verifier.replica(replica);
            }
            let mut layer = BearerLayer::new(verifier).when_stale(when_stale);
            if introspects {
                layer = layer.or_introspect(authority.clone());
            }
            if let Some(freshness) = freshness {
                // Below what the replica can be relied on for, somebody has to introspect.
                layer = match layer.clone().freshness(freshness) {
                    Ok(layer) => layer,
                    Err(_) => {
                        assert!(!introspects && Some(freshness) == two);
                        continue;
                    }
                };
            }
            let guard = Guard::Bearer(layer);
            let token = key.sign(&jwt_claims(changes)).await;
            let row = format!(
                "{remembers} {what:?} {changes} {age} {freshness:?} {when_stale:?} {introspects}"
            );
            let before = usize::from(freshness == every);
            assert_eq!(guard.ask(&token).await, 200, "{row}");
            assert_eq!(authority.count(), before, "{row}");
            come_to_pass(what, &log, &time, age).await;
            assert_eq!(guard.ask(&token).await, status, "{row}");
            assert_eq!(authority.count(), before + asked, "{row}");
        }
    }
}

#[tokio::test]
async fn behind_a_gateway_not_every_request_can_be_asked_about() {
    let (key, time, authority) = (Key::new(), manual_clock(), Authority::new());
    let layer = BearerLayer::new(key.verifier(&time)).or_introspect(authority.clone());
    let guard = Guard::Bearer(layer.freshness(Freshness::every_request()).unwrap());
    let own = key.sign(&jwt_claims(&json!({}))).await;
    let swapped = key.sign(&jwt_claims(&json!({ "handle_hash": "A".repeat(43) }))).await;
    assert_eq!((guard.ask(&own).await, authority.count()), (200, 1));
    // Its handle may well be good: no reason to make the client throw it away.
    assert_eq!((guard.ask(&swapped).await, authority.count()), (503, 1));
}

#[tokio::test]
async fn a_verifier_by_itself_has_a_safe_default() {
    let (key, time) = (Key::new(), manual_clock());
    let log = Log::new(secs(0));
    let verifier = key.verifier(&time).cache(100).replica(log.replica(&time).await);
    let token = key.sign(&jwt_claims(&json!({}))).await;
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    time.advance(secs(10));
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    time.advance(secs(1));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    let younger = key.sign(&jwt_claims(&json!({ "iat": START.as_secs() + 11 }))).await;
    let answer = verifier.verify(&secret(&younger)).await;
    assert!(is_outage(&answer), "issued since, says whoever has the key");
    log.beat(&time).await;
    assert!(verifier.verify(&secret(&younger)).await.is_ok());
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    log.revoke(Target::Jti("token".parse().unwrap()), None).await;
    assert!(matches!(verifier.verify(&secret(&token)).await, Err(TokenError::Invalid(_))));
    assert!(matches!(verifier.clone().verify(&secret(&token)).await, Err(TokenError::Invalid(_))));
}

#[tokio::test]
async fn a_slow_log_widens_the_default() {
    let (key, time) = (Key::new(), manual_clock());
    let log = Log::new(secs(30));
    let verifier = key.verifier(&time).replica(log.replica(&time).await);
    let token = key.sign(&jwt_claims(&json!({}))).await;
    time.advance(secs(2));
    assert!(verifier.verify(&secret(&token)).await.is_ok(), "32 s, and one to spare");
    time.advance(secs(1));
    assert!(verifier.verify(&secret(&token)).await.is_ok());
    time.advance(secs(1));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
}

#[tokio::test]
async fn what_can_never_be_met_is_refused_when_it_is_named() {
    let (key, time) = (Key::new(), manual_clock());
    let replica = Log::new(secs(5)).replica(&time).await; // 7 s, and one to spare
    let verifier = || key.verifier(&time);
    let followed = || verifier().replica(replica.clone());
    let authority = Authority::new();
    let introspecting =
        |verifier: Verifier| BearerLayer::new(verifier).or_introspect(authority.clone());
    let (every, within) = (Freshness::every_request(), |s| Freshness::within(secs(s)));
    for (layer, freshness, good) in [
        (BearerLayer::new(verifier()), every, false),
        (BearerLayer::new(verifier()), within(4), false),
        (BearerLayer::new(verifier()), within(5), true),
        (BearerLayer::new(followed()), every, false),
        (BearerLayer::new(followed()), within(7), false),
        (BearerLayer::new(followed()), within(8), true),
        (BearerLayer::new(verifier()).replica(replica.clone()), within(7), false),
        (introspecting(verifier()), every, true),
        (introspecting(followed()), every, true),
        (introspecting(followed()), within(1), true),
        (BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE), every, true),
        (BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE), within(1), true),
    ] {
        match layer.freshness(freshness) {
            Ok(_) => assert!(good, "{freshness:?}"),
            Err(SetupError::Freshness(why)) => assert!(!good, "{freshness:?}: {why}"),
            Err(other) => panic!("{other}"),
        }
    }
    // A gateway that refuses what its replica cannot answer for relies on the replica alone.
    let gateway = || PhantomLayer::new(authority.clone(), AUDIENCE);
    let followed = |when| gateway().replica(replica.clone()).when_stale(when);
    for (layer, freshness, good) in [
        (followed(WhenStale::Refuse), within(7), false),
        (followed(WhenStale::Refuse), within(8), true),
        (followed(WhenStale::Refuse), within(9), true),
        (followed(WhenStale::Refuse), every, true),
        (followed(WhenStale::Introspect), within(1), true),
        (gateway().when_stale(WhenStale::Refuse), within(1), true),
    ] {
        match layer.freshness(freshness) {
            Ok(_) => assert!(good, "{freshness:?}"),
            Err(SetupError::Freshness(why)) => assert!(!good, "{freshness:?}: {why}"),
            Err(other) => panic!("{other}"),
        }
    }
    // A gateway asks when its replica is too far behind, unless it is told to refuse.
    for (when_stale, seconds, good) in [
        (WhenStale::Introspect, 7, true),
        (WhenStale::Refuse, 7, false),
        (WhenStale::Refuse, 8, true),
    ] {
        let gateway = PhantomLayer::new(authority.clone(), AUDIENCE).replica(replica.clone());
        match gateway.when_stale(when_stale).freshness(within(seconds)) {
            Ok(_) => assert!(good, "{when_stale:?} {seconds}"),
            Err(SetupError::Freshness(why)) => assert!(!good, "{when_stale:?} {seconds}: {why}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn without_a_freshness_or_a_replica_every_request_asks() {
    let authority = Authority::new();
    let time = manual_clock();
    let phantom = PhantomLayer::new(authority.clone(), AUDIENCE).clock(clock(&time)).cache(100);
    let bearer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&time))
        .cache(100);
    for (guard, count) in [(Guard::Phantom(phantom), 0), (Guard::Bearer(bearer), 3)] {
        for n in 1..=3 {
            assert_eq!(guard.ask("token").await, 200);
            assert_eq!(authority.count(), count + n);
        }
    }
}

/// RFC 7662 §2.2: the server says that a token is active, and the API whether it is meant for it.
#[tokio::test]
async fn an_introspected_token_must_be_for_this_api() {
    let (key, time) = (Key::new(), manual_clock());
    let jwt = key.token().await;
    for (changes, status) in [
        (json!({}), 200),
        (json!({ "aud": null }), 401),
        (json!({ "aud": "https://other.example" }), 401),
        (json!({ "iss": "https://other.example" }), 401),
    ] {
        let authority = Authority::new();
        let answer = with(facts("token"), &changes);
        authority.answer_with(move |_| Ok(Some(answer.clone())));
        // An opaque token beside a verifier, and a JWT without one.
        let beside = BearerLayer::new(key.verifier(&time)).or_introspect(authority.clone());
        let without = BearerLayer::introspecting(authority, ISSUER, AUDIENCE).clock(clock(&time));
        assert_eq!(Guard::Bearer(beside).ask("token").await, status, "{changes}");
        assert_eq!(Guard::Bearer(without).ask(&jwt).await, status, "{changes}");
    }
}

/// Of a JWT that no rule can name, only the server can tell, whatever the replica has heard.
#[tokio::test]
async fn a_jwt_that_rules_cannot_name_is_asked_about_again_although_the_replica_is_stale() {
    let (key, time, authority) = (Key::new(), manual_clock(), Authority::new());
    let (_log, replica) = replica(Replica::Stale, &time).await;
    let guard = {
        let layer = BearerLayer::new(key.verifier(&time).replica(replica.unwrap()))
            .or_introspect(authority.clone())
            .cache(100)
            .when_stale(WhenStale::Refuse);
        Guard::Bearer(layer.freshness(Freshness::within(secs(10))).unwrap())
    };
    let token = key.sign(&jwt_claims(&json!({ "grant_epoch": null }))).await;
    for (wait, asked) in [(0, 0), (20, 1), (20, 2)] {
        time.advance(secs(wait));
        assert_eq!(guard.ask(&token).await, 200, "{asked}");
        assert_eq!(authority.count(), asked);
    }
}
