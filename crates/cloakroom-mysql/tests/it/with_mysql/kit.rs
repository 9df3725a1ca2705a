//! The conformance kit.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::{Database, Factory, Failing, Instance, run_all};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let report = run_all(Mysql).await;
    report.assert_ok();
    assert_eq!(report.not_run, []);
}
