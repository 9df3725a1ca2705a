//! Floods: of junk, and of revocations.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use cloakroom::LocalIntrospector;
use cloakroom::core::time::{Clock as _, ManualClock, SystemClock};
use cloakroom::resource::{
    Freshness, Introspection, Introspector, PhantomJwt, PhantomLayer, TokenSecret, UnavailableError,
};
use hyper::header::AUTHORIZATION;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::authority::{EDGES, LOOPER, ORDERS, SECRET};
use crate::edge::{Wires, gateway};
use crate::people::{How, People, Token};
use crate::tape::Place;
use crate::web::{Served, Web, bearer};
use crate::{HANGS, TURN, people, people_at};

const HOUR: Duration = Duration::from_secs(3600);
const EDGE: &str = EDGES[0];
const INTROSPECT: &str = "/introspect";
const LIVE: u32 = 500;

/// A number that `Debug` shows under this name.
fn shown(debug: &str, name: &str) -> usize {
    let rest = debug.split(&format!("{name}: ")).nth(1).unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// That a layer remembers the live tokens, and not much more.
#[track_caller]
fn assert_bounded(layer: &PhantomLayer) {
    let debug = format!("{layer:?}");
    assert_eq!(shown(&debug, "entries"), LIVE as usize);
    assert!(shown(&debug, "refusals") <= 10_100, "{debug}");
    assert_eq!((shown(&debug, "under_way"), shown(&debug, "waiting")), (0, 0), "{debug}");
}

/// A gateway that remembers some live tokens, and is flooded.
struct Flooded {
    people: People,
    _wires: Wires,
    layer: PhantomLayer,
    edge: Served,
    web: Web,
    live: Vec<Arc<Token>>,
}

impl Flooded {
    async fn new(with: impl FnOnce(PhantomLayer, &Wires) -> PhantomLayer) -> Self {
        let people = people().await;
        let wires = Wires::new(EDGE, &people.authority).await;
        let layer =
            wires.gateway().cache(2 * LIVE as usize).freshness(Freshness::within(HOUR)).unwrap();
        let layer = with(layer, &wires);
        let place = Place { name: EDGE, bound: HOUR };
        let edge = gateway(place, &people.tape, &layer, None).await;
        for user in 0..LIVE {
            people.sign_in(user, 2 * (user % 20)).await.unwrap();
        }
        let live = people.tokens();
        let flooded = Self { people, _wires: wires, layer, edge, web: Web::new(), live };
        flooded.the_living_are_known(LIVE as usize).await;
        flooded
    }

    async fn get(&self, token: &str) -> u16 {
        self.web.get(&self.edge.url(), &bearer(token), 0).await.unwrap()
    }

    /// How often the authorization server was asked.
    fn asked(&self) -> usize {
        self.people.authority.asked.count(INTROSPECT, EDGE)
    }

    /// All live tokens pass, and by then the server was asked so often in all.
    async fn the_living_are_known(&self, asked: usize) {
        for token in &self.live {
            assert_eq!(self.get(&token.secret).await, 200);
        }
        assert_eq!(self.asked(), asked);
        assert_bounded(&self.layer);
    }

    /// Sends so many tokens over HTTP, all of which are refused.
    async fn junk(&self, count: usize, junk: fn(&str, usize) -> String) {
        let mut senders = JoinSet::new();
        for sender in 0..16 {
            let (web, url) = (self.web.clone(), self.edge.url());
            let good = self.live[0].secret.clone();
            senders.spawn(async move {
                for number in (sender..count).step_by(16) {
                    let token = bearer(&junk(&good, number));
                    assert_eq!(web.get(&url, &token, 0).await, Some(401));
                }
            });
        }
        timeout(HANGS, senders.join_all()).await.expect("it goes on");
    }
}

/// Asks the layer itself, without a socket.
async fn ask(layer: &PhantomLayer, token: &str) -> u16 {
    let inside =
        service_fn(|_: Request| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(AUTHORIZATION, bearer(token));
    layer.layer(inside).oneshot(request).await.unwrap().status().as_u16()
}

/// Sends a million tokens through the layer itself, all of which are refused.
async fn a_million(layer: &PhantomLayer, good: &Token) {
    const MILLION: usize = 1_000_000;
    const THREADS: usize = 2;
    let mut senders = JoinSet::new();
    for sender in 0..THREADS {
        let (layer, good) = (layer.clone(), good.secret.clone());
        senders.spawn(async move {
            for number in (sender..MILLION).step_by(THREADS) {
                assert_eq!(ask(&layer, &forged(&good, number)).await, 401);
            }
        });
    }
    timeout(HANGS, senders.join_all()).await.expect("it goes on");
}

/// Spelled like a handle, with another tag each time.
fn forged(good: &str, number: usize) -> String {
    format!("{}{number:016x}", &good[..good.len() - 16])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_junk_that_has_to_be_asked_about() {
    const JUNK: usize = 12_000;
    let _turn = TURN.lock().await;
    let flooded = Flooded::new(|layer, _| layer).await;
    flooded.junk(JUNK, forged).await;
    flooded.the_living_are_known(LIVE as usize + JUNK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_million_forgeries() {
    let _turn = TURN.lock().await;
    let flooded = Flooded::new(|layer, wires| layer.handle_keys(wires.handle_keys())).await;
    flooded.junk(10_000, forged).await;
    a_million(&flooded.layer, &flooded.live[0]).await;
    let fetched = || flooded.people.authority.asked.count("/handle-keys", EDGE);
    assert_eq!(fetched(), 1);
    // These have perhaps another spelling: every 10 s it may be asked whether they have.
    flooded.junk(1_000, |_, number| format!("something-else-{number}")).await;
    assert!(fetched() as u64 <= 1 + flooded.people.tape.now().as_secs() / 10);
    flooded.the_living_are_known(LIVE as usize).await;
}

/// Counts what an introspector is asked.
#[derive(Debug, Clone)]
struct Counted<I>(I, Arc<AtomicUsize>);

#[async_trait]
impl<I: Introspector> Introspector for Counted<I> {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        self.0.introspect(token).await
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.swap(token, resource).await
    }
}

/// In one process with the authorization server: over HTTP it would take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_million_that_have_to_be_asked_about() {
    let _turn = TURN.lock().await;
    let people = people().await;
    let issuer = people.authority.does(|issuer| async { issuer }).await.unwrap();
    let local = LocalIntrospector::new(issuer, &EDGE.parse().unwrap()).await.unwrap();
    let asked = Arc::new(AtomicUsize::default());
    let layer = PhantomLayer::new(Counted(local, Arc::clone(&asked)), ORDERS)
        .cache(2 * LIVE as usize)
        .freshness(Freshness::within(HOUR))
        .unwrap();
    for user in 0..LIVE {
        people.sign_in(user, 2 * (user % 20)).await.unwrap();
    }
    let live = people.tokens();
    let all_pass = async || {
        for token in &live {
            assert_eq!(ask(&layer, &token.secret).await, 200);
        }
        asked.load(Ordering::SeqCst)
    };
    assert_eq!(all_pass().await, LIVE as usize);
    a_million(&layer, &live[0]).await;
    assert_eq!(all_pass().await, LIVE as usize + 1_000_000);
    assert_bounded(&layer);
}

/// A token that the looper gets for itself.
async fn own(people: &People, web: &Web) -> String {
    let url = people.authority.url("/token").unwrap();
    let form = [("grant_type", "client_credentials")];
    let (status, body) = web.post(&url, (LOOPER, SECRET), &form).await.unwrap();
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_revocations_by_one_client() {
    const RULES: usize = 100;
    const BOUND: Duration = Duration::from_secs(1);
    let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
    let people = people_at(clock.clone()).await;
    let wires = Wires::new(EDGE, &people.authority).await;
    let log = wires.replica(wires.http_log()).rules(RULES);
    let replica = log.follow().await.unwrap();
    let layer = wires.gateway().cache(1_000).replica(replica.clone());
    let layer = layer.freshness(Freshness::within(BOUND)).unwrap();
    let place = Place { name: EDGE, bound: BOUND };
    let edge = gateway(place, &people.tape, &layer, None).await;
    let web = Web::new();
    let get = |token: &str| {
        let (web, url, token) = (web.clone(), edge.url(), bearer(token));
        async move { web.get(&url, &token, 0).await.unwrap() }
    };
    let (kept, other) = (own(&people, &web).await, people.sign_in(1, 0).await.unwrap());
    assert_eq!((get(&kept).await, get(&other.secret).await), (200, 200));

    let url = people.authority.url("/revoke").unwrap();
    for _ in 0..5 * RULES {
        let token = own(&people, &web).await;
        let (status, _) = web.post(&url, (LOOPER, SECRET), &[("token", &token)]).await.unwrap();
        assert_eq!(status, 200);
        assert!(replica.rules() <= RULES, "{}", replica.rules());
    }
    // One of somebody else's comes after all of those, and is known.
    let last = people.sign_in(2, 0).await.unwrap();
    assert_eq!(get(&last.secret).await, 200);
    assert!(people.revoke(How::Grant, &last).await);
    let known = async {
        while get(&last.secret).await != 401 {}
        clock.advance(2 * BOUND);
        // From here on the age of what is remembered is not good enough, but the replica is.
        while replica.staleness().is_none_or(|staleness| staleness > BOUND) {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANGS, known).await.expect("the log is read to its end");
    assert_eq!(replica.rules(), RULES, "the looper's may take all the room that nobody else needs");
    let asked = || people.authority.asked.count(INTROSPECT, EDGE);
    let before = asked();
    assert_eq!((get(&other.secret).await, asked()), (200, before), "nobody else is touched");
    assert_eq!((get(&kept).await, asked()), (200, before + 1), "asked about, and not denied");
}
