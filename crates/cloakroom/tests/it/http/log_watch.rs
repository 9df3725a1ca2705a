//! A server that hears nothing of its own revocation log stops vouching for tokens.

use std::time::Duration;

use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::{Clock as _, UnixTime};
use cloakroom::{ApprovedRequest, Grant, Pkce, TokenError};
use tokio::task::yield_now;

use super::request::{Reply, With, post};
use super::server::{CHALLENGE, REDIRECT, SECRET, Server, Session, VERIFIER};

const SECOND: Duration = Duration::from_secs(1);

struct Watchful(Server);

impl Watchful {
    /// A server that answers for ten seconds after the last heartbeat it heard: clocks may differ by
    /// five seconds, which count as well.
    async fn new() -> Self {
        Self(Server::with(|issuer| issuer.max_log_staleness(15 * SECOND)).await)
    }

    /// One that was watchful once: its tokens are from then, and it has not heard of the log since.
    async fn long_ago() -> (Self, Session) {
        let server = Self::new().await;
        server.heartbeat().await;
        server.run_maintenance().await;
        let session = server.0.session("web-app").await;
        server.0.clock.advance(11 * SECOND);
        (server, session)
    }

    /// Lets a second pass, on the server's clock and for its timers.
    async fn tick(&self) {
        self.0.clock.advance(SECOND);
        for _ in 0..10 {
            tokio::time::advance(SECOND / 10).await;
            for _ in 0..20 {
                yield_now().await;
            }
        }
    }

    /// Writes a heartbeat.
    async fn heartbeat(&self) -> UnixTime {
        self.heartbeat_ahead(0).await
    }

    /// Writes a heartbeat by a clock that is ahead by so many seconds.
    async fn heartbeat_ahead(&self, ahead: u32) -> UnixTime {
        let now = self.0.clock.now() + ahead * SECOND;
        self.0.store.heartbeat(now, now + 3600 * SECOND).await.unwrap();
        now
    }

    /// Runs maintenance for a moment.
    async fn run_maintenance(&self) {
        let issuer = self.0.issuer().clone();
        let maintenance = tokio::spawn(async move { issuer.run_maintenance().await });
        for _ in 0..20 {
            yield_now().await;
        }
        maintenance.abort();
    }

    async fn replies(&self, token: &str) -> Vec<Reply> {
        let introspect = |accept| {
            let request = post("/introspect", &[("token", token)]);
            self.0.send(request.with("accept", accept).basic("gateway", SECRET))
        };
        vec![introspect("application/json").await, introspect("application/jwt").await]
    }

    async fn assert_answers(&self, token: &str, answers: bool) {
        for reply in self.replies(token).await {
            if answers {
                reply.ok();
            } else {
                reply.refused(503, "temporarily_unavailable");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_answers_while_heartbeats_come_and_not_longer() {
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    server.assert_answers(&access, false).await;

    let issuer = server.0.issuer().clone();
    let maintenance = tokio::spawn(async move { issuer.run_maintenance().await });
    for _ in 0..30 {
        server.tick().await;
        server.assert_answers(&access, true).await;
    }
    // From now on it hears only itself: it writes, and its part of the store shows nothing new.
    server.0.store.freeze(true).await;
    for _ in 0..10 {
        server.assert_answers(&access, true).await;
        server.tick().await;
    }
    server.tick().await;
    server.assert_answers(&access, false).await;
    server.0.store.freeze(false).await;
    server.tick().await;
    server.assert_answers(&access, true).await;

    // Nor does it help that nobody writes any more.
    maintenance.abort();
    for _ in 0..11 {
        server.tick().await;
    }
    server.assert_answers(&access, false).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_heartbeat_that_comes_late_proves_nothing() {
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    server.heartbeat().await;
    server.0.store.mute();
    server.0.clock.advance(11 * SECOND);
    server.run_maintenance().await;
    server.assert_answers(&access, false).await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_is_ahead_by_more_than_clocks_may_differ() {
    for (ahead, counts) in [(5, true), (6, false), (3600, false)] {
        let (server, Session { access, .. }) = Watchful::long_ago().await;
        server.heartbeat_ahead(ahead).await;
        server.0.store.mute();
        server.run_maintenance().await;
        server.assert_answers(&access, counts).await;
        // Nor does one count for longer because of its time.
        server.0.clock.advance(10 * SECOND);
        server.assert_answers(&access, counts).await;
        server.0.clock.advance(SECOND);
        server.assert_answers(&access, false).await;
    }
    // It does not hide the one before.
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    server.heartbeat().await;
    server.heartbeat_ahead(6).await;
    server.0.store.mute();
    server.run_maintenance().await;
    server.assert_answers(&access, true).await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_comes_twice() {
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    let start = server.heartbeat().await;
    server.0.store.mute();
    server.run_maintenance().await;
    server.assert_answers(&access, true).await;
    server.0.clock.advance(11 * SECOND);
    server.assert_answers(&access, false).await;
    // An operator sets the clock back, and the log is read from its beginning.
    server.0.clock.set(start);
    server.run_maintenance().await;
    server.assert_answers(&access, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_silence_until_the_log_was_read_again() {
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    let issuer = server.0.issuer().clone();
    tokio::spawn(async move { issuer.run_maintenance().await });
    server.tick().await;
    server.assert_answers(&access, true).await;
    server.0.store.lose_place(true);
    server.tick().await;
    server.assert_answers(&access, false).await;
    server.0.store.lose_place(false);
    server.tick().await;
    server.assert_answers(&access, true).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_log_is_silence_and_nothing_worse() {
    let (server, Session { access, .. }) = Watchful::long_ago().await;
    let issuer = server.0.issuer().clone();
    tokio::spawn(async move { issuer.run_maintenance().await });
    server.tick().await;
    server.0.store.tokens_down(true);
    for _ in 0..11 {
        server.tick().await;
    }
    server.0.store.tokens_down(false);
    server.assert_answers(&access, false).await;
    server.tick().await;
    server.assert_answers(&access, true).await;
}

#[tokio::test(start_paused = true)]
async fn it_issues_nothing_and_still_revokes() {
    let (server, session) = Watchful::long_ago().await;
    let issuer = server.0.issuer();
    let silent = |error| assert!(matches!(error, TokenError::Unavailable(_)), "{error:?}");
    let grant = || Grant::user("web-app", "alice").unwrap();
    silent(issuer.issue(grant()).await.unwrap_err());
    let request = || ApprovedRequest::new(grant(), REDIRECT).pkce(Pkce::s256(CHALLENGE).unwrap());
    silent(issuer.authorize(request()).await.unwrap_err());
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*session.refresh)];
    server.0.ask("web-app", "/token", &refresh).await.refused(503, "temporarily_unavailable");

    server.heartbeat().await;
    server.run_maintenance().await;
    let code = issuer.authorize(request()).await.unwrap();
    server.0.clock.advance(11 * SECOND);
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    server.0.ask("web-app", "/token", &redeem).await.refused(503, "temporarily_unavailable");
    server.0.ask("web-app", "/revoke", &[("token", &session.access)]).await.ok();

    // Nothing was spent.
    server.heartbeat().await;
    server.run_maintenance().await;
    server.0.ask("web-app", "/token", &redeem).await.ok();
    server.0.ask("web-app", "/token", &refresh).await.ok();
    let introspection = server.0.introspect("gateway", &session.access).await.ok();
    assert_eq!(&*introspection.body, br#"{"active":false}"#);
}

#[tokio::test]
async fn without_the_setting_nothing_is_asked_of_the_log() {
    let server = Server::new().await;
    let access = server.session("web-app").await.access;
    server.introspect("gateway", &access).await.ok();
    assert_eq!(server.store.reads(), 0);
}
