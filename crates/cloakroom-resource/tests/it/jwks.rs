use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom_core::time::{Clock, ManualClock};
use cloakroom_resource::{HttpClient, HttpError, ReqwestClient, Verifier};
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, is_invalid, is_outage, key_set, manual_clock, respond, secret,
    with_header,
};

pub(crate) fn verifier(peer: &Peer, clock: &Arc<ManualClock>) -> Verifier {
    verifier_with(ReqwestClient::new().unwrap(), peer, clock)
}

fn verifier_with(client: impl HttpClient, peer: &Peer, clock: &Arc<ManualClock>) -> Verifier {
    Verifier::fetching(ISSUER, AUDIENCE, &format!("{}/jwks", peer.url), client)
        .unwrap()
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Tells when an exchange is over on the asking side, too.
#[derive(Debug)]
struct Watched(ReqwestClient, watch::Sender<usize>);

#[async_trait]
impl HttpClient for Watched {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.0.send(request).await;
        self.1.send_modify(|count| *count += 1);
        result
    }
}

/// Lets everything run that can run without waiting for anybody.
pub(crate) async fn settle() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_hundred_at_once_fetch_once() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let (verifier, token) = (verifier(&peer, &clock), key.token().await);
    peer.close();
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (verifier, token) = (verifier.clone(), token.clone());
        tasks.spawn(async move { verifier.verify(&secret(&token)).await });
    }
    peer.wait_for(1).await;
    settle().await;
    peer.open();
    for result in tasks.join_all().await {
        assert_eq!(result.unwrap().subject().unwrap().id(), "alice");
    }
    assert_eq!(peer.count(), 1);
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.count(), 1, "and then not at all");
}

#[tokio::test]
async fn whoever_goes_away_takes_nothing_from_those_who_wait() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let (verifier, token) = (verifier(&peer, &clock), key.token().await);
    peer.close();
    let spawn = || {
        let (verifier, token) = (verifier.clone(), token.clone());
        tokio::spawn(async move { verifier.verify(&secret(&token)).await })
    };
    let first = spawn();
    peer.wait_for(1).await;
    let second = spawn();
    settle().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    peer.open();
    second.await.unwrap().unwrap();
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_an_interval() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let (verifier, good) = (verifier(&peer, &clock), key.token().await);
    verifier.verify(&secret(&good)).await.unwrap();

    let mut strangers = Vec::new();
    for _ in 0..10 {
        strangers.push(Key::new().token().await);
    }
    let flood = || {
        let mut tasks = JoinSet::new();
        for token in strangers.iter().cycle().take(100) {
            let (verifier, token) = (verifier.clone(), token.clone());
            tasks.spawn(async move { verifier.verify(&secret(&token)).await });
        }
        tasks.join_all()
    };
    assert!(flood().await.iter().all(is_invalid));
    assert_eq!(peer.count(), 2);
    clock.advance(seconds(29));
    assert!(flood().await.iter().all(is_invalid));
    assert_eq!(peer.count(), 2);
    clock.advance(seconds(1));
    assert!(flood().await.iter().all(is_invalid));
    assert_eq!(peer.count(), 3);
    verifier.verify(&secret(&good)).await.unwrap();
    assert_eq!(peer.count(), 3);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_removed_one_forgotten() {
    let (old, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = verifier(&peer, &clock);
    let (by_old, by_new) = (old.token().await, new.token().await);
    verifier.verify(&secret(&by_old)).await.unwrap();

    peer.publish(key_set(&[&old, &new]));
    verifier.verify(&secret(&by_new)).await.unwrap();
    verifier.verify(&secret(&by_old)).await.unwrap();
    assert_eq!(peer.count(), 2);

    peer.publish(key_set(&[&new]));
    clock.advance(seconds(3600));
    assert!(is_invalid(&verifier.verify(&secret(&by_old)).await));
    verifier.verify(&secret(&by_new)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_key_during_an_outage_is_no_invalid_token() {
    let (old, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = verifier(&peer, &clock);
    let (by_old, by_new) = (old.token().await, new.token().await);
    verifier.verify(&secret(&by_old)).await.unwrap();

    peer.fail();
    assert!(is_outage(&verifier.verify(&secret(&by_new)).await));
    assert!(is_outage(&verifier.verify(&secret(&by_new)).await));
    assert_eq!(peer.count(), 2, "still one an interval");
    verifier.verify(&secret(&by_old)).await.unwrap();

    peer.publish(key_set(&[&new]));
    clock.advance(seconds(30));
    verifier.verify(&secret(&by_new)).await.unwrap();
    assert_eq!(peer.count(), 3);
}

#[tokio::test]
async fn a_cancelled_fetch_for_an_unknown_key_still_lands() {
    let (old, new, clock) = (Key::new(), Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&old])).await;
    let verifier = verifier(&peer, &clock);
    verifier.verify(&secret(&old.token().await)).await.unwrap();

    peer.publish(key_set(&[&new]));
    peer.close();
    let junk = Key::new().token().await;
    let attacker = {
        let verifier = verifier.clone();
        tokio::spawn(async move { verifier.verify(&secret(&junk)).await })
    };
    peer.wait_for(2).await;
    attacker.abort();
    assert!(attacker.await.unwrap_err().is_cancelled());
    peer.open();
    verifier.verify(&secret(&new.token().await)).await.unwrap();
    assert_eq!(peer.count(), 2);
}

#[tokio::test]
async fn the_set_is_refreshed_ahead_while_it_still_serves() {
    let (key, clock) = (Key::new(), manual_clock());
    let body = key_set(&[&key]);
    let peer = Peer::start(move |_| {
        let response = respond(200, "application/json", &body);
        with_header(response, "cache-control", "public, max-age=1000")
    })
    .await;
    let token = key.token().await;
    for (remembered, asked) in [(0, 0), (10, 2)] {
        let verifier = verifier(&peer, &clock).cache(remembered);
        verifier.verify(&secret(&token)).await.unwrap();
        clock.advance(seconds(799));
        verifier.verify(&secret(&token)).await.unwrap();
        settle().await;
        assert_eq!(peer.count(), asked + 1);

        peer.close();
        clock.advance(seconds(1));
        verifier.verify(&secret(&token)).await.unwrap();
        peer.wait_for(asked + 2).await;
        verifier.verify(&secret(&token)).await.unwrap();
        peer.open();
        clock.advance(seconds(200));
        verifier.verify(&secret(&token)).await.unwrap();
        assert_eq!(peer.count(), asked + 2, "the old set has ended; the new one counts");
    }
}

#[tokio::test]
async fn a_failed_refresh_ahead_changes_nothing_before_the_end() {
    let (key, clock) = (Key::new(), manual_clock());
    let body = key_set(&[&key]);
    let peer = Peer::jwks(body.clone()).await;
    let (sender, mut done) = watch::channel(0);
    let client = Watched(ReqwestClient::new().unwrap(), sender);
    let verifier = verifier_with(client, &peer, &clock).stale_if_error(Duration::ZERO);
    let token = key.token().await;
    verifier.verify(&secret(&token)).await.unwrap();

    peer.fail();
    clock.advance(seconds(3000));
    verifier.verify(&secret(&token)).await.unwrap();
    done.wait_for(|done| *done == 2).await.unwrap();
    clock.advance(seconds(29));
    verifier.verify(&secret(&token)).await.unwrap();
    settle().await;
    assert_eq!(peer.count(), 2, "no try before the interval has passed");
    clock.advance(seconds(1));
    verifier.verify(&secret(&token)).await.unwrap();
    done.wait_for(|done| *done == 3).await.unwrap();

    // One millisecond before its end the set serves; at its end it does not.
    clock.advance(seconds(569) + Duration::from_millis(999));
    verifier.verify(&secret(&token)).await.unwrap();
    done.wait_for(|done| *done == 4).await.unwrap();
    clock.advance(Duration::from_millis(1));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    assert_eq!(peer.count(), 4, "the failure is as fresh as can be");
    clock.advance(seconds(1));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    assert_eq!(peer.count(), 5);

    peer.publish(body);
    clock.advance(seconds(1));
    verifier.verify(&secret(&token)).await.unwrap();
}

#[tokio::test]
async fn an_age_counts_from_when_the_request_was_sent() {
    let (key, clock) = (Key::new(), manual_clock());
    let body = key_set(&[&key]);
    let slow = Arc::clone(&clock);
    let peer = Peer::start(move |_| {
        slow.advance(seconds(20));
        let response = respond(200, "application/json", &body);
        with_header(response, "cache-control", "max-age=60")
    })
    .await;
    let (verifier, token) = (verifier(&peer, &clock), key.token().await);
    verifier.verify(&secret(&token)).await.unwrap();
    clock.advance(seconds(40));
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.count(), 2, "60 s after it was sent, not after it came");
}

#[tokio::test]
async fn an_unchanged_set_is_not_sent_again() {
    let (key, new, clock) = (Key::new(), Key::new(), manual_clock());
    let conditional = |body: String, tag: &'static str| {
        move |request: &crate::support::Received| {
            let response = if request.header("if-none-match") == Some(tag) {
                respond(304, "", "")
            } else {
                respond(200, "application/json", &body)
            };
            let response = with_header(response, "etag", tag);
            with_header(response, "cache-control", "max-age=100")
        }
    };
    let peer = Peer::start(conditional(key_set(&[&key]), "\"1\"")).await;
    let (verifier, token) = (verifier(&peer, &clock), key.token().await);
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.last().header("if-none-match"), None);
    clock.advance(seconds(100));
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.last().header("if-none-match"), Some("\"1\""));
    clock.advance(seconds(79));
    verifier.verify(&secret(&token)).await.unwrap();
    assert_eq!(peer.count(), 2, "a 304 renews the set");

    peer.answer_with(conditional(key_set(&[&new]), "\"2\""));
    clock.advance(seconds(21));
    assert!(is_invalid(&verifier.verify(&secret(&token)).await));
    verifier.verify(&secret(&new.token().await)).await.unwrap();
}

#[tokio::test]
async fn a_304_may_give_the_set_another_life() {
    let (key, clock) = (Key::new(), manual_clock());
    let body = key_set(&[&key]);
    let peer = Peer::start(move |request: &crate::support::Received| {
        let (response, life) = match request.header("if-none-match") {
            Some(_) => (respond(304, "", ""), "max-age=1000"),
            None => (respond(200, "application/json", &body), "max-age=100"),
        };
        with_header(with_header(response, "etag", "\"1\""), "cache-control", life)
    })
    .await;
    let (verifier, token) = (verifier(&peer, &clock), key.token().await);
    for (wait, count) in [(0, 1), (100, 2), (700, 2)] {
        clock.advance(seconds(wait));
        verifier.verify(&secret(&token)).await.unwrap();
        assert_eq!(peer.count(), count, "{wait}");
    }
}

#[tokio::test]
async fn who_did_not_ask_whether_the_set_is_unchanged_is_told_nothing_by_a_304() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let verifier = verifier(&peer, &clock).stale_if_error(Duration::ZERO);
    let token = key.token().await;
    verifier.verify(&secret(&token)).await.unwrap();
    peer.answer_with(|_| respond(304, "", ""));
    clock.advance(seconds(3600));
    assert!(is_outage(&verifier.verify(&secret(&token)).await));
    assert_eq!(peer.last().header("if-none-match"), None);
}

#[tokio::test]
async fn no_usable_answer_is_an_outage() {
    let (key, clock) = (Key::new(), manual_clock());
    let token = key.token().await;
    let (keys, big) = (key_set(&[&key]), " ".repeat(256 * 1024));
    for (status, content_type, body) in [
        (304, "", ""),
        (204, "", ""),
        (401, "application/json", &*keys),
        (404, "application/json", &*keys),
        (429, "text/plain", ""),
        (500, "application/json", &*keys),
        (503, "text/plain", ""),
        (200, "application/json", ""),
        (200, "application/json", "{}"),
        (200, "application/json", "[]"),
        (200, "application/json", r#"{"keys":[]}"#),
        (200, "application/json", r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
        (200, "text/html", "<html>log in</html>"),
        (200, "application/json", &*format!("{keys}{big}")),
    ] {
        let (verifier, token) = {
            let (body, kind) = (body.to_owned(), content_type.to_owned());
            let peer = Peer::start(move |_| respond(status, &kind, &body)).await;
            let verifier = verifier(&peer, &clock);
            let result = verifier.verify(&secret(&token)).await;
            assert!(is_outage(&result), "{status} {content_type}: {result:?}");
            (verifier, &token)
        };
        // Now nobody listens at all.
        clock.advance(seconds(1));
        assert!(is_outage(&verifier.verify(&secret(token)).await));
    }
}

#[tokio::test]
async fn junk_makes_nobody_fetch() {
    let (key, clock) = (Key::new(), manual_clock());
    let peer = Peer::jwks(key_set(&[&key])).await;
    let verifier = verifier(&peer, &clock);
    for junk in [
        "",
        "cr_at_opaque",
        "a.b",
        "a.b.c.d",
        &"a.".repeat(5000),
        &format!("a.b.{}", "c".repeat(9000)),
    ] {
        assert!(is_invalid(&verifier.verify(&secret(junk)).await));
    }
    assert_eq!(peer.count(), 0);
}

/// Answers the first request, never the second, and all others.
#[derive(Debug)]
struct Forgetful(String, AtomicUsize);

#[async_trait]
impl HttpClient for Forgetful {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Bytes::from(self.0.clone())))
    }
}

/// Polls a future once, without any runtime; `None` if it waits. Then drops it.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn without_a_runtime_a_dropped_fetch_is_an_outage_until_the_interval_has_passed() {
    let (known, clock) = (Key::new(), manual_clock());
    let client = Forgetful(key_set(&[&known]), AtomicUsize::new(0));
    let verifier = Verifier::fetching(ISSUER, AUDIENCE, "https://as.example/jwks", client)
        .unwrap()
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let good = poll_once(known.token()).unwrap();
    let unknown = poll_once(Key::new().token()).unwrap();

    poll_once(verifier.verify(&secret(&good))).unwrap().unwrap();
    assert!(poll_once(verifier.verify(&secret(&unknown))).is_none());
    assert!(is_outage(&poll_once(verifier.verify(&secret(&unknown))).unwrap()));
    poll_once(verifier.verify(&secret(&good))).unwrap().unwrap();
    clock.advance(Duration::from_millis(999));
    assert!(is_outage(&poll_once(verifier.verify(&secret(&unknown))).unwrap()));
    clock.advance(Duration::from_millis(1));
    assert!(is_invalid(&poll_once(verifier.verify(&secret(&unknown))).unwrap()));
}
