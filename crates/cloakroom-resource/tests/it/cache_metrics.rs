//! What is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::revocation::Target;
use cloakroom_resource::{
    BearerLayer, Freshness, GatewayKeys, IntrospectionLimits, PhantomLayer, WhenStale,
};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use crate::cache_support::{Authority, GRANT, Guard, Log, clock, secs, settle};
use crate::support::{self, AUDIENCE, manual_clock};

/// Counters by name and label.
#[derive(Debug, Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

struct Count(Counts, String);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }

    fn absolute(&self, _: u64) {
        unreachable!("nothing is set")
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

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
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
