//! What is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::revocation::{Cursor, RevocationBatch, RevocationPage, Target};
use cloakroom_resource::{
    BearerLayer, Freshness, GatewayKeys, HttpClient, HttpError, IntrospectionLimits, PhantomLayer,
    RevocationLog, RevocationReplica, UnavailableError, Verifier, WhenStale,
};
use http::{Request, Response};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

use crate::cache_support::{Authority, GRANT, Guard, Log, clock, secs, settle};
use crate::support::{self, AUDIENCE, ISSUER, key_set, manual_clock, secret};

/// Counters by name and label, and gauges by name.
#[derive(Debug, Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>, Arc<Mutex<BTreeMap<String, f64>>>);

struct Count(Counts, String);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }

    fn absolute(&self, _: u64) {
        unreachable!("nothing is set")
    }
}

impl GaugeFn for Count {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn decrement(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn set(&self, value: f64) {
        self.0.1.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<&str> = key.labels().map(metrics::Label::value).collect();
        let name = format!("{} {}", key.name(), labels.join(","));
        Counter::from_arc(Arc::new(Count(self.clone(), name)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Count(self.clone(), key.name().to_owned())))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Counts {
    /// What was counted since this was last asked, without what is the replica's own.
    fn take(&self) -> Vec<(String, u64)> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap());
        let own = counts.into_iter().filter(|(name, _)| !name.contains("replica"));
        own.map(|(name, count)| (name.trim_start_matches("cloakroom_").to_owned(), count)).collect()
    }

    /// How far the replica is behind, how many rules it holds, and how often it came back.
    fn replica(&self) -> (f64, f64, u64) {
        let gauges = self.1.lock().unwrap();
        let counts = self.0.lock().unwrap();
        let reconnects = counts.get("cloakroom_replica_reconnects_total ").copied();
        (
            gauges["cloakroom_replica_staleness_seconds"],
            gauges["cloakroom_replica_rules"],
            reconnects.unwrap_or_default(),
        )
    }
}

fn expect(counts: &Counts, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    assert_eq!(counts.take(), expected);
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (authority, time, log) = (Authority::new(), manual_clock(), Log::new(secs(0)));
    let replica = log.replica(&time).await;
    let keys = HandleKeys::new(&HandleSecret::new(1, [1; 32]));
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&time))
        .cache(100)
        .limits(IntrospectionLimits::default().at_once(1).waiting(1))
        .freshness(Freshness::within(secs(2)))
        .unwrap();
    let guard = Guard::Phantom(layer.clone());
    counts.take();

    assert_eq!(guard.ask("token").await, 200);
    expect(&counts, &[("cache_misses_total phantom", 1)]);
    assert_eq!(guard.ask("token").await, 200);
    expect(&counts, &[("cache_hits_total phantom", 1)]);

    authority.close();
    let first = guard.begin("first");
    authority.wait_for(2).await;
    let others = [guard.begin("first"), guard.begin("second")];
    settle().await;
    assert_eq!(guard.ask("third").await, 503);
    authority.revoke_all();
    authority.open();
    assert_eq!(first.await.unwrap(), 200);
    for other in others {
        other.await.unwrap();
    }
    expect(
        &counts,
        &[
            ("cache_coalesced_total phantom", 1),
            ("cache_misses_total phantom", 2),
            ("introspection_overloads_total phantom", 1),
        ],
    );
    assert_eq!(guard.ask("second").await, 401);
    expect(&counts, &[("cache_negative_hits_total phantom", 1)]);

    let own = layer.clone().handle_keys(GatewayKeys::with_keys(keys.access_keys().clone()));
    assert_eq!(Guard::Phantom(own).ask("cr_at_junk").await, 401);
    expect(&counts, &[("forged_handles_total phantom", 1)]);

    let followed = layer.replica(replica.clone()).when_stale(WhenStale::Refuse);
    let followed = Guard::Phantom(followed);
    time.advance(secs(3));
    assert_eq!(followed.ask("token").await, 503);
    expect(&counts, &[("stale_refusals_total phantom", 1)]);
    log.revoke(Target::Grant(GRANT.parse().unwrap()), None).await;
    assert_eq!(followed.ask("token").await, 401);
    expect(&counts, &[("cache_revoked_evictions_total phantom", 1)]);

    let key = support::Key::new();
    let api = BearerLayer::new(key.verifier(&time).cache(100));
    let token = key.token().await;
    let guard = Guard::Bearer(api.clone());
    assert_eq!((guard.ask(&token).await, guard.ask(&token).await), (200, 200));
    expect(&counts, &[("cache_hits_total jwt", 1), ("cache_misses_total jwt", 1)]);
    time.advance(secs(20));
    assert_eq!(Guard::Bearer(api.replica(replica)).ask(&token).await, 503);
    expect(&counts, &[("cache_hits_total jwt", 1), ("stale_refusals_total jwt", 1)]);
}

/// A log that fails as often as the test says, and then goes on.
#[derive(Debug, Clone)]
struct Faulty(Log, Arc<AtomicU32>);

#[async_trait]
impl RevocationLog for Faulty {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let failures =
            self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match failures {
            Ok(_) => Err(UnavailableError::other("as the test says")),
            Err(_) => self.0.read(after, wait).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_shows_how_far_it_is_behind_and_when_it_came_back() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (time, log) = (manual_clock(), Log::new(secs(2)));
    let faulty = Faulty(log.clone(), Arc::default());
    let builder = RevocationReplica::builder(faulty.clone()).clock(clock(&time));
    let _replica = builder.follow().await.unwrap();
    assert_eq!(counts.replica(), (f64::INFINITY, 0.0, 0), "it has read nothing yet");
    log.beat(&time).await;
    assert_eq!(counts.replica(), (2.0, 0.0, 0));
    time.advance(secs(3));
    let target = Target::Grant(GRANT.parse().unwrap());
    log.revoke(target.clone(), None).await;
    assert_eq!(counts.replica(), (5.0, 1.0, 0));
    for outages in 1..=2 {
        faulty.1.store(3, Ordering::SeqCst);
        log.revoke(target.clone(), None).await;
        log.revoke(target.clone(), None).await;
        assert_eq!(counts.replica(), (5.0, 1.0, outages));
    }
}

/// A JWK Set in the same process, and how often it was fetched.
#[derive(Debug, Clone)]
struct Keys(Arc<Mutex<(String, usize)>>);

#[async_trait]
impl HttpClient for Keys {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut keys = self.0.lock().unwrap();
        keys.1 += 1;
        Ok(Response::new(Bytes::from(keys.0.clone())))
    }
}

#[tokio::test]
async fn a_jwt_is_remembered_until_the_set_of_its_key_changes() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (key, other, time) = (support::Key::new(), support::Key::new(), manual_clock());
    let keys = Keys(Arc::new(Mutex::new((key_set(&[&key]), 0))));
    let verifier = Verifier::fetching(ISSUER, AUDIENCE, "https://as.example/jwks", keys.clone());
    let verifier = verifier.unwrap().clock(clock(&time)).cache(10);
    let token = secret(key.token().await);
    // The second one is answered after whatever the first one has set off.
    let ask_twice = async |fetches| {
        verifier.verify(&token).await.unwrap();
        settle().await;
        assert_eq!(keys.0.lock().unwrap().1, fetches);
        verifier.verify(&token).await.unwrap();
    };
    ask_twice(1).await;
    expect(&counts, &[("cache_hits_total jwt", 1), ("cache_misses_total jwt", 1)]);
    // It is fetched again ahead of its end, and says the same.
    time.advance(secs(3_000));
    ask_twice(2).await;
    expect(&counts, &[("cache_hits_total jwt", 2)]);
    // It says something else.
    keys.0.lock().unwrap().0 = key_set(&[&key, &other]);
    time.advance(secs(3_000));
    ask_twice(3).await;
    expect(&counts, &[("cache_hits_total jwt", 1), ("cache_misses_total jwt", 1)]);
}

#[tokio::test]
async fn a_jwt_that_is_revoked_leaves_memory() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (key, time, log) = (support::Key::new(), manual_clock(), Log::new(secs(0)));
    let replica = log.replica(&time).await;
    let guard = Guard::Bearer(BearerLayer::new(key.verifier(&time).cache(100)).replica(replica));
    let token = key.token().await;
    assert_eq!(guard.ask(&token).await, 200);
    log.revoke(Target::Jti("1".parse().unwrap()), None).await;
    counts.take();
    let evicted = ("cache_revoked_evictions_total jwt", 1);
    assert_eq!(guard.ask(&token).await, 401);
    expect(&counts, &[("cache_hits_total jwt", 1), evicted]);
    // It is verified again, and is not kept.
    assert_eq!(guard.ask(&token).await, 401);
    expect(&counts, &[("cache_misses_total jwt", 1), evicted]);
}

/// A log that once has a gap after what was read.
#[derive(Debug)]
struct Gapped(Log, AtomicBool);

#[async_trait]
impl RevocationLog for Gapped {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        if after != Cursor::start() && !self.1.swap(true, Ordering::SeqCst) {
            let batch = RevocationBatch::Gap;
            return Ok(RevocationPage { batch, heartbeat: secs(1), clock_skew: secs(0) });
        }
        self.0.read(after, wait).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_the_log_is_counted() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (time, log) = (manual_clock(), Log::new(secs(0)));
    log.beat_without_waiting(&time);
    let gapped = Gapped(log.clone(), AtomicBool::new(false));
    let replica = RevocationReplica::builder(gapped).clock(clock(&time)).follow().await.unwrap();
    let gaps = || counts.0.lock().unwrap().get("cloakroom_replica_gaps_total ").copied();
    assert_eq!((gaps(), replica.staleness()), (None, Some(secs(0))));
    log.beat(&time).await;
    log.revoke(Target::Jti("1".parse().unwrap()), None).await;
    assert_eq!((gaps(), replica.rules()), (Some(1), 1));
}
