//! The conformance kit.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::{Factory, run_all};
use cloakroom_core::{KeyStore, TokenStore};
use cloakroom_sqlite::{SqliteStore, Synchronous};
use tempfile::TempDir;

/// A store in a folder of its own, each time.
#[derive(Debug)]
struct Sqlite(TempDir);

impl Sqlite {
    fn store(&self) -> SqliteStore {
        let folder = TempDir::new_in(self.0.path()).unwrap().keep();
        // What the kit asks has nothing to do with power cuts.
        SqliteStore::builder(folder.join("tokens.db"))
            .synchronous(Synchronous::Normal)
            .open()
            .unwrap()
    }
}

#[async_trait]
impl Factory for Sqlite {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.store())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    run_all(Sqlite(TempDir::new().unwrap())).await.assert_ok();
}
