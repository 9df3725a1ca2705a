//! The conformance kit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::single_use::{SingleUseDatabase, SingleUseFactory};
use cloakroom_conformance::{Database, Factory, Failing, Instance, run_all};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{CheckValue, SingleUseStore, TenantStore, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, MAX_ID_BYTES, Subject};
use cloakroom_postgres::PostgresStore;

use crate::proxy::{Mode, Proxy};
use crate::server::{builder, schema, stranger};

/// A store in a schema of its own, each time.
#[derive(Debug)]
struct Postgres;

impl Postgres {
    async fn store(&self) -> PostgresStore {
        builder().connect().await.unwrap()
    }
}

#[async_trait]
impl Factory for Postgres {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.store().await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        Some(Arc::new(OneSchema {
            schema: schema(),
            proxy: Proxy::start().await,
            stores: Mutex::new(Vec::new()),
        }))
    }
}

/// One schema, which several stores use through a proxy.
#[derive(Debug)]
struct OneSchema {
    schema: String,
    proxy: Proxy,
    stores: Mutex<Vec<PostgresStore>>,
}

impl OneSchema {
    async fn connect(&self) -> Instance {
        let store = PostgresStore::builder(self.proxy.url())
            .schema(&self.schema)
            // An outage is noticed by the connection that ends, and not by a time-out.
            .statement_timeout(Duration::from_secs(20))
            .connect()
            .await
            .unwrap();
        self.stores.lock().unwrap().push(store.clone());
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }
}

#[async_trait]
impl Database for OneSchema {
    async fn open(&self) -> Instance {
        self.connect().await
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.connect().await)
    }

    async fn restart(&self) -> Option<Instance> {
        self.proxy.cut().await;
        self.stores.lock().unwrap().clear();
        Some(self.connect().await)
    }

    async fn fail(&self, failing: Failing) -> bool {
        self.proxy
            .set(match failing {
                Failing::After(left) => Mode::After(left),
                Failing::AnswersLost => Mode::AnswersLost,
                _ => return false,
            })
            .await;
        true
    }

    async fn heal(&self) {
        self.proxy.set(Mode::Works).await;
    }

    async fn damage(&self, grant: GrantId) -> bool {
        let sql = format!("UPDATE {}.grants SET body = '\\x01' WHERE id = $1", self.schema);
        let stranger = stranger().await;
        stranger.0.execute(&sql, &[&grant.as_bytes().as_slice()]).await.unwrap() == 1
    }
}

/// A tenant of a schema each time, in which another tenant was first.
#[derive(Debug)]
struct Tenants(Postgres);

impl Tenants {
    async fn tenant(&self) -> TenantStore<PostgresStore> {
        let store = Arc::new(self.0.store().await);
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
async fn a_tenant_of_a_shared_schema_passes() {
    run_all(Tenants(Postgres)).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let report = run_all(Postgres).await;
    report.assert_ok();
    let needs: BTreeSet<_> = report.not_run.iter().map(|not_run| not_run.needs).collect();
    assert_eq!(needs, BTreeSet::new());
}

#[async_trait]
impl SingleUseFactory for Postgres {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(Items(schema()))
    }
}

/// A schema for items.
#[derive(Debug)]
struct Items(String);

#[async_trait]
impl SingleUseDatabase for Items {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        Arc::new(builder().schema(&self.0).connect().await.unwrap())
    }

    async fn count(&self) -> Option<u64> {
        let count = format!("SELECT count(*) FROM {}.single_use", self.0);
        Some(stranger().await.number(&count).await.cast_unsigned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn single_use_items_pass() {
    cloakroom_conformance::single_use::run_all(Postgres).await.assert_ok();
}
