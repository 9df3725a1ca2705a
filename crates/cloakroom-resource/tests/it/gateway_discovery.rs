//! A gateway that finds all it needs by the URL of the issuer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::{GrantId, Random};
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{
    ClientCredentials, Cursor, PhantomLayer, RevocationLog as _, SetupError, StoreLog,
};
use serde_json::{Value, json};

use crate::phantom::{send, status};
use crate::replica_log::store;
use crate::support::{AUDIENCE, Key, respond, serve};

const BASIC: &str = "Basic Z2F0ZXdheTpzM2NyZXQ=";

/// An authorization server, and what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the server has, or does wrong.
struct Has {
    store: Arc<MemoryStore>,
    keys: HandleKeys,
    jwt: String,
    /// A member that its metadata lack.
    lacks: &'static str,
    log: u16,
}

impl Has {
    async fn all() -> Self {
        Self {
            store: store(),
            keys: HandleKeys::new(&HandleSecret::new(1, [1; 32])),
            jwt: Key::new().token().await,
            lacks: "",
            log: 200,
        }
    }

    async fn answer(&self, at: &str, request: Request) -> Response {
        let json = |body: String| respond(200, "application/json", &body);
        let is_client = request.headers().get("authorization").is_some_and(|value| value == BASIC);
        match request.uri().path() {
            "/.well-known/oauth-authorization-server" => json(self.metadata(at).to_string()),
            _ if !is_client => respond(401, "", ""),
            "/handle-keys" => json(self.keys.access_keys().to_json().to_string()),
            "/introspect" => respond(200, "application/jwt", &self.jwt),
            "/revocations" if self.log == 200 => {
                let log = StoreLog::new(self.store.clone()).heartbeat(Duration::from_secs(2));
                let page = log.read(Cursor::start(), Duration::ZERO).await.unwrap();
                json(String::from_utf8(page.to_json()).unwrap())
            }
            "/revocations" => respond(self.log, "", ""),
            _ => respond(404, "", ""),
        }
    }

    fn metadata(&self, at: &str) -> Value {
        let mut metadata = json!({ "issuer": at });
        for (member, path) in [
            ("introspection_endpoint", "introspect"),
            ("revocations_endpoint", "revocations"),
            ("handle_keys_endpoint", "handle-keys"),
        ] {
            if member != self.lacks {
                metadata[member] = json!(format!("{at}/{path}"));
            }
        }
        metadata
    }

    async fn start(self) -> Server {
        let (has, asked) = (Arc::new(self), Arc::new(Mutex::new(Vec::new())));
        let app = {
            let asked = Arc::clone(&asked);
            Router::new().fallback(move |request: Request| {
                asked.lock().unwrap().push(request.uri().path().to_owned());
                let has = Arc::clone(&has);
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                async move { has.answer(&format!("http://{host}"), request).await }
            })
        };
        let (url, task) = serve(app).await;
        Server { url, asked, task }
    }
}

impl Server {
    async fn gateway(&self) -> Result<PhantomLayer, SetupError> {
        let credentials = ClientCredentials::new("gateway", "s3cret");
        PhantomLayer::discover(&self.url, AUDIENCE, credentials).await
    }

    fn count(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }
}

#[tokio::test]
async fn one_call_finds_all_that_a_gateway_needs() {
    let has = Has::all().await;
    let random = Random::system();
    let (handle, _) = has.keys.mint_access(GrantId::random(&random).unwrap(), &random).unwrap();
    let server = has.start().await;
    let layer = server.gateway().await.unwrap();
    assert_eq!(server.count("/.well-known/oauth-authorization-server"), 1);
    assert!(server.count("/revocations") >= 1, "the log is followed");

    let bearer = format!("Bearer {}", handle.expose());
    let through = send(&layer, &[("authorization", &bearer)]).await.unwrap();
    assert_ne!(through["authorization"], *bearer, "it was swapped");
    let invented = [("authorization", "Bearer cr_at_invented")];
    assert_eq!(status(&send(&layer, &invented).await), 401);
    assert_eq!(server.count("/handle-keys"), 1);
    assert_eq!(server.count("/introspect"), 1, "the keys refused the other one");

    // A token that the server has adopted.
    let adopted = [("authorization", "Bearer of-another-server")];
    assert_eq!(status(&send(&layer, &adopted).await), 401);
    let through = send(&layer.introspect_other_tokens(), &adopted).await.unwrap();
    assert_ne!(through["authorization"], *adopted[0].1, "it was swapped");
    assert_eq!(server.count("/introspect"), 2);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for lacks in ["introspection_endpoint", "revocations_endpoint", "handle_keys_endpoint"] {
        let server = Has { lacks, ..Has::all().await }.start().await;
        let error = server.gateway().await.unwrap_err();
        assert!(matches!(error, SetupError::Missing(member) if member == lacks), "{error:?}");
    }
    for log in [403, 500] {
        let server = Has { log, ..Has::all().await }.start().await;
        let error = server.gateway().await.unwrap_err();
        assert!(matches!(error, SetupError::Log(_)), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(&log.to_string()), "{source}");
    }
}
