//! How long a token is still accepted on any of three nodes after its revocation on one was acknowledged.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::resource::{BearerLayer, RevocationReplica, StoreLog, TokenError};
use cloakroom::{Client, Format, Grant, Issuer, LocalIntrospector, Serves};
use cloakroom_benches::{Aim, Delays, Row, Unit, quantile};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::{Audience, ClientId, Random, TokenSecret};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_redis::RedisStore;

use crate::Setting;

const NODES: usize = 3;
const RESOURCE: &str = "https://orders.example";
const SCOPE: &str = "orders:read";

/// The pause before each revocation, in which all followers begin to wait again.
const QUIET: Duration = Duration::from_millis(2);

pub(crate) fn measure(setting: &Setting) {
    let revocations = setting.count(1_000, 3);
    let place = setting.place();
    let nodes: Vec<Node> = (0..NODES).map(|_| Node::new(setting, &place.prefix)).collect();
    let app: ClientId = "app".parse().expect("valid");
    let delays: Vec<f64> = (0..revocations)
        .map(|user| {
            let token = place.runtime.block_on(async {
                let grant = Grant::user("app", format!("user-{user}")).expect("valid");
                let grant = grant.scope(SCOPE).expect("valid");
                let token = nodes[0].issuer.issue(grant).await.expect("tokens").access_token;
                for node in &nodes {
                    node.layer.verify(&token, None).await.expect("it is accepted");
                }
                token
            });
            thread::sleep(QUIET);
            let issuer = nodes[user % NODES].issuer.clone();
            place.runtime.block_on(issuer.revoke(&token, &app)).expect("revoked");
            let acknowledged = Instant::now();
            nodes.iter().for_each(|node| node.refuses(setting, &token));
            acknowledged.elapsed().as_nanos() as f64
        })
        .collect();
    let name = "from revoke to refusal on all of three nodes over Redis";
    setting.suite.report(Delays::new(name, &delays));
    setting.suite.report(Row {
        name: format!("{name}, p99"),
        unit: Unit::Nanoseconds,
        ours: quantile(&delays, 0.99),
        floor: None,
        aim: Some(Aim::AtMost(10e6)),
        beside: Vec::new(),
    });
}

/// An authorization server with an API in one process: it follows the log on a connection of its own.
struct Node {
    issuer: Issuer,
    layer: BearerLayer,
}

impl Node {
    fn new(setting: &Setting, prefix: &str) -> Self {
        setting.runtime.block_on(async {
            let store = RedisStore::builder(&setting.url).prefix(prefix);
            let store = Arc::new(store.connect().await.expect("a server"));
            let serves = Serves::Only(Audience::one(RESOURCE).expect("valid"));
            let secret = Random::system().array::<16>().expect("random bytes");
            let secret =
                secret.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            let issuer = Issuer::builder("https://as.example")
                .store(Arc::clone(&store))
                .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
                .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
                .static_clients([
                    Client::public("app").scope(SCOPE).audience(RESOURCE, Format::Opaque),
                    Client::resource_server("api", &secret, serves),
                ])
                .expect("valid")
                .build()
                .await
                .expect("an issuer");
            let maintained = issuer.clone();
            tokio::spawn(async move { maintained.run_maintenance().await });
            let api = "api".parse().expect("valid");
            let local = LocalIntrospector::new(issuer.clone(), &api).await.expect("it may");
            let replica = RevocationReplica::follow(StoreLog::new(store)).await.expect("a log");
            let layer = BearerLayer::introspecting(local, issuer.url(), RESOURCE);
            Self { issuer, layer: layer.cache(10_000).replica(replica) }
        })
    }

    /// Presents the token again and again, until it is refused.
    fn refuses(&self, setting: &Setting, token: &TokenSecret) {
        loop {
            match setting.runtime.block_on(self.layer.verify(token, None)) {
                Ok(_) => thread::yield_now(),
                Err(TokenError::Invalid(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
