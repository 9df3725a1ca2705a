//! The conformance kit.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Database, Factory, Failing, Instance, run_all};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{CheckValue, TenantStore, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, MAX_ID_BYTES, Subject};
use cloakroom_sqlite::rusqlite::Connection;
use cloakroom_sqlite::{SqliteStore, Synchronous};
use tempfile::TempDir;

use crate::faults::{copy, until_found};

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

    async fn database(&self) -> Option<Arc<dyn Database>> {
        let folder = TempDir::new_in(self.0.path()).unwrap().keep();
        Some(Arc::new(OneFile(Mutex::new(Opened { folder, stores: Vec::new() }))))
    }
}

/// One file, which several stores may have open.
#[derive(Debug)]
struct OneFile(Mutex<Opened>);

#[derive(Debug)]
struct Opened {
    folder: PathBuf,
    /// Kept, so that none of them closes the file in good order: nobody who is killed does.
    stores: Vec<SqliteStore>,
}

impl Opened {
    fn path(&self) -> PathBuf {
        self.folder.join("tokens.db")
    }

    fn elsewhere(&self) -> PathBuf {
        self.folder.join("elsewhere.db")
    }

    fn open(&mut self) -> Instance {
        // It soon notices that its file is gone, and what others wrote.
        let store = SqliteStore::builder(self.path())
            .poll(Duration::from_millis(1))
            .synchronous(Synchronous::Normal)
            .open()
            .unwrap();
        self.stores.push(store.clone());
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }
}

impl OneFile {
    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Database for OneFile {
    async fn open(&self) -> Instance {
        self.lock().open()
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.lock().open())
    }

    /// What the disk holds goes into another folder.
    async fn restart(&self) -> Option<Instance> {
        let mut opened = self.lock();
        let found = TempDir::new_in(&opened.folder).unwrap().keep();
        for file in ["tokens.db", "tokens.db-wal"] {
            let file = opened.folder.join(file);
            if file.exists() {
                copy(&file, &found.join(file.file_name().unwrap()));
            }
        }
        *opened = Opened { folder: found, stores: Vec::new() };
        Some(opened.open())
    }

    /// The file is gone from its place. A transaction is done or not: nothing stops half-way.
    async fn fail(&self, failing: Failing) -> bool {
        if failing != Failing::After(0) {
            return false;
        }
        let stores = {
            let opened = self.lock();
            fs::rename(opened.path(), opened.elsewhere()).unwrap();
            opened.stores.clone()
        };
        for store in stores {
            while store.rules(Vec::new()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        true
    }

    async fn heal(&self) {
        let stores = {
            let opened = self.lock();
            fs::rename(opened.elsewhere(), opened.path()).unwrap();
            opened.stores.clone()
        };
        for store in stores {
            until_found(&store).await;
        }
    }

    async fn damage(&self, grant: GrantId) -> bool {
        let stranger = Connection::open(self.lock().path()).unwrap();
        let damage = "UPDATE grants SET body = x'01' WHERE id = ?1";
        stranger.execute(damage, [grant.as_bytes()]).unwrap() == 1
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

    fn max_id_bytes(&self) -> usize {
        MAX_ID_BYTES - "acme/".len()
    }

    fn max_name_bytes(&self) -> usize {
        CheckValue::MAX_NAME_BYTES - "tenant/acme/".len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_of_a_shared_file_passes() {
    run_all(Tenants(Sqlite(TempDir::new().unwrap()))).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let report = run_all(Sqlite(TempDir::new().unwrap())).await;
    report.assert_ok();
    let needs: BTreeSet<_> = report.not_run.iter().map(|not_run| not_run.needs).collect();
    assert_eq!(needs, BTreeSet::from(["answers that are lost", "failures of the driver half-way"]));
}
