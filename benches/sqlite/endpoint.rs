//! The whole introspection endpoint, in process, over SQLite and over memory.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::http::Endpoints;
use cloakroom::{Client, Format, Grant, Issuer, Serves};
use cloakroom_benches::{Dice, Pair, Suite, now, per_call};
use cloakroom_core::{Audience, HandleKeys, HandleSecret, KeyStore, Random, TokenStore};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_memory::MemoryStore;
use cloakroom_sqlite::{SqliteStore, Synchronous};
use http::{Request, header};

use crate::runtime;

const API: &str = "orders-api";
const SECRET: &str = "hB3xYtR8eKfC6vUwQ0iZsMqD1nGpL7oA";
const RESOURCE: &str = "https://orders.example";

pub(crate) fn measure(suite: &Suite, grants: usize) {
    suite.say(format_args!("introspection among {grants} grants"));
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing is written while it is measured.
    let sqlite = SqliteStore::builder(folder.path().join("tokens.db"))
        .synchronous(Synchronous::Normal)
        .open()
        .expect("it opens");
    let mut sqlite = Server::new(sqlite, grants);
    let mut memory = Server::new(MemoryStore::new(), grants);
    let row = Pair::new(
        "introspect over SQLite, endpoint and all, without the network",
        per_call(|| sqlite.introspect()),
    )
    .floor("the same over memory", per_call(|| memory.introspect()));
    suite.report(row.measure(suite));
}

struct Server {
    endpoints: Endpoints,
    tokens: Vec<String>,
    authorization: String,
    dice: Dice,
}

impl Server {
    fn new(store: impl TokenStore + KeyStore, grants: usize) -> Self {
        let secret = HandleSecret::random(1, &Random::system()).expect("random bytes");
        let audience = Audience::one(RESOURCE).expect("valid");
        let clients = [
            Client::public("web-app")
                .and_then(|client| client.scope("orders:read"))
                .and_then(|client| client.audience(RESOURCE, Format::Opaque)),
            Client::resource_server(API, SECRET, Serves::Only(audience)),
        ]
        .map(|client| client.expect("valid"));
        let (endpoints, tokens) = runtime().block_on(async {
            let issuer = Issuer::builder("https://as.example")
                .store(Arc::new(store))
                .handle_keys(HandleKeys::new(&secret))
                .sealer(Arc::new(AesGcmSealer::random().expect("random bytes")))
                .static_clients(clients)
                .expect("valid")
                .build()
                .await
                .expect("an issuer");
            let mut tokens = Vec::with_capacity(grants);
            // No more at a time than may wait for the writer.
            while tokens.len() < grants {
                let first = tokens.len();
                let tasks: Vec<_> = (first..grants.min(first + 4_096))
                    .map(|number| tokio::spawn(issue(issuer.clone(), number)))
                    .collect();
                for task in tasks {
                    tokens.push(task.await.expect("no panic"));
                }
            }
            (Endpoints::new(issuer), tokens)
        });
        let authorization = format!("Basic {}", STANDARD.encode(format!("{API}:{SECRET}")));
        Self { endpoints, tokens, authorization, dice: Dice::new(60) }
    }

    fn introspect(&mut self) {
        let token = &self.tokens[self.dice.below(self.tokens.len())];
        let request = Request::post("/introspect")
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(format!("token={token}")))
            .expect("well-formed");
        let response = now(self.endpoints.handle(request));
        assert!(response.body().starts_with(b"{\"active\":true"));
    }
}

async fn issue(issuer: Issuer, number: usize) -> String {
    let grant = Grant::user("web-app", format!("user-{number}")).expect("valid");
    let grant = grant.scope("orders:read").expect("valid");
    let tokens = issuer.issue(grant).await.expect("tokens");
    tokens.access_token.expose().to_owned()
}
