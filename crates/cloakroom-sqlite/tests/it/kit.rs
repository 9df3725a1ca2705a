//! The conformance kit.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::{Factory, run_all};
use cloakroom_core::{
    ClientId, KeyStore, MAX_ID_BYTES, Revocation, Subject, Target, TenantStore, TokenStore,
    UnixTime,
};
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

/// A tenant of a file each time, in which another tenant was first.
#[derive(Debug)]
struct Tenants(Sqlite);

impl Tenants {
    async fn tenant(&self) -> TenantStore<SqliteStore> {
        let store = Arc::new(self.0.store());
        let neighbour = TenantStore::new(Arc::clone(&store), "globex").unwrap();
        let later = UnixTime::from_millis(10_000_000_000_000);
        for target in [
            Target::Subject(Subject::user("alice").unwrap()),
            Target::Client(ClientId::new("app").unwrap()),
        ] {
            let revocation = Revocation::new(target, UnixTime::default(), later);
            neighbour.revoke(revocation).await.unwrap();
        }
        TenantStore::new(store, "acme").unwrap()
    }
}

#[async_trait]
impl Factory for Tenants {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.tenant().await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.tenant().await)
    }

    fn longest_id(&self) -> usize {
        MAX_ID_BYTES - "acme/".len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_of_a_shared_file_passes() {
    run_all(Tenants(Sqlite(TempDir::new().unwrap()))).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    run_all(Sqlite(TempDir::new().unwrap())).await.assert_ok();
}
