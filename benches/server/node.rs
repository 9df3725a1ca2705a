//! An authorization server with an API in one process. It follows the log on connections of its own.

use std::sync::Arc;

use cloakroom::resource::{BearerLayer, RevocationReplica, StoreLog};
use cloakroom::{Client, Format, Grant, Issuer, LocalIntrospector, Serves};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;
use cloakroom_core::{Audience, ClientId, Random, TokenSecret};
use cloakroom_jwt::AesGcmSealer;
use tokio::task::JoinHandle;

use super::Server;

const RESOURCE: &str = "https://orders.example";
const SCOPE: &str = "orders:read";
const APP: &str = "app";

pub(crate) struct Node {
    pub(crate) issuer: Issuer,
    pub(crate) layer: BearerLayer,
    app: ClientId,
    maintenance: JoinHandle<()>,
}

impl Node {
    /// A node with a store of its own.
    pub(crate) async fn start<S: Server>(url: &str, space: &str) -> Self {
        let store = Arc::new(S::open(url, space).await);
        let issuer = issuer(Arc::clone(&store)).await;
        let maintenance = maintain(&issuer);
        let api = "api".parse().expect("valid");
        let local = LocalIntrospector::new(issuer.clone(), &api).await.expect("it may");
        let replica = RevocationReplica::follow(StoreLog::new(store)).await.expect("a log");
        let layer = BearerLayer::introspecting(local, issuer.url(), RESOURCE);
        let layer = layer.cache(10_000).replica(replica);
        Self { issuer, layer, app: APP.parse().expect("valid"), maintenance }
    }

    pub(crate) async fn issue(&self, user: usize) -> TokenSecret {
        let grant = Grant::user(APP, format!("user-{user}")).and_then(|it| it.scope(SCOPE));
        self.issuer.issue(grant.expect("valid")).await.expect("tokens").access_token
    }

    pub(crate) async fn revoke(&self, token: &TokenSecret) {
        self.issuer.revoke(token, &self.app).await.expect("revoked");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.maintenance.abort();
    }
}

/// Heartbeats and housekeeping at their default pace.
pub(crate) fn maintain(issuer: &Issuer) -> JoinHandle<()> {
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await })
}

pub(crate) async fn issuer<T: TokenStore + KeyStore>(store: Arc<T>) -> Issuer {
    let serves = Serves::Only(Audience::one(RESOURCE).expect("valid"));
    let secret = Random::system().array::<16>().expect("random bytes");
    let secret = secret.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Issuer::builder("https://as.example")
        .store(store)
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .static_clients([
            Client::public(APP).scope(SCOPE).audience(RESOURCE, Format::Opaque),
            Client::resource_server("api", &secret, serves),
        ])
        .expect("valid")
        .build()
        .await
        .expect("an issuer")
}
