//! Followers that wait for the revocation log to grow: none misses anything, none costs much, and
//! none is in another's way.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::revocation::{Cursor, LogEvent};
use cloakroom::core::store::TokenStore as _;
use cloakroom::http::Endpoints;
use cloakroom::{Client, Role};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, timeout};

use super::faulty_store::WakeUp;
use super::request::{Reply, get};
use super::revocations::{ask, revocation};
use super::server::{SECRET, START, Server, Wire};
use crate::engine::store::When;
use crate::engine::support::Fixture;

const SECOND: Duration = Duration::from_secs(1);

/// Lets everything that can go on do so.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

async fn follow(endpoints: Endpoints, after: Cursor) -> Reply {
    endpoints.handle(ask(&format!("wait=30&after={after}"))).await.into()
}

impl Server {
    /// A follower that waits at the log's end.
    async fn follower(&self) -> JoinHandle<Reply> {
        let follower = tokio::spawn(follow(self.endpoints.clone(), self.head().await));
        settle().await;
        assert!(!follower.is_finished());
        follower
    }
}

#[track_caller]
fn assert_new(reply: &Reply, number: u8) {
    let entries = reply.batch().entries;
    let LogEvent::Revoked { target, .. } = &entries.last().unwrap().event else { panic!() };
    assert_eq!(*target, revocation(number).target);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_a_follower_that_waits() {
    let server = Server::new().await;
    let start = Instant::now();
    for number in 1..4 {
        let follower = server.follower().await;
        server.revoke(number).await;
        let reply = follower.await.unwrap();
        assert_new(&reply, number);
        assert_eq!(reply.batch().entries.len(), 1);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_between_the_read_and_the_wait_is_not_missed() {
    for wake_up in [WakeUp::AtOnce, WakeUp::Poll(SECOND / 10)] {
        let server = Server::new().await;
        server.store.wake_up(wake_up);
        for number in [1, 3] {
            server.revoke(number).await;
            let (after, start) = (server.head().await, Instant::now());
            server.store.revoke_late(revocation(number + 1));
            assert_new(&follow(server.endpoints.clone(), after).await, number + 1);
            assert!(start.elapsed() < SECOND, "{wake_up:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_by_the_same_path() {
    let server = Server::new().await;
    server.revoke(1).await;
    let follower = server.follower().await;
    let issuer = server.issuer().clone();
    tokio::spawn(async move { issuer.run_maintenance().await });
    let entries = follower.await.unwrap().batch().entries;
    assert_eq!((entries.len(), &entries[0].event), (1, &LogEvent::Heartbeat {}));
    assert_eq!(entries[0].at, START);
}

#[tokio::test(start_paused = true)]
async fn without_news_the_answer_comes_when_it_was_asked_for() {
    let server = Server::new().await.mounted(|endpoints| endpoints.max_wait(20 * SECOND));
    server.revoke(1).await;
    let after = server.head().await;
    for (wait, waited) in [("0", 0), ("1", 1), ("7", 7), ("30", 20), ("99999999999999999999", 20)] {
        let start = Instant::now();
        let reply = server.send(ask(&format!("wait={wait}&after={after}"))).await;
        let batch = reply.batch();
        assert_eq!((batch.entries.len(), batch.more, batch.next), (0, false, after.clone()));
        assert_eq!(start.elapsed().as_secs(), waited, "{wait}");
    }
    // With news, it does not wait at all.
    let start = Instant::now();
    assert_new(&server.send(ask("wait=20")).await, 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_tell_is_asked() {
    for (wake_up, latest) in [
        (WakeUp::Poll(SECOND / 20), SECOND / 10),
        (WakeUp::Ends, 2 * SECOND),
        // Nothing that is acknowledged is ever denied, whoever forgot to say that it is there.
        (WakeUp::Never, 31 * SECOND),
    ] {
        let server = Server::new().await;
        server.store.wake_up(wake_up);
        for number in [1, 2] {
            let follower = server.follower().await;
            let start = Instant::now();
            server.revoke(number).await;
            assert_new(&follower.await.unwrap(), number);
            assert!(start.elapsed() < latest, "{wake_up:?}: {:?}", start.elapsed());
        }
        server.revoke(3).await;
        let query = format!("wait=0&after={}", server.head().await);
        assert!(server.send(ask(&query)).await.batch().entries.is_empty());
        server.revoke(4).await;
        assert_new(&server.send(ask(&query)).await, 4);
    }
}

/// The end of the log, as a read before the growth found it, hides nothing from those who come after.
#[tokio::test(start_paused = true)]
async fn a_read_that_the_log_has_overtaken_is_not_kept() {
    let follower = Client::confidential("follower", SECRET).role(Role::RevocationLog);
    let fixture = Fixture::with(|issuer| issuer.static_clients([follower]).unwrap()).await;
    let (store, endpoints) = (fixture.store.clone(), Endpoints::new(fixture.issuer.clone()));
    let read = |query: String| {
        let endpoints = endpoints.clone();
        tokio::spawn(async move { Reply::from(endpoints.handle(ask(&query)).await) })
    };
    store.revoke(revocation(1)).await.unwrap();
    // From now on, growth is noticed.
    assert_new(&read("wait=30".into()).await.unwrap(), 1);
    settle().await;
    let first = store.hold("revocations", When::After);
    let overtaken = read("limit=7".into());
    first.holds(1).await;
    let second = store.hold("revocations", When::After);
    store.revoke(revocation(2)).await.unwrap();
    settle().await;
    let newer = read("limit=7".into());
    second.holds(1).await;
    first.open();
    let overtaken = overtaken.await.unwrap();
    assert_new(&overtaken, 1);
    second.open();
    assert_new(&newer.await.unwrap(), 2);
    let start = Instant::now();
    let next = overtaken.batch().next;
    assert_new(&read(format!("wait=30&limit=7&after={next}")).await.unwrap(), 2);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_that_gets_no_entry_but_a_new_place_is_told_at_once() {
    let server = Server::new().await;
    server.revoke(1).await;
    let head = server.head().await;
    server.store.skip_entries();
    let start = Instant::now();
    let batch = server.send(ask("wait=30")).await.batch();
    assert_eq!((batch.entries.len(), batch.more, batch.next), (0, false, head));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_followers_cost_one_read_for_each_growth() {
    let server = Server::new().await;
    server.revoke(1).await;
    // The first wake-up is about what was there before anybody listened.
    server.follower().await.abort();
    let mut after = server.head().await;
    let mut followers = JoinSet::new();
    for number in 2..6 {
        let before = server.store.reads();
        for _ in 0..1_000 {
            followers.spawn(follow(server.endpoints.clone(), after.clone()));
        }
        settle().await;
        assert!(followers.try_join_next().is_none(), "all of them wait");
        server.revoke(number).await;
        let mut bodies = Vec::new();
        while let Some(reply) = followers.join_next().await {
            bodies.push(reply.unwrap().body);
        }
        assert_eq!(bodies.len(), 1_000);
        let first = &bodies[0];
        // The very same bytes: they were encoded once.
        assert!(bodies.iter().all(|body| body.as_ptr() == first.as_ptr()));
        assert_eq!(server.store.reads() - before, 1);
        after = server.head().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_time_out_cost_one_read() {
    let server = Server::new().await;
    server.revoke(1).await;
    let after = server.head().await;
    server.follower().await.abort();
    let before = server.store.reads();
    let mut followers = JoinSet::new();
    for _ in 0..1_000 {
        followers.spawn(follow(server.endpoints.clone(), after.clone()));
    }
    while let Some(reply) = followers.join_next().await {
        assert!(reply.unwrap().batch().entries.is_empty());
    }
    assert_eq!(server.store.reads() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_never_polled_again_holds_up_nobody() {
    let server = Server::new().await;
    server.revoke(1).await;
    server.follower().await.abort();
    let before = server.store.reads();
    server.store.hold_up();
    // It is the one that begins the read which all wait for, and then it stands still.
    let mut stuck = std::pin::pin!(follow(server.endpoints.clone(), Cursor::start()));
    let pending =
        std::future::poll_fn(|cx| std::task::Poll::Ready(stuck.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    let other = tokio::spawn(follow(server.endpoints.clone(), Cursor::start()));
    settle().await;
    assert!(!other.is_finished());
    server.store.let_go();
    let reply = timeout(SECOND, other).await.expect("it is held up").unwrap();
    assert_new(&reply, 1);
    assert_eq!(server.store.reads() - before, 1);
    // Nor does one that waits at the end.
    let after = server.head().await;
    let mut stuck = std::pin::pin!(follow(server.endpoints.clone(), after));
    let pending =
        std::future::poll_fn(|cx| std::task::Poll::Ready(stuck.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    let follower = server.follower().await;
    server.revoke(2).await;
    assert_new(&follower.await.unwrap(), 2);
    assert_new(&stuck.await, 2);
}

#[tokio::test]
async fn one_that_reads_nothing_holds_up_nobody() {
    let wire = Wire::new().await;
    for number in 0..=255 {
        for _ in 0..4 {
            wire.server.revoke(number).await;
        }
    }
    // It asks for more than fits between here and there, and takes nothing of it.
    let mut stuck = TcpStream::connect(wire.address).await.unwrap();
    let head = request_head("wait=30");
    for _ in 0..200 {
        stuck.write_all(head.as_bytes()).await.unwrap();
    }
    for number in [1, 2] {
        let mut followers = JoinSet::new();
        let after = wire.server.head().await;
        for _ in 0..10 {
            followers.spawn(follow(wire.server.endpoints.clone(), after.clone()));
        }
        let over_http = wire.send(ask(&format!("wait=30&after={after}")));
        let (reply, ()) = tokio::join!(over_http, async {
            settle().await;
            wire.server.revoke(number).await;
        });
        assert_new(&reply, number);
        while let Some(reply) = followers.join_next().await {
            assert_new(&reply.unwrap(), number);
        }
        wire.send(get("/.well-known/jwks.json")).await.ok();
    }
    drop(stuck);
}

fn request_head(query: &str) -> String {
    let request = ask(query);
    let credentials = request.headers()["authorization"].to_str().unwrap();
    format!("GET {} HTTP/1.1\r\nHost: as\r\nAuthorization: {credentials}\r\n\r\n", request.uri())
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_outage_and_never_nothing_new() {
    let server = Server::new().await;
    server.revoke(1).await;
    let after = server.head().await;
    let follower = server.follower().await;
    server.store.tokens_down(true);
    for query in ["", "wait=30", &format!("wait=0&after={after}")] {
        let start = Instant::now();
        let reply = server.send(ask(query)).await;
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(reply.text(), r#"{"error":"temporarily_unavailable"}"#);
        reply.refused(503, "temporarily_unavailable");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    // Who waits learns it in the end: that there is nothing is not known.
    follower.await.unwrap().refused(503, "temporarily_unavailable");
    server.store.tokens_down(false);
    assert_new(&server.send(ask("wait=30")).await, 1);
}

#[tokio::test]
async fn a_failed_read_fails_once_for_all_and_is_not_kept() {
    let server = Server::new().await;
    server.store.hold_up();
    server.store.tokens_down(true);
    let mut followers = JoinSet::new();
    for _ in 0..100 {
        followers.spawn(follow(server.endpoints.clone(), Cursor::start()));
    }
    settle().await;
    server.store.let_go();
    while let Some(reply) = followers.join_next().await {
        reply.unwrap().refused(503, "temporarily_unavailable");
    }
    assert_eq!(server.store.reads(), 1);
    server.store.tokens_down(false);
    server.revoke(1).await;
    assert_new(&follow(server.endpoints.clone(), Cursor::start()).await, 1);
}

#[tokio::test]
async fn so_many_may_wait_and_no_more() {
    let server = Server::new().await.mounted(|endpoints| endpoints.max_followers(2));
    server.revoke(1).await;
    let after = server.head().await;
    let (first, second) = (server.follower().await, server.follower().await);
    let reply = follow(server.endpoints.clone(), after.clone()).await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.refused(503, "temporarily_unavailable");
    // Whoever has something to read does not wait.
    assert_new(&server.send(ask("wait=30")).await, 1);
    server.send(ask(&format!("wait=0&after={after}"))).await.page();

    // One that went away has left its place.
    first.abort();
    settle().await;
    let third = server.follower().await;
    server.revoke(2).await;
    assert_new(&second.await.unwrap(), 2);
    assert_new(&third.await.unwrap(), 2);
}

#[tokio::test]
async fn one_that_hangs_up_leaves_its_place() {
    let wire = Wire::at("", |endpoints| endpoints.max_followers(1)).await;
    wire.server.revoke(1).await;
    let end = wire.server.head().await;
    let before = wire.server.store.reads();
    let mut gone = TcpStream::connect(wire.address).await.unwrap();
    gone.write_all(request_head(&format!("wait=30&after={end}")).as_bytes()).await.unwrap();
    for _ in 0..10_000 {
        settle().await;
        if wire.server.store.reads() > before {
            break;
        }
    }
    settle().await;
    follow(wire.server.endpoints.clone(), end.clone())
        .await
        .refused(503, "temporarily_unavailable");
    drop(gone);
    for _ in 0..10_000 {
        let next = tokio::spawn(follow(wire.server.endpoints.clone(), end.clone()));
        settle().await;
        if !next.is_finished() {
            return;
        }
    }
    panic!("its place is still taken");
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let server = Server::new().await;
    server.revoke(1).await;
    let mut followers = JoinSet::new();
    for _ in 0..100 {
        followers.spawn(follow(server.endpoints.clone(), server.head().await));
    }
    settle().await;
    assert!(followers.try_join_next().is_none());
    followers.shutdown().await;
    let store = Arc::downgrade(&server.store);
    drop(server);
    settle().await;
    assert_eq!(store.strong_count(), 0, "a task still reads the log of a server that is gone");
}

#[test]
fn a_runtime_that_ends_takes_no_follower_with_it() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap()
    };
    let server = {
        let first = runtime();
        let server = first.block_on(Server::new());
        first.block_on(async {
            server.revoke(1).await;
            server.follower().await.abort();
        });
        server
    };
    runtime().block_on(async {
        let (follower, start) = (server.follower().await, Instant::now());
        server.revoke(2).await;
        assert_new(&follower.await.unwrap(), 2);
        assert_eq!(start.elapsed(), Duration::ZERO);
    });
}
