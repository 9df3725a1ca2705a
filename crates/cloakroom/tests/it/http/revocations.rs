//! The revocation log over HTTP: who may read it, and what a page holds.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom::core::revocation::{
    Cursor, CursorPlace, EntryId, LogEntry, LogEvent, Revocation, RevocationBatch, RevocationPage,
    Target,
};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::{GrantId, UserId};
use cloakroom::http::{ClientAuthenticator, Form};
use cloakroom::{Client, ClientDirectory, Subject, TokenError};
use http::{Method, Request};

use super::request::{Reply, With, get, post};
use super::server::{SECRET, START, Server, Wire, client_id};

const MAX_BYTES: usize = 192 * 1024;

pub(super) fn ask(query: &str) -> Request<Bytes> {
    get(&format!("/revocations?{query}")).basic("follower", SECRET)
}

/// What a page holds.
pub(super) struct Batch {
    pub(super) entries: Vec<LogEntry>,
    pub(super) next: Cursor,
    pub(super) more: bool,
}

impl Reply {
    #[track_caller]
    pub(super) fn page(&self) -> RevocationPage {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(self.body.len() <= MAX_BYTES, "{} bytes", self.body.len());
        RevocationPage::from_json(&self.body).unwrap()
    }

    #[track_caller]
    pub(super) fn batch(&self) -> Batch {
        match self.page().batch {
            RevocationBatch::Entries { entries, next, more, .. } => Batch { entries, next, more },
            RevocationBatch::Gap => panic!("a gap"),
        }
    }
}

pub(super) fn revocation(number: u8) -> Revocation {
    let target = Target::Grant(GrantId::from_bytes([number; 16]));
    Revocation::new(target, START, START + std::time::Duration::from_secs(3600))
}

impl Server {
    /// Revokes a grant that nobody has.
    pub(super) async fn revoke(&self, number: u8) {
        self.store.revoke(revocation(number)).await.unwrap();
    }

    /// The cursor after the newest entry.
    pub(super) async fn head(&self) -> Cursor {
        let mut after = Cursor::start();
        loop {
            match self.store.revocations(after, 1_000).await.unwrap() {
                RevocationBatch::Entries { next, more: false, .. } => return next,
                RevocationBatch::Entries { next, .. } => after = next,
                RevocationBatch::Gap => panic!("a gap"),
            }
        }
    }
}

#[tokio::test]
async fn only_whoever_has_the_role_may_read_it() {
    let wire = Wire::new().await;
    let path = "/revocations";
    wire.send(ask("")).await.page();
    for (what, request) in [
        ("nobody", get(path)),
        ("a wrong secret", get(path).basic("follower", "wrong-secret-0123456789")),
        ("an unknown client", get(path).basic("nobody", SECRET)),
        ("a public client", get(path).basic("spa-app", "")),
        ("a public client by name", get("/revocations?client_id=spa-app")),
        ("a bearer", get(path).with("authorization", "Bearer x")),
        (
            "a secret in the URL",
            get(&format!("/revocations?client_id=follower&client_secret={SECRET}")),
        ),
        (
            "a secret in the body",
            post(path, &[("client_id", "follower"), ("client_secret", SECRET)]),
        ),
    ] {
        let (mut parts, body) = request.into_parts();
        parts.method = Method::GET;
        let reply = wire.send(Request::from_parts(parts, body)).await;
        assert_eq!(reply.status, 401, "{what}");
        reply.refused(401, "invalid_client");
    }
    for client in ["web-app", "batch-job", "orders-api", "gateway", "edge"] {
        let reply = wire.send(get(path).basic(client, SECRET)).await;
        assert_eq!(reply.status, 403, "{client}");
        reply.refused(403, "unauthorized_client");
    }
    let twice = get(path).basic("follower", SECRET).basic("follower", SECRET);
    wire.send(twice).await.refused(400, "invalid_request");
}

/// Lets everyone in as a public client.
#[derive(Debug)]
struct Careless;

#[async_trait]
impl ClientAuthenticator for Careless {
    async fn authenticate(
        &self,
        _: &Request<Bytes>,
        _: &Form,
        _: &dyn ClientDirectory,
    ) -> Result<Arc<Client>, TokenError> {
        Ok(Arc::new(Client::public("spa-app").build().unwrap()))
    }

    fn methods(&self) -> Vec<&'static str> {
        vec!["none"]
    }
}

#[tokio::test]
async fn a_public_client_never_does() {
    let server = Server::new().await.mounted(|e| e.authenticator(Arc::new(Careless)));
    for path in ["/revocations", "/handle-keys"] {
        server.send(get(path)).await.refused(401, "invalid_client");
    }
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let server = Server::new().await;
    let cursor = Cursor::after(&CursorPlace {
        incarnation: [1; 16],
        position: 1,
        entry: EntryId::from_bytes([1; 16]),
        revocation: None,
    })
    .to_string();
    let twice = format!("after={cursor}&after={cursor}");
    for bad in [
        "after=j.nk",
        "after=%ff",
        &cursor[1..],
        &twice,
        "wait=-1",
        "wait=%2B1",
        "wait=1.5",
        "wait=1s",
        "wait=1&wait=1",
        "wait=0&wait=",
        "limit=0",
        "limit=-1",
        "limit=ten",
        "limit=1&limit=2",
    ] {
        let bad = if bad.contains('=') { bad.to_owned() } else { format!("after={bad}") };
        let reply = server.send(ask(&bad)).await;
        assert_eq!(reply.status, 400, "{bad}");
        reply.refused(400, "invalid_request");
    }
    server.revoke(1).await;
    for good in ["", "after=", "wait=", "limit=99999999999999999999", "wait=00", "later=x"] {
        assert_eq!(server.send(ask(good)).await.batch().entries.len(), 1, "{good}");
    }
}

#[tokio::test]
async fn the_log_is_read_page_by_page() {
    let server = Server::new().await;
    let empty = server.send(ask("")).await;
    assert!(empty.batch().entries.is_empty() && !empty.batch().more);
    for number in 1..=5 {
        server.revoke(number).await;
    }
    let whole = server.send(ask("")).await.batch();
    assert_eq!((whole.entries.len(), whole.more), (5, false));

    let (mut after, mut found) = (Cursor::start(), Vec::new());
    for (entries, more) in [(2, true), (2, true), (1, false), (0, false)] {
        let batch = server.send(ask(&format!("limit=2&after={after}"))).await.batch();
        assert_eq!((batch.entries.len(), batch.more), (entries, more));
        found.extend(batch.entries);
        after = batch.next;
    }
    assert_eq!(found, whole.entries);
    assert_eq!(after, whole.next);
}

#[tokio::test]
async fn a_page_says_what_the_readers_reckon_with() {
    let heartbeat = std::time::Duration::from_millis(1500);
    let server = Server::with(|issuer| {
        issuer.heartbeat_interval(heartbeat).housekeeping_interval(heartbeat * 2)
    })
    .await;
    let page = server.send(ask("")).await.page();
    assert_eq!((page.heartbeat, page.clock_skew.as_secs()), (heartbeat, 5));
}

#[tokio::test]
async fn a_cursor_that_is_gone_is_a_gap() {
    let server = Server::new().await;
    server.revoke(1).await;
    let elsewhere = Server::new().await;
    elsewhere.revoke(1).await;
    let foreign = elsewhere.head().await;
    // At once, however long it would have waited.
    let page = server.send(ask(&format!("wait=30&after={foreign}"))).await.page();
    assert_eq!(page.batch, RevocationBatch::Gap);
}

#[tokio::test]
async fn the_client_of_what_it_revokes_is_told() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &session.access)]).await.ok();
    let entries = server.send(ask("")).await.batch().entries;
    let LogEvent::Revoked { client, .. } = &entries[0].event else { panic!("{entries:?}") };
    assert_eq!(*client, Some(client_id("web-app")));
    assert!(!format!("{entries:?}").contains(&session.access[10..40]));
}

#[tokio::test]
async fn pages_are_bounded_whatever_their_entries_are() {
    let server = Server::new().await;
    // Each character is two on the wire.
    let quotes = "\"".repeat(255);
    let user = Subject::User(UserId::new(&quotes).unwrap());
    let large = Target::SubjectAtClient(user, client_id(&quotes));
    let mut log = Vec::new();
    // Small ones in a row, large ones in a row, and both in turn; again and again.
    for number in (0..250_u8).cycle().take(1_000) {
        let small = revocation(number);
        let large = Revocation { target: large.clone(), ..small.clone() };
        for revocation in match number {
            0..100 => vec![small],
            100..200 => vec![large],
            _ => vec![large, small],
        } {
            log.push(revocation.target.clone());
            server.store.revoke(revocation).await.unwrap();
        }
    }
    let (mut after, mut found, mut bytes) = (Cursor::start(), Vec::new(), Vec::new());
    loop {
        let reply = server.send(ask(&format!("after={after}"))).await;
        let batch = reply.batch();
        bytes.push(reply.body.len());
        found.extend(batch.entries.into_iter().map(|entry| match entry.event {
            LogEvent::Revoked { target, .. } => target,
            other => panic!("{other:?}"),
        }));
        after = batch.next;
        if !batch.more {
            break;
        }
    }
    assert_eq!(found, log);
    // They hold as much as fits.
    let (_, full) = bytes.split_last().unwrap();
    assert!(full.iter().all(|bytes| *bytes > MAX_BYTES - 4 * 1024), "{bytes:?}");
    assert!(full.len() > 1, "{bytes:?}");
}

/// As many as a page may have.
const ENTRIES: usize = 1_000;

/// A revocation of a user whose name has this many letters.
fn of_user(letters: usize) -> Revocation {
    let user = Subject::User(UserId::new("u".repeat(letters)).unwrap());
    let target = Target::SubjectAtClient(user, client_id("a"));
    Revocation { target, ..revocation(1) }
}

#[tokio::test]
async fn a_page_that_is_too_large_is_read_a_second_time_and_no_third_time() {
    // As short as 1,000 can be that do not fit: then each byte between two of them counts.
    let server = Server::new().await;
    server.store.revoke(of_user(1)).await.unwrap();
    let entry = &server.send(ask("")).await.batch().entries[0];
    let shortest = serde_json::to_string(entry).unwrap().len();
    let missing = MAX_BYTES / ENTRIES - shortest;

    let server = Server::new().await;
    for _ in 0..ENTRIES {
        server.store.revoke(of_user(1 + missing)).await.unwrap();
    }
    let batch = server.send(ask("")).await.batch();
    assert!(batch.more && batch.entries.len() < ENTRIES);
    assert_eq!(server.store.reads(), 2);
}

#[tokio::test]
async fn a_page_that_just_fits_is_read_once() {
    let page = async |missing: usize| {
        let server = Server::new().await;
        for number in 0..ENTRIES {
            let letters = 1 + missing / ENTRIES + usize::from(number < missing % ENTRIES);
            server.store.revoke(of_user(letters)).await.unwrap();
        }
        let reply = server.send(ask("")).await;
        assert_eq!(reply.batch().entries.len(), ENTRIES);
        (reply.body.len(), server.store.reads())
    };
    let (shortest, _) = page(0).await;
    assert_eq!(page(MAX_BYTES - shortest).await, (MAX_BYTES, 1));
}
