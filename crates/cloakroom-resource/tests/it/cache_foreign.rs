//! A server that is not ours: plain RFC 7662, without a revocation log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use cloakroom_core::time::{Clock, ManualClock, SystemClock};
use cloakroom_resource::{
    BearerLayer, ClientCredentials, Freshness, IntrospectionClient, ReqwestClient,
};
use oauth_as::client::{Client, ClientAuth, ClientId, SecretHash};
use oauth_as::grant::GrantType;
use oauth_as::http::ServiceBuilder;
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AuthorizationServer, ResourceServerRegistration, ServerConfig};
use oauth_as::store::{MemoryStorage, Storage as _};
use oauth_as::token::IssuedToken;

use crate::cache_support::{Guard, clock, secs};
use crate::support::AUDIENCE;

const SECRET: &str = "a-secret-of-many-characters-0123456789";

/// The server, over HTTP on this machine, and how often it was asked.
struct Foreign {
    server: Arc<AuthorizationServer<MemoryStorage>>,
    url: String,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Foreign {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = ServerConfig::new(&url, format!("{url}/device"));
        config.resource_servers =
            Some([ResourceServerRegistration::new(ClientId::new("api"), [AUDIENCE])].into());
        let server = Arc::new(AuthorizationServer::new(config, MemoryStorage::new()));
        for id in ["api", "app"] {
            let scope = ScopeSet::parse("orders:read").unwrap();
            let client = Client {
                client_id: ClientId::new(id),
                auth: ClientAuth::ConfidentialSecretHash { hash: SecretHash::sha256(SECRET) },
                grant_types: vec![GrantType::ClientCredentials],
                redirect_uris: Vec::new(),
                allowed_scopes: scope.clone(),
                default_scopes: scope,
                name: None,
                registration: None,
            };
            server.register_client(client).await.unwrap();
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let service = ServiceBuilder::new(Arc::clone(&server)).build().unwrap();
        let app = Router::from(service).layer(from_fn(move |request: Request, next: Next| {
            counter.fetch_add(1, Ordering::SeqCst);
            next.run(request)
        }));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { server, url, asked, task }
    }

    async fn issue(&self, token: &str) {
        let now = SystemTime::now();
        let scope = ScopeSet::parse("orders:read").unwrap();
        let owner = Some("alice".to_owned());
        let mut record =
            IssuedToken::new(token, ClientId::new("app"), owner, scope, now, now + secs(3600));
        record.resource = vec![AUDIENCE.to_owned()];
        record.grant_established_at = now;
        assert!(!self.server.store().put_token(record).await.unwrap().is_refused());
    }

    async fn revoke(&self, token: &str) {
        let app = ClientId::new("app");
        self.server.revoke(&app, Some(SECRET), token, None).await.unwrap();
    }

    fn layer(&self, time: &Arc<ManualClock>) -> BearerLayer {
        let client = IntrospectionClient::new(
            &format!("{}/introspect", self.url),
            ClientCredentials::new("api", SECRET),
            ReqwestClient::new().unwrap(),
        )
        .unwrap();
        BearerLayer::introspecting(client, &self.url, AUDIENCE).clock(clock(time)).cache(100)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn the_classic_short_cache() {
    let foreign = Foreign::start().await;
    let time = Arc::new(ManualClock::at(SystemClock::new().now()));
    let layer = foreign.layer(&time);
    let every = Guard::Bearer(layer.clone());
    let guard = Guard::Bearer(layer.freshness(Freshness::within(secs(10))).unwrap());
    for token in ["one", "two", "three"] {
        foreign.issue(token).await;
    }

    let requests: Vec<_> = (0..64).map(|_| guard.begin("one")).collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(foreign.asked(), 1, "64 requests, one question");
    assert_eq!((guard.ask("unknown").await, guard.ask("unknown").await), (401, 401));
    assert_eq!(foreign.asked(), 2);

    // The price: a revoked token lives on for as long as the app said, and no longer.
    foreign.revoke("one").await;
    time.advance(secs(10));
    assert_eq!((guard.ask("one").await, foreign.asked()), (200, 2));
    time.advance(secs(1));
    assert_eq!((guard.ask("one").await, foreign.asked()), (401, 3));
    assert_eq!((guard.ask("one").await, foreign.asked()), (401, 3));

    // Not so where every request asks; and what such a route learns, the others know.
    assert_eq!((guard.ask("two").await, foreign.asked()), (200, 4));
    foreign.revoke("two").await;
    assert_eq!((guard.ask("two").await, foreign.asked()), (200, 4));
    assert_eq!((every.ask("two").await, foreign.asked()), (401, 5));
    assert_eq!((guard.ask("two").await, foreign.asked()), (401, 5));

    // An outage is no verdict, and brings no old answer back.
    assert_eq!((guard.ask("three").await, foreign.asked()), (200, 6));
    drop(foreign);
    assert_eq!(guard.ask("three").await, 200);
    time.advance(secs(11));
    assert_eq!(guard.ask("three").await, 503);
}
