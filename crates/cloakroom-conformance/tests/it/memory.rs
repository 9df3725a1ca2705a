//! The memory store passes the kit.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::{Factory, run_all};
use cloakroom_core::{KeyStore, TokenStore};
use cloakroom_memory::MemoryStore;

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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_passes() {
    run_all(Memory).await.assert_ok();
}
