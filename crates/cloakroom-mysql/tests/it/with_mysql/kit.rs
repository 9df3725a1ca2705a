//! The conformance kit.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::{Check, Database, Factory, Failing, Instance, checks, run};
use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;

use crate::proxy::{Mode, Proxy};
use crate::server::{Admin, Tables, hex};

/// Tables of their own, each time.
#[derive(Debug)]
struct Mysql;

#[async_trait]
impl Factory for Mysql {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(Tables::new().open().await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(Tables::new().open().await)
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        let (tables, proxy) = Tables::behind_proxy().await;
        Some(Arc::new(Proxied { tables, proxy }))
    }
}

/// Tables behind a proxy.
#[derive(Debug)]
struct Proxied {
    tables: Tables,
    proxy: Arc<Proxy>,
}

impl Proxied {
    async fn instance(&self) -> Instance {
        let store = self.tables.open().await;
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }
}

#[async_trait]
impl Database for Proxied {
    async fn open(&self) -> Instance {
        self.instance().await
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.instance().await)
    }

    /// What the server has is what a program finds when it starts again.
    async fn restart(&self) -> Option<Instance> {
        Some(self.instance().await)
    }

    async fn fail(&self, failing: Failing) -> bool {
        self.proxy.set(match failing {
            Failing::After(commands) => Mode::After(commands),
            Failing::AnswersLost => Mode::AnswersLost,
            _ => return false,
        });
        true
    }

    async fn heal(&self) {
        self.proxy.set(Mode::Normal);
    }

    async fn damage(&self, grant: GrantId) -> bool {
        let mut admin = Admin::connect().await;
        let sql = self.tables.sql("UPDATE ~grants SET body = X'01' WHERE id = ");
        admin.run(sql + &hex(grant.as_bytes())).await == 1
    }
}

/// Runs the checks of these topics. Several tests share the kit, so that they run at the same time.
async fn passes(topics: &[&str]) {
    let is_among = |check: &Check| topics.iter().any(|topic| check.name.starts_with(topic));
    let checks: Vec<Check> = checks().into_iter().filter(is_among).collect();
    assert!(checks.len() > 10, "{topics:?}");
    let report = run(&checks, Arc::new(Mysql)).await;
    report.assert_ok();
    assert_eq!(report.not_run, []);
}

/// Nothing of the kit is in none of the tests.
#[test]
fn every_topic_is_run() {
    let topics = [CONTRACT, RACES, REST, DATABASE].concat();
    for check in checks() {
        let count = topics.iter().filter(|topic| check.name.starts_with(**topic)).count();
        assert_eq!(count, 1, "{}", check.name);
    }
}

const CONTRACT: &[&str] = &["contract::"];
const RACES: &[&str] = &["races::", "cancellation::"];
const REST: &[&str] = &["log::", "model::", "many::"];
const DATABASE: &[&str] = &["database::"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_method_keeps_its_contract() {
    passes(CONTRACT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_and_dropped_futures_break_nothing() {
    passes(RACES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_the_model_and_large_numbers_pass() {
    passes(REST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_restarts_outages_and_damage_break_nothing() {
    passes(DATABASE).await;
}
