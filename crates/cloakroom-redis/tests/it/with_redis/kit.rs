//! The conformance kit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Database, Factory, Failing, Instance, run_all};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{CheckValue, TenantStore, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, MAX_ID_BYTES, Subject};
use cloakroom_redis::RedisStore;
use cloakroom_redis::redis::cmd;

use crate::proxy::{Mode, Proxy};
use crate::support::{ask, grant_key, prefix, url};

/// Stores on a server, each with keys of its own.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) url: String,
}

impl Redis {
    pub(crate) async fn store(&self) -> RedisStore {
        open(&self.url, &prefix()).await
    }
}

pub(crate) async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::builder(url)
        .prefix(prefix)
        .connect_timeout(Duration::from_secs(30))
        .response_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap()
}

/// A store whose commands pass a proxy.
pub(crate) async fn open_behind_proxy(url: &str, prefix: &str) -> (Proxy, RedisStore) {
    let (proxy, through) = proxied(url).await;
    let store = open(&through, prefix).await;
    (proxy, store)
}

/// A proxy before the server, and the URL that leads through it.
pub(crate) async fn proxied(url: &str) -> (Proxy, String) {
    let (login, host) = parts(url);
    let proxy = Proxy::start(host).await;
    let through = format!("redis://{login}127.0.0.1:{}{}", proxy.port(), path(url));
    (proxy, through)
}

#[async_trait]
impl Factory for Redis {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.store().await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store().await)
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        let (proxy, through) = proxied(&self.url).await;
        Some(Arc::new(Proxied { url: self.url.clone(), through, proxy, prefix: prefix() }))
    }
}

/// The login and the host of a URL.
pub(crate) fn parts(url: &str) -> (String, String) {
    let rest = url.strip_prefix("redis://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (format!("{login}@"), host),
        None => (String::new(), authority),
    };
    let port = if host.contains(':') { "" } else { ":6379" };
    (login, format!("{host}{port}"))
}

pub(crate) fn path(url: &str) -> &str {
    let rest = url.strip_prefix("redis://").unwrap();
    rest.find('/').map_or("", |at| &rest[at..])
}

/// One set of keys, behind a proxy.
#[derive(Debug)]
struct Proxied {
    url: String,
    through: String,
    proxy: Proxy,
    prefix: String,
}

#[async_trait]
impl Database for Proxied {
    async fn open(&self) -> Instance {
        let store = open(&self.through, &self.prefix).await;
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.open().await)
    }

    async fn restart(&self) -> Option<Instance> {
        // All that a store knows is in the server.
        Some(self.open().await)
    }

    async fn fail(&self, failing: Failing) -> bool {
        self.proxy.set(match failing {
            Failing::After(count) => Mode::After(count),
            Failing::AnswersLost => Mode::AnswersLost,
            _ => return false,
        });
        true
    }

    async fn heal(&self) {
        self.proxy.set(Mode::Through);
    }

    async fn damage(&self, grant: GrantId) -> bool {
        damage(&self.url, &self.prefix, grant).await;
        true
    }
}

/// Makes the body of a grant unreadable, and leaves its columns.
pub(crate) async fn damage(url: &str, prefix: &str, grant: GrantId) {
    const DAMAGE: &str = "\
        local value = redis.call('HGET', KEYS[1], 'g')
        local client = struct.unpack('>I2', value, 78)
        local subject = struct.unpack('>I2', value, 80 + client)
        return redis.call('HSET', KEYS[1], 'g', string.sub(value, 1, 81 + client + subject) .. '\\1')";
    let mut script = cmd("EVAL");
    script.arg(DAMAGE).arg(1).arg(grant_key(prefix, grant));
    ask::<i64>(url, &script).await;
}

/// A tenant of a store each time, in which another tenant was first.
#[derive(Debug)]
struct Tenants(Redis);

impl Tenants {
    async fn tenant(&self) -> TenantStore<RedisStore> {
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
async fn a_tenant_of_a_shared_store_passes() {
    run_all(Tenants(Redis { url: url() })).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let report = run_all(Redis { url: url() }).await;
    report.assert_ok();
    let needs: BTreeSet<_> = report.not_run.iter().map(|not_run| not_run.needs).collect();
    // The only way to count them would be to read all of them.
    assert_eq!(needs, BTreeSet::from(["a count of open sweeps"]));
}
