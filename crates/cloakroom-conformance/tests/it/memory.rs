//! The memory store passes the kit.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::single_use::{self, SingleUseDatabase, SingleUseFactory};
use cloakroom_conformance::{Database, Factory, Instance, run_all};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{SingleUseStore, TokenStore};
use cloakroom_memory::{MemorySingleUse, MemoryStore};

#[derive(Debug)]
struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(MemoryStore::new())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(MemoryStore::new())
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        Some(Arc::new(InMemory(MemoryStore::new())))
    }
}

/// A second instance is a clone. Nothing is durable, no driver fails, no row is ever damaged.
#[derive(Debug)]
struct InMemory(MemoryStore);

#[async_trait]
impl Database for InMemory {
    async fn open(&self) -> Instance {
        Instance::new(Arc::new(self.0.clone()), Arc::new(self.0.clone()))
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.open().await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_passes() {
    let report = run_all(Memory).await;
    report.assert_ok();
    let needs: BTreeSet<_> = report.not_run.iter().map(|not_run| not_run.needs).collect();
    assert_eq!(
        needs,
        BTreeSet::from([
            "a count of ended rows",
            "a count of open sweeps",
            "a restart",
            "answers that are lost",
            "damage to a row",
            "failures of the driver",
            "failures of the driver half-way",
        ])
    );
}

#[async_trait]
impl SingleUseFactory for Memory {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(Items(MemorySingleUse::new()))
    }

    async fn bounded(&self, items: usize) -> Option<Arc<dyn SingleUseDatabase>> {
        Some(Arc::new(Items(MemorySingleUse::with_max_items(items))))
    }
}

#[derive(Debug)]
struct Items(MemorySingleUse);

#[async_trait]
impl SingleUseDatabase for Items {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        Arc::new(self.0.clone())
    }

    async fn count(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_of_single_use_items_passes() {
    single_use::run_all(Memory).await.assert_ok();
}
