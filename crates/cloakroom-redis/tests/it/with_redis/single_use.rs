//! Single-use items.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::processes::Plan;
use cloakroom_conformance::single_use::{
    Outcome, SingleUseDatabase, SingleUseFactory, contend, judge, run_all,
};
use cloakroom_core::Random;
use cloakroom_core::store::{SingleUseId, SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::{Clock as _, SystemClock, UnixTime};
use cloakroom_redis::{RedisStore, redis};
use futures_util::future::join_all;

use crate::proxy::Mode;
use crate::support::{keys, prefix, url};
use crate::with_redis::kit::{open, open_behind_proxy, proxied};
use crate::with_redis::processes::{inherited_race, race, report};

#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) url: String,
}

#[derive(Debug)]
struct Keys {
    url: String,
    prefix: String,
}

#[async_trait]
impl SingleUseFactory for Items {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(Keys { url: self.url.clone(), prefix: prefix() })
    }
}

/// It does not count its items: the server removes them, by its own clock.
#[async_trait]
impl SingleUseDatabase for Keys {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        Arc::new(open(&self.url, &self.prefix).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    run_all(Items { url: url() }).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race().await {
        return report(contend(&store, &plan).await);
    }
    let plan = Plan::new(42, 8);
    let test = "with_redis::single_use::processes_race";
    let outcomes: Vec<Outcome> = race(test, &url(), &prefix(), &plan);
    judge(&plan, &outcomes).unwrap();
}

#[tokio::test]
async fn the_server_forgets_an_item_at_its_end_and_does_not_spend_it_again() {
    let (url, prefix) = (url(), prefix());
    let store = open(&url, &prefix).await;
    let empty = keys(&url, &prefix).await;
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    let now = SystemClock::new().now();
    let spend = Spend { id, until: now + Duration::from_millis(500), now };
    assert_eq!(store.spend(spend).await.unwrap(), Spent::First);
    assert_eq!(keys(&url, &prefix).await.len(), empty.len() + 1);
    while keys(&url, &prefix).await != empty {
        tokio::task::yield_now().await;
    }
    // A call of a node whose clock is behind, or one that took long.
    assert_eq!(store.spend(spend).await.unwrap(), Spent::Again);
    assert_eq!(keys(&url, &prefix).await, empty);
}

/// Spends each of these twice at the same time.
async fn spend_twice(store: &RedisStore, spends: &[Spend]) -> Vec<Result<Spent, StoreError>> {
    let spent = spends.iter().chain(spends).map(|spend| store.spend(*spend));
    join_all(spent).await
}

fn items(count: usize, from: UnixTime, life: Duration) -> Vec<Spend> {
    let id = || SingleUseId::from_bytes(Random::system().array().unwrap());
    (0..count).map(|_| Spend { id: id(), until: from + life, now: from }).collect()
}

#[tokio::test]
async fn calls_at_the_same_time_spend_each_item_once() {
    let store = open(&url(), &prefix()).await;
    let spends = items(300, SystemClock::new().now(), Duration::from_secs(60));
    let spent = spend_twice(&store, &spends).await;
    let (one, other) = spent.split_at(spends.len());
    for (one, other) in one.iter().zip(other) {
        let answers = [*one.as_ref().unwrap(), *other.as_ref().unwrap()];
        assert!(answers.contains(&Spent::First) && answers.contains(&Spent::Again), "{answers:?}");
    }
}

#[tokio::test]
async fn calls_at_the_same_time_do_not_spend_what_is_over_for_the_server() {
    let store = open(&url(), &prefix()).await;
    let past = SystemClock::new().now() - Duration::from_secs(3_600);
    let spends = items(300, past, Duration::from_secs(60));
    for spent in spend_twice(&store, &spends).await {
        assert_eq!(spent.unwrap(), Spent::Again);
    }
}

#[tokio::test]
async fn calls_at_the_same_time_get_an_error_when_their_connection_breaks() {
    let (url, prefix) = (url(), prefix());
    let (proxy, store) = open_behind_proxy(&url, &prefix).await;
    let spends = items(300, SystemClock::new().now(), Duration::from_secs(60));
    // It breaks amid a batch: the server has some of its commands.
    proxy.set(Mode::After(50));
    let spent = spend_twice(&store, &spends).await;
    assert!(spent.iter().any(Result::is_err));
    proxy.set(Mode::Through);
    let (one, other) = spent.split_at(spends.len());
    for ((spend, one), other) in spends.iter().zip(one).zip(other) {
        let answers = [one.as_ref().ok(), other.as_ref().ok()];
        let before = answers.into_iter().flatten().filter(|spent| **spent == Spent::First).count();
        let now = usize::from(store.spend(*spend).await.unwrap() == Spent::First);
        assert!(before + now <= 1, "spent twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_frozen_server_are_bounded_and_do_not_outlive_their_callers() {
    const CALLS: usize = 20_000;
    let (url, prefix) = (url(), prefix());
    let patient = open(&url, &prefix).await;
    let (proxy, through) = proxied(&url).await;
    let limit = Duration::from_millis(500);
    let builder = RedisStore::builder(&through).prefix(&*prefix).connect_timeout(limit);
    let store = builder.response_timeout(limit).connect().await.unwrap();
    let empty = keys(&url, &prefix).await.len();
    proxy.set(Mode::Frozen);
    let now = SystemClock::new().now();
    let spends = items(CALLS, now, Duration::from_secs(60));
    let spent = join_all(spends.iter().map(|spend| store.spend(*spend))).await;
    let is_refused = |error: &StoreError| {
        let source = std::error::Error::source(error).unwrap().to_string();
        source.contains("too many commands are waiting")
    };
    let refused = spent.iter().filter(|spent| is_refused(spent.as_ref().unwrap_err())).count();
    assert!((1..CALLS / 2).contains(&refused), "{refused}");

    proxy.set(Mode::Through);
    let one = items(1, now, Duration::from_secs(60))[0];
    while store.spend(one).await.is_err() {}
    assert_eq!(patient.spend(one).await.unwrap(), Spent::Again);
    // The commands that were sent before are there. Those that waited would be sent before these.
    let others = items(300, now, Duration::from_secs(60));
    for spent in join_all(others.iter().map(|spend| store.spend(*spend))).await {
        assert_eq!(spent.unwrap(), Spent::First);
    }
    let kept = keys(&url, &prefix).await.len() - empty - 301;
    assert!(kept < 1_000, "{kept}");
}

/// A connection of the app, which gathers nothing.
#[tokio::test]
async fn a_shared_connection_spends_as_well() {
    let (url, prefix) = (url(), prefix());
    let client = redis::Client::open(&*url).unwrap();
    let manager = client.get_connection_manager().await.unwrap();
    let store = RedisStore::over(manager).prefix(&*prefix).connect().await.unwrap();
    let spends = items(30, SystemClock::new().now(), Duration::from_secs(60));
    let spent = spend_twice(&store, &spends).await;
    let first = spent.into_iter().filter(|spent| *spent.as_ref().unwrap() == Spent::First);
    assert_eq!(first.count(), spends.len());
    let past = SystemClock::new().now() - Duration::from_secs(3_600);
    for spent in spend_twice(&store, &items(30, past, Duration::from_secs(60))).await {
        assert_eq!(spent.unwrap(), Spent::Again);
    }
}
