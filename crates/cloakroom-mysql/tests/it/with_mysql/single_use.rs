//! Single-use items.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::single_use::{SingleUseDatabase, SingleUseFactory, run_all};
use cloakroom_core::Random;
use cloakroom_core::store::{SingleUseId, SingleUseStore, Spend, Spent};

use crate::server::{Admin, Tables, hex, store};
use crate::support::{DAY, NOW};
use crate::with_mysql::by_hand::{stranger, until_blocked};

#[derive(Debug)]
struct Mysql;

#[async_trait]
impl SingleUseFactory for Mysql {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(OfTables(Tables::new()))
    }
}

#[derive(Debug)]
struct OfTables(Tables);

#[async_trait]
impl SingleUseDatabase for OfTables {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        Arc::new(self.0.open().await)
    }

    async fn count(&self) -> Option<u64> {
        let mut admin = Admin::connect().await;
        let count = admin.number(self.0.sql("SELECT COUNT(*) FROM ~single_use")).await;
        u64::try_from(count).ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let report = run_all(Mysql).await;
    report.assert_ok();
    for not_run in &report.not_run {
        assert!(not_run.needs.contains("bound"), "{not_run:?}");
    }
}

/// A node forgets an item while another, whose clock lags, sees it again. The second comes before the first, and
/// finds the item; or after it, and finds that it was forgotten.
#[tokio::test]
async fn an_item_is_not_spent_again_while_it_is_forgotten() {
    let (tables, store) = store().await;
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    let spend = Spend { id, until: NOW + DAY, now: NOW };
    assert_eq!(store.spend(spend).await.unwrap(), Spent::First);
    let mut other = stranger().await;
    let end = spend.until.as_millis();
    other.run("START TRANSACTION").await;
    other.run(tables.sql(&format!("UPDATE ~single_use_forgotten SET ends_at = {end}"))).await;
    let item = hex(id.as_bytes());
    assert_eq!(
        other.run(tables.sql(&format!("DELETE FROM ~single_use WHERE id = {item}"))).await,
        1
    );
    let again = tokio::spawn({
        let store = store.clone();
        async move { store.spend(spend).await }
    });
    until_blocked(&tables).await;
    other.run("COMMIT").await;
    assert_eq!(again.await.unwrap().unwrap(), Spent::Again);
}
