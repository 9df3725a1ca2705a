//! What is remembered is bounded, in number and in time, and belongs to one audience.

use cloakroom_resource::{BearerLayer, Freshness, IntrospectionClient, PhantomLayer};
use serde_json::json;

use cloakroom_core::Confirmation;
use http::{Request, Response};
use std::convert::Infallible;
use tower::{Layer, ServiceExt, service_fn};

use crate::cache_support::{Authority, Guard, clock, facts, secs, with};
use crate::support::{AUDIENCE, ISSUER, START, manual_clock};

/// A number that `Debug` shows under this name.
fn shown(debug: &str, name: &str) -> usize {
    let rest = debug.split(&format!("{name}: ")).nth(1).unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// A million in a release build; fewer in one that is not optimized.
const JUNK: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

#[tokio::test]
async fn a_flood_of_junk_neither_grows_nor_evicts() {
    let authority =
        Authority::answering(|token| Ok((!token.starts_with("junk")).then(|| facts(token))));
    let freshness = Freshness::within(secs(10));
    for phantom in [true, false] {
        let guard = if phantom {
            Guard::Phantom(
                PhantomLayer::new(authority.clone(), AUDIENCE)
                    .clock(clock(&manual_clock()))
                    .cache(2_000)
                    .freshness(freshness)
                    .unwrap(),
            )
        } else {
            Guard::Bearer(
                BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
                    .clock(clock(&manual_clock()))
                    .cache(2_000)
                    .freshness(freshness)
                    .unwrap(),
            )
        };
        let live: Vec<String> = (0..1_000).map(|n| format!("live-{n}")).collect();
        for token in &live {
            assert_eq!(guard.ask(token).await, 200);
        }
        let before = authority.count();
        for n in 0..JUNK / 2 {
            assert_eq!(guard.ask(&format!("junk-{n}")).await, 401);
        }
        assert_eq!(authority.count(), before + JUNK / 2);
        for token in &live {
            assert_eq!(guard.ask(token).await, 200);
        }
        assert_eq!(authority.count(), before + JUNK / 2, "every live one is still there");
        let debug = format!("{guard:?}");
        assert_eq!(shown(&debug, "entries"), 1_000);
        assert!(shown(&debug, "refusals") <= 10_100, "{debug}");
        assert_eq!((shown(&debug, "under_way"), shown(&debug, "waiting")), (0, 0), "{debug}");
        // Junk that was just refused is not asked about again.
        assert_eq!(guard.ask(&format!("junk-{}", JUNK / 2 - 1)).await, 401);
        assert_eq!(authority.count(), before + JUNK / 2);
    }
}

#[tokio::test]
async fn more_good_tokens_than_there_is_room_for() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(1_000)
        .freshness(Freshness::within(secs(10)))
        .unwrap();
    let guard = Guard::Phantom(layer);
    for n in 0..5_000 {
        assert_eq!(guard.ask(&format!("token-{n}")).await, 200);
    }
    let kept = shown(&format!("{guard:?}"), "entries");
    assert!(kept <= 1_000, "{kept}");
}

#[tokio::test]
async fn refusals_are_remembered_as_long_as_the_route_allows() {
    for (within, remembered) in [(0, 0), (2, 2), (10, 10), (3600, 10)] {
        let authority = Authority::answering(|_| Ok(None));
        let time = manual_clock();
        let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
            .clock(clock(&time))
            .cache(100)
            .freshness(Freshness::within(secs(within)))
            .unwrap();
        let guard = Guard::Phantom(layer);
        assert_eq!(guard.ask("token").await, 401);
        time.advance(secs(remembered));
        assert_eq!(guard.ask("token").await, 401);
        assert_eq!(authority.count(), if remembered == 0 { 2 } else { 1 }, "{within}");
        let count = authority.count();
        authority.answer_with(|token| Ok(Some(facts(token))));
        time.advance(secs(1));
        assert_eq!(guard.ask("token").await, 200, "it was adopted since");
        assert_eq!(authority.count(), count + 1);
    }
}

#[tokio::test]
async fn tokens_for_others_are_refusals_too() {
    let authority = Authority::new();
    let layer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(Freshness::within(secs(10)))
        .unwrap();
    let guard = Guard::Bearer(layer);
    for (n, changes) in [
        json!({ "aud": "https://billing.example" }),
        json!({ "aud": null }),
        json!({ "iss": "https://evil.example" }),
        json!({ "token_type": "refresh_token" }),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = with(facts("x"), &changes);
        authority.answer_with(move |_| Ok(Some(answer.clone())));
        for _ in 0..2 {
            assert_eq!(guard.ask(&format!("token-{n}")).await, 401, "{changes}");
        }
        assert_eq!(authority.count(), n + 1, "{changes}");
        assert_eq!(shown(&format!("{guard:?}"), "entries"), 0);
    }
}

#[tokio::test]
async fn nothing_outlives_its_token() {
    let (authority, time) = (Authority::new(), manual_clock());
    let short = with(facts("token"), &json!({ "exp": START.as_secs() + 5 }));
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&time))
        .cache(100)
        .freshness(Freshness::within(secs(3600)))
        .unwrap();
    let gateway = Guard::Phantom(layer);
    let layer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&time))
        .cache(100)
        .freshness(Freshness::within(secs(3600)))
        .unwrap();
    let api = Guard::Bearer(layer);
    authority.answer_with(move |_| Ok(Some(short.clone())));
    assert_eq!((gateway.ask("token").await, api.ask("token").await), (200, 200));
    time.advance(secs(4));
    assert_eq!((gateway.ask("token").await, api.ask("token").await), (200, 200));
    assert_eq!(authority.count(), 2);
    time.advance(secs(1));
    // The handle has another JWT; the token that has expired has nothing more.
    authority.answer_with(|token| Ok(Some(facts(token))));
    assert_eq!((gateway.ask("token").await, authority.count()), (200, 3));
    authority.revoke_all();
    assert_eq!((api.ask("token").await, authority.count()), (401, 4));
    assert_eq!((api.ask("token").await, authority.count()), (401, 4));
}

#[tokio::test]
async fn a_token_is_not_used_before_its_time() {
    let (authority, time) = (Authority::new(), manual_clock());
    let early = with(facts("token"), &json!({ "nbf": START.as_secs() + 31 }));
    authority.answer_with(move |_| Ok(Some(early.clone())));
    let layer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&time))
        .cache(100)
        .freshness(Freshness::within(secs(3600)))
        .unwrap();
    let guard = Guard::Bearer(layer);
    assert_eq!(guard.ask("token").await, 401);
    time.advance(secs(1));
    assert_eq!(guard.ask("token").await, 200, "within what clocks may differ by");
    assert_eq!(authority.count(), 1);
}

#[tokio::test]
async fn one_audience_is_told_nothing_of_another() {
    // A token for one of them alone.
    let authority = Authority::new();
    let freshness = Freshness::within(secs(3600));
    let guard = |audience: &str| {
        Guard::Bearer(
            BearerLayer::introspecting(authority.clone(), ISSUER, audience)
                .clock(clock(&manual_clock()))
                .cache(100)
                .freshness(freshness)
                .unwrap(),
        )
    };
    let (orders, billing) = (guard(AUDIENCE), guard("https://billing.example"));
    assert_eq!((orders.ask("token").await, billing.ask("token").await), (200, 401));
    assert_eq!((billing.ask("token").await, orders.ask("token").await), (401, 200));
    assert_eq!(authority.count(), 2);

    // And each has its own JWT for the same handle.
    let gateway = |audience: &str| {
        Guard::Phantom(
            PhantomLayer::new(authority.clone(), audience)
                .clock(clock(&manual_clock()))
                .cache(100)
                .freshness(freshness)
                .unwrap(),
        )
    };
    let (orders, billing) = (gateway(AUDIENCE), gateway("https://billing.example"));
    assert_eq!((orders.ask("token").await, billing.ask("token").await), (200, 200));
    assert_eq!(authority.count(), 4);
}

#[tokio::test]
async fn a_proof_is_asked_for_each_time() {
    let authority = Authority::new();
    let thumbprint = json!({ "cnf": { "x5t#S256": "A".repeat(43) } });
    let bound = with(facts("token"), &thumbprint);
    authority.answer_with(move |_| Ok(Some(bound.clone())));
    let freshness = Freshness::within(secs(10));
    let gateway = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(freshness)
        .unwrap();
    let api = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(freshness)
        .unwrap();
    for (proved, status) in
        [(None, 401), (Some([0; 32]), 200), (None, 401), (Some([1; 32]), 401), (Some([0; 32]), 200)]
    {
        let request = || {
            let mut request = Request::get("/").header("authorization", "Bearer token");
            if let Some(proved) = proved {
                request = request.extension(Confirmation::CertificateThumbprint(proved));
            }
            request.body(()).unwrap()
        };
        let service = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let responses = [
            gateway.layer(service).oneshot(request()).await.unwrap(),
            api.layer(service).oneshot(request()).await.unwrap(),
        ];
        for response in responses {
            assert_eq!(response.status(), status, "{proved:?}");
        }
    }
    assert_eq!(authority.count(), 2);
}

#[tokio::test]
async fn debug_shows_no_token() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(Freshness::within(secs(10)))
        .unwrap();
    let guard = Guard::Phantom(layer);
    assert_eq!(guard.ask("do-not-print").await, 200);
    authority.close();
    let waiting = guard.begin("do-not-print-either");
    authority.wait_for(2).await;
    let debug = format!("{guard:?} {guard:#?}");
    assert!(!debug.contains("do-not-print") && !debug.contains("eyJ"), "{debug}");
    authority.open();
    assert_eq!(waiting.await.unwrap(), 200);
    let _: fn(IntrospectionClient, &str) -> PhantomLayer = PhantomLayer::new;
}
