//! A gateway that knows the keys of handles refuses junk by itself.

use std::sync::Arc;

use cloakroom_core::handle::{HandleKeys, HandlePrefixes, HandleSecret};
use cloakroom_core::time::ManualClock;
use cloakroom_core::{GrantId, Random};
use cloakroom_resource::{
    BearerLayer, ClientCredentials, Freshness, GatewayKeys, IntrospectionLimits, PhantomLayer,
    ReqwestClient,
};

use crate::cache_support::{Authority, Guard, clock, secs, settle};
use crate::support::{AUDIENCE, ISSUER, Key, Peer, manual_clock, respond, with_header};

fn secret(id: u8) -> HandleSecret {
    HandleSecret::new(id, [id; 32])
}

fn mint(keys: &HandleKeys) -> String {
    let random = Random::system();
    let (token, _) = keys.mint_access(GrantId::random(&random).unwrap(), &random).unwrap();
    token.expose().to_owned()
}

async fn server(keys: &HandleKeys) -> Peer {
    let json = keys.access_keys().to_json().to_string();
    Peer::start(move |_| respond(200, "application/json", &json)).await
}

fn publish(peer: &Peer, keys: &HandleKeys) {
    let json = keys.access_keys().to_json().to_string();
    peer.answer_with(move |_| respond(200, "application/json", &json));
}

fn fetched(peer: &Peer) -> GatewayKeys {
    let credentials = ClientCredentials::new("gateway", "s3cret");
    let client = ReqwestClient::new().unwrap();
    GatewayKeys::new(&format!("{}/handle-keys", peer.url), credentials, client).unwrap()
}

fn gateway(authority: &Authority, keys: GatewayKeys, time: &Arc<ManualClock>) -> Guard {
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(time))
        .cache(100)
        .freshness(Freshness::within(secs(1)))
        .unwrap()
        .handle_keys(keys);
    Guard::Phantom(layer)
}

/// One of each kind of junk.
fn junk(keys: &HandleKeys) -> Vec<String> {
    let good = mint(keys);
    let damaged = |at: usize| {
        let replaced = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{replaced}{}", &good[..at], &good[at + 1..])
    };
    vec![
        damaged(10),
        damaged(30),
        damaged(71),
        good[..72].to_owned(),
        format!("{good}A"),
        mint(&HandleKeys::new(&HandleSecret::new(1, [99; 32]))),
        "cr_at_junk".to_owned(),
        "cr_rt_junk".to_owned(),
        "6d7f2b0c".to_owned(),
    ]
}

#[tokio::test]
async fn junk_is_refused_without_asking() {
    let (keys, time) = (HandleKeys::new(&secret(1)), manual_clock());
    let peer = server(&keys).await;
    let authority = Authority::new();
    let bearer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE);
    for guard in [
        gateway(&authority, fetched(&peer), &time),
        gateway(&authority, GatewayKeys::with_keys(keys.access_keys().clone()), &time),
        Guard::Bearer(bearer.clock(clock(&time)).handle_keys(fetched(&peer))),
    ] {
        let before = authority.count();
        let good = mint(&keys);
        assert_eq!(guard.ask(&good).await, 200);
        for junk in junk(&keys) {
            assert_eq!(guard.ask(&junk).await, 401, "{junk}");
        }
        assert_eq!(authority.count(), before + 1);
    }
    assert_eq!(peer.count(), 2, "one fetch for each set of keys");
    let asked = peer.last();
    assert_eq!((asked.method.as_str(), &*asked.path), ("GET", "/handle-keys"));
    assert!(asked.header("authorization").unwrap().starts_with("Basic "));

    // A JWT is no handle: where the server is asked about those, it is asked.
    let bearer = BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
        .handle_keys(fetched(&peer))
        .clock(clock(&time));
    let before = authority.count();
    assert_eq!(Guard::Bearer(bearer).ask(&Key::new().token().await).await, 200);
    assert_eq!(authority.count(), before + 1);
}

#[tokio::test]
async fn a_flood_of_forged_handles_reaches_nobody() {
    let (keys, time) = (HandleKeys::new(&secret(1)), manual_clock());
    let peer = server(&keys).await;
    let authority = Authority::new();
    let guard = gateway(&authority, fetched(&peer), &time);
    let forger = HandleKeys::new(&HandleSecret::new(1, [99; 32]));
    let unknown = HandleKeys::new(&secret(2));
    let live = mint(&keys);
    assert_eq!(guard.ask(&live).await, 200);
    for _ in 0..5_000 {
        assert_eq!(guard.ask(&mint(&forger)).await, 401);
        assert_ne!(guard.ask(&mint(&unknown)).await, 200);
    }
    assert_eq!((authority.count(), peer.count()), (1, 1));
    assert_eq!(guard.ask(&live).await, 200);
    assert_eq!(authority.count(), 1, "it was not pushed out");
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_in_a_while() {
    let (old, new) = (HandleKeys::new(&secret(1)), HandleKeys::new(&secret(2)));
    let both = HandleKeys::new(&secret(2)).with_former(&secret(1)).unwrap();
    let (peer, time) = (server(&old).await, manual_clock());
    let authority = Authority::new();
    let guard = gateway(&authority, fetched(&peer), &time);
    assert_eq!(guard.ask(&mint(&old)).await, 200);

    // The server changes its keys; the ones that are here were fetched just before.
    publish(&peer, &both);
    assert_eq!(guard.ask(&mint(&new)).await, 503, "nobody can tell: no reason to throw it away");
    time.advance(secs(1));
    assert_eq!(guard.ask(&mint(&new)).await, 503, "nor a second later");
    assert_eq!((peer.count(), authority.count()), (1, 1));
    time.advance(secs(10));
    let requests: Vec<_> = (0..20).map(|_| guard.begin(&mint(&new))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!((peer.count(), authority.count()), (2, 21));
    assert_eq!(guard.ask(&mint(&old)).await, 200);

    // One that the server does not know either.
    time.advance(secs(10));
    let stranger = HandleKeys::new(&secret(3));
    assert_eq!(guard.ask(&mint(&stranger)).await, 401);
    assert_eq!(guard.ask(&mint(&stranger)).await, 503);
    assert_eq!((peer.count(), authority.count()), (3, 22));
}

#[tokio::test]
async fn another_prefix_is_fetched_once_in_a_while() {
    let old = HandleKeys::new(&secret(1));
    let prefixes = HandlePrefixes::new("acme_at_", "acme_rt_", "acme_ac_").unwrap();
    let new = HandleKeys::new(&secret(1)).with_prefixes(prefixes);
    let (peer, time) = (server(&old).await, manual_clock());
    let authority = Authority::new();
    let guard = gateway(&authority, fetched(&peer), &time);
    assert_eq!(guard.ask(&mint(&old)).await, 200);

    publish(&peer, &new);
    time.advance(secs(10));
    assert_eq!(guard.ask(&mint(&new)).await, 200);
    for _ in 0..100 {
        assert_eq!(guard.ask("6d7f2b0c").await, 401);
    }
    assert_eq!((peer.count(), authority.count()), (2, 2));

    // Nobody can tell: it may be good by now.
    peer.answer_with(|_| respond(500, "", ""));
    time.advance(secs(10));
    assert_eq!(guard.ask("6d7f2b0c").await, 503);
    assert_eq!((peer.count(), authority.count()), (3, 2));
}

#[tokio::test]
async fn keys_are_refreshed_while_they_are_used() {
    let (old, new) = (HandleKeys::new(&secret(1)), HandleKeys::new(&secret(2)));
    let (peer, time) = (server(&old).await, manual_clock());
    let authority = Authority::new();
    let guard = gateway(&authority, fetched(&peer), &time);
    let handles = [mint(&old), mint(&old)];
    assert_eq!(guard.ask(&handles[0]).await, 200);
    publish(&peer, &new);
    time.advance(secs(599));
    assert_eq!(guard.ask(&handles[0]).await, 200);
    for _ in 0..50 {
        settle().await;
    }
    assert_eq!(peer.count(), 1);
    time.advance(secs(1));
    assert_eq!(guard.ask(&handles[1]).await, 200, "in the background");
    peer.wait_for(2).await;
    // The key that is gone is now one that nobody knows.
    time.advance(secs(10));
    for _ in 0..200 {
        settle().await;
        if format!("{guard:?}").contains("ids: [2]") {
            break;
        }
    }
    assert_eq!(guard.ask(&handles[0]).await, 401);
    assert_eq!(guard.ask(&mint(&new)).await, 200);
    assert_eq!(peer.count(), 3);
    // And so it goes on.
    time.advance(secs(600));
    assert_eq!(guard.ask(&mint(&new)).await, 200);
    peer.wait_for(4).await;
}

#[tokio::test]
async fn that_keys_cannot_be_fetched_is_no_verdict() {
    let (keys, time) = (HandleKeys::new(&secret(1)), manual_clock());
    let good = keys.access_keys().to_json().to_string();
    let (authority, mut asked) = (Authority::new(), 0);
    let peer = Peer::start(|_| respond(500, "", "")).await;
    let guard = {
        let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
            .clock(clock(&time))
            .limits(IntrospectionLimits::default().max_requests_per_second(100))
            .handle_keys(fetched(&peer));
        Guard::Phantom(layer)
    };
    for (status, content_type, body) in [
        (500, "application/json", &*good),
        (403, "application/json", &good),
        (302, "application/json", &good),
        (200, "text/html", &good),
        (200, "application/json", "{}"),
        (200, "application/json", r#"{"keys":[],"prefixes":["cr_at_"]}"#),
        (200, "application/json", ""),
    ] {
        let (kind, text) = (content_type.to_owned(), body.to_owned());
        peer.answer_with(move |_| with_header(respond(status, &kind, &text), "location", "/x"));
        time.advance(secs(10));
        for handle in [mint(&keys), mint(&keys)] {
            assert_eq!(guard.ask(&handle).await, 200, "{status} {body}");
        }
        asked += 2;
        assert_eq!(authority.count(), asked);
    }
    assert_eq!(peer.count(), 7, "and one fetch in 10 s is enough");
    publish(&peer, &keys);
    time.advance(secs(10));
    assert_eq!(guard.ask("cr_at_junk").await, 401);
    // What was fetched stays, whatever becomes of the server.
    peer.fail();
    time.advance(secs(3600));
    assert_eq!(guard.ask("cr_at_junk").await, 401);
    assert_eq!(guard.ask(&mint(&keys)).await, 200);
    assert_eq!(authority.count(), asked + 1);
}

#[tokio::test]
async fn tokens_of_another_prefix_may_be_asked_about() {
    let (keys, time) = (HandleKeys::new(&secret(1)), manual_clock());
    let authority = Authority::new();
    let own = GatewayKeys::with_keys(keys.access_keys().clone());
    for (keys, status, count) in [(own.clone(), 401, 0), (own.introspect_other_tokens(), 200, 1)] {
        let guard = gateway(&authority, keys, &time);
        assert_eq!(guard.ask("6d7f2b0c-6a0e-4f3a").await, status);
        assert_eq!(guard.ask("cr_at_junk").await, 401);
        assert_eq!(authority.count(), count);
    }
    // That asks for no keys, and so it does not matter whether there are newer ones.
    let peer = server(&keys).await;
    let guard = gateway(&authority, fetched(&peer).introspect_other_tokens(), &time);
    assert_eq!(guard.ask(&mint(&keys)).await, 200);
    peer.fail();
    time.advance(secs(10));
    assert_eq!(guard.ask("6d7f2b0c-6a0e-4f3a").await, 200);
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn metadata_names_the_endpoint_and_debug_no_key() {
    let keys = HandleKeys::new(&secret(1));
    let json = keys.access_keys().to_json().to_string();
    let peer = Peer::start(|_| respond(404, "", "")).await;
    let url = peer.url.clone();
    peer.answer_with(move |request| {
        if request.path.starts_with("/.well-known") {
            let body =
                format!(r#"{{"issuer":"{url}","handle_keys_endpoint":"{url}/handle-keys"}}"#);
            respond(200, "application/json", &body)
        } else {
            respond(200, "application/json", &json)
        }
    });
    let credentials = ClientCredentials::new("gateway", "s3cret");
    let found = GatewayKeys::discover(&peer.url, credentials).await.unwrap();
    let authority = Authority::new();
    let guard = gateway(&authority, found.clone(), &manual_clock());
    assert_eq!(guard.ask(&mint(&keys)).await, 200);
    let raw: serde_json::Value = serde_json::from_str(&keys.access_keys().to_json()).unwrap();
    let raw = raw["keys"][0]["key"].as_str().unwrap();
    let debug = format!("{found:?} {found:#?} {guard:?}");
    assert!(debug.contains("handle-keys") && debug.contains("ids: [1]"), "{debug}");
    assert!(!debug.contains(raw) && !debug.contains("s3cret"), "{debug}");
}
