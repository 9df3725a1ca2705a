//! A replica that follows the log over HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{
    ClientCredentials, Cursor, HttpLog, HttpTimeouts, MAX_BODY_BYTES, ReqwestClient,
    RevocationBatch, RevocationLog, RevocationReplica, SetupError, StoreLog, UnavailableError,
};
use serde_json::json;

use crate::replica_log::{HOUR, Told, beat, entries, grant, revoke, said, store};
use crate::support::{Peer, START, json, manual_clock, respond, serve};

const LONG: Duration = Duration::from_secs(60);

fn credentials() -> ClientCredentials {
    ClientCredentials::new("orders-api", "s3cret")
}

fn log(endpoint: &str) -> HttpLog {
    HttpLog::new(endpoint, credentials(), ReqwestClient::new().unwrap()).unwrap()
}

/// What a server that hands out a log was asked: the path with its query, and the credentials.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that hands out the log of a store, which may be replaced; without one it is broken.
struct LogServer {
    url: String,
    store: Arc<Mutex<Option<Arc<MemoryStore>>>>,
    asked: Asked,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for LogServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl LogServer {
    async fn start(store: Arc<MemoryStore>) -> Self {
        let (store, asked) = (Arc::new(Mutex::new(Some(store))), Asked::default());
        let app = {
            let (store, asked) = (Arc::clone(&store), Arc::clone(&asked));
            Router::new().fallback(move |request: Request| {
                let store = store.lock().unwrap().clone();
                let authorization = request.headers().get("authorization");
                let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
                asked.lock().unwrap().push((request.uri().to_string(), authorization));
                async move {
                    let Some(store) = store else { return respond(503, "text/plain", "broken") };
                    answer(&store, request.uri().query().unwrap_or_default()).await
                }
            })
        };
        let (url, server) = serve(app).await;
        Self { url: format!("{url}/revocations"), store, asked, server }
    }

    fn last(&self) -> (String, Option<String>) {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

async fn answer(store: &Arc<MemoryStore>, query: &str) -> Response {
    let (mut after, mut wait) = (Cursor::start(), Duration::ZERO);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => after = value.parse().unwrap(),
            "wait" => wait = Duration::from_secs(value.parse().unwrap()),
            other => assert_eq!(other, "tenant"),
        }
    }
    let log = StoreLog::new(store.clone()).heartbeat(Duration::from_secs(2));
    let page = log.read(after, wait).await.unwrap();
    respond(200, "application/json", &String::from_utf8(page.to_json()).unwrap())
}

#[tokio::test]
async fn the_log_is_read_page_by_page() {
    let store = store();
    let server = LogServer::start(store.clone()).await;
    let log = log(&server.url);
    revoke(&store, grant(1)).await;
    beat(&store, START).await.unwrap();
    let page = log.read(Cursor::start(), LONG).await.unwrap();
    assert_eq!(page.heartbeat, Duration::from_secs(2));
    let (found, next) = entries(page);
    assert_eq!(said(&found), [Ok(grant(1)), Err(START)]);
    let basic = "Basic b3JkZXJzLWFwaTpzM2NyZXQ=".to_owned();
    assert_eq!(server.last(), ("/revocations?wait=60".to_owned(), Some(basic)));

    let (nothing, same) =
        entries(log.read(next.clone(), Duration::from_millis(900)).await.unwrap());
    assert_eq!((nothing.len(), same), (0, next.clone()));
    assert_eq!(server.last().0, format!("/revocations?after={next}&wait=0"));
}

#[tokio::test]
async fn an_endpoint_keeps_its_own_query() {
    let store = store();
    let server = LogServer::start(store).await;
    let log = log(&format!("{}?tenant=a%20b", server.url));
    log.read(Cursor::start(), Duration::ZERO).await.unwrap();
    assert_eq!(server.last().0, "/revocations?tenant=a%20b&wait=0");
}

#[tokio::test]
async fn a_replica_follows_a_server_through_outages_and_restarts() {
    let (store, clock) = (store(), manual_clock());
    let server = LogServer::start(store.clone()).await;
    revoke(&store, grant(1)).await;
    beat(&store, START).await.unwrap();
    let (log, mut questions) = Told::new(log(&server.url));
    let builder = RevocationReplica::builder(log).clock(clock.clone());
    let pause = Duration::from_millis(1);
    let replica = builder.first_back_off(pause).max_back_off(pause).follow().await.unwrap();
    let fresh = Some(Duration::from_secs(5));
    assert_eq!((replica.rules(), replica.staleness()), (1, fresh), "clocks may differ by 5 s");
    assert_eq!(replica.steady_staleness(), Duration::from_secs(2 * 2 + 5));

    // It is told while it waits.
    revoke(&store, grant(2)).await;
    questions.until("the revocation", || replica.rules() == 2).await;

    // The server breaks, and comes back.
    *server.store.lock().unwrap() = None;
    beat(&store, START).await.unwrap();
    for _ in 0..10 {
        questions.next().await.unwrap();
    }
    clock.advance(LONG);
    assert_eq!(replica.rules(), 2);
    assert!(replica.staleness() >= Some(LONG));
    *server.store.lock().unwrap() = Some(store.clone());
    revoke(&store, grant(3)).await;
    questions.until("what happened meanwhile", || replica.rules() == 3).await;

    // It comes back with another log: the rules of the one before stay.
    let other = crate::replica_log::store();
    revoke(&other, grant(4)).await;
    *server.store.lock().unwrap() = Some(other.clone());
    // Ends the long poll at the old one, if that is where it is.
    revoke(&other, grant(5)).await;
    revoke(&store, grant(5)).await;
    questions.until("the gap", || replica.staleness().is_none()).await;
    questions.until("the other log", || replica.rules() == 5).await;
    beat(&other, START + LONG).await.unwrap();
    questions.until("its heartbeat", || replica.staleness() == fresh).await;

    // And all of them end.
    clock.advance(HOUR);
    beat(&other, START + LONG + HOUR).await.unwrap();
    questions.until("the ends", || replica.rules() == 0).await;
}

#[tokio::test]
async fn with_the_replica_the_questions_end() {
    let store = store();
    let server = LogServer::start(store.clone()).await;
    let (log, mut questions) = Told::new(log(&server.url));
    let replica = RevocationReplica::follow(log).await.unwrap();
    let clone = replica.clone();
    drop(replica);
    revoke(&store, grant(1)).await;
    questions.until("the revocation", || clone.rules() == 1).await;
    drop(clone);
    let ended = async { while questions.next().await.is_some() {} };
    tokio::time::timeout(LONG, ended).await.expect("the following ends");
}

#[tokio::test]
async fn whatever_is_no_page_is_an_outage() {
    let page = r#"{"gap":true,"heartbeat":1000,"clock_skew":0}"#;
    let peer = Peer::start(move |_| respond(200, "application/json", page)).await;
    let log = log(&peer.url);
    let read = || log.read(Cursor::start(), Duration::ZERO);
    assert_eq!(read().await.unwrap().batch, RevocationBatch::Gap);

    for status in [401, 403] {
        peer.answer_with(move |_| respond(status, "application/json", page));
        let error = read().await.unwrap_err();
        assert!(
            matches!(error, UnavailableError::Credentials(found) if found == status),
            "{error}"
        );
    }
    for status in [204, 302, 304, 400, 404, 429, 500, 503] {
        peer.answer_with(move |_| respond(status, "application/json", page));
        let error = read().await.unwrap_err();
        assert!(matches!(error, UnavailableError::Status(found) if found == status), "{error}");
    }
    let spaces = " ".repeat(MAX_BODY_BYTES);
    for (content_type, body) in [
        ("text/html", page.to_owned()),
        ("", page.to_owned()),
        ("application/json", String::new()),
        ("application/json", "{}".to_owned()),
        ("application/json", page.replace("true", "false")),
        ("application/json", r#"{"active":false}"#.to_owned()),
        ("application/json", format!("{page}{spaces}")),
    ] {
        peer.answer_with({
            let body = body.clone();
            move |_| respond(200, content_type, &body)
        });
        let error = read().await.unwrap_err();
        let is_outage =
            matches!(error, UnavailableError::Unreadable(_) | UnavailableError::NoAnswer(_));
        assert!(is_outage, "{content_type}: {error}");
    }
    drop(peer);
    assert!(matches!(read().await, Err(UnavailableError::NoAnswer(_))));
}

#[tokio::test]
async fn a_stuck_server_is_given_up() {
    let peer = Peer::start(|_| respond(500, "", "")).await;
    peer.close();
    let short = Duration::from_millis(20);
    let client =
        ReqwestClient::with_timeouts(HttpTimeouts::default().connect(short).total(short)).unwrap();
    let log = HttpLog::new(&peer.url, credentials(), client).unwrap();
    let error = RevocationReplica::follow(log).await.unwrap_err();
    assert!(matches!(error, UnavailableError::NoAnswer(_)), "{error}");
}

#[tokio::test]
async fn an_issuer_is_all_one_needs() {
    let store = store();
    let server = LogServer::start(store.clone()).await;
    revoke(&store, grant(1)).await;
    let peer = Peer::start(|_| respond(404, "", "")).await;
    let metadata = json!({ "issuer": peer.url, "revocations_endpoint": server.url });
    peer.answer_with(move |_| json(&metadata));
    let log = HttpLog::discover(&peer.url, credentials()).await.unwrap();
    let (found, _) = entries(log.read(Cursor::start(), Duration::ZERO).await.unwrap());
    assert_eq!(said(&found), [Ok(grant(1))]);

    let metadata = json!({ "issuer": peer.url });
    peer.answer_with(move |_| json(&metadata));
    let error = HttpLog::discover(&peer.url, credentials()).await.unwrap_err();
    assert!(matches!(error, SetupError::Missing("revocations_endpoint")), "{error}");
}

#[test]
fn credentials_go_nowhere_in_the_clear() {
    let client = || ReqwestClient::new().unwrap();
    for bad in ["", "as.example", "http://as.example/revocations", "ftp://as.example/"] {
        let error = HttpLog::new(bad, credentials(), client()).unwrap_err();
        assert!(matches!(error, SetupError::Url { .. }), "{bad}: {error}");
    }
    let log = HttpLog::new("https://as.example/revocations", credentials(), client()).unwrap();
    let debug = format!("{log:?}");
    assert!(debug.contains("as.example") && !debug.contains("s3cret"), "{debug}");
}
