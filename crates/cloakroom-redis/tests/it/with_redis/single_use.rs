//! Single-use items.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::processes::Plan;
use cloakroom_conformance::single_use::{
    Outcome, SingleUseDatabase, SingleUseFactory, contend, judge, run_all,
};
use cloakroom_core::Random;
use cloakroom_core::store::{SingleUseId, SingleUseStore, Spend, Spent};
use cloakroom_core::time::{Clock as _, SystemClock};

use crate::support::{keys, prefix, url};
use crate::with_redis::kit::open;
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
