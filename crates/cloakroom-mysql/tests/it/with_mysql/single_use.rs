//! Single-use items.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::single_use::{SingleUseDatabase, SingleUseFactory, run_all};
use cloakroom_core::store::SingleUseStore;

use crate::server::{Admin, Tables};

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
