//! A primary and its replica: what is lost when the replica takes over, and what the servers do.
//!
//! The tests start both by themselves, from the programs of PostgreSQL and MariaDB on this machine.

pub(crate) mod servers;
mod with_mysql;
mod with_postgres;

use std::sync::{Arc, Mutex};

use cloakroom::core::TokenSecret;
use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::TokenStore;
use cloakroom::{
    Caller, Event, EventSink, Grant, Introspection, Issuer, TokenError, TokenResponse,
};
use tokio::sync::watch;

use crate::failover::load;

/// Keeps what a server reports.
#[derive(Debug)]
struct Sink {
    events: Mutex<Vec<Event>>,
    count: watch::Sender<usize>,
}

impl EventSink for Sink {
    fn record(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Sink {
    fn new() -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), count: watch::Sender::new(0) })
    }

    fn regressions(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::StoreRegressed { .. })).count()
    }

    async fn until_regressed(&self) {
        let mut changes = self.count.subscribe();
        while self.regressions() == 0 {
            changes.changed().await.unwrap();
        }
    }
}

/// An authorization server with its maintenance.
async fn server<S: TokenStore + KeyStore>(store: S) -> (Issuer, Arc<Sink>) {
    let sink = Sink::new();
    let issuer = load::server(store, sink.clone()).await;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    (issuer, sink)
}

/// Until the server vouches again.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, TokenError>>,
{
    loop {
        match call().await {
            Ok(value) => return value,
            Err(TokenError::Unavailable(_) | TokenError::Store(_)) => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn log_in(issuer: &Issuer, user: &str) -> TokenResponse {
    patiently(|| issuer.issue(Grant::user(load::APP, user).unwrap())).await
}

async fn is_active(issuer: &Issuer, response: &TokenResponse) -> bool {
    let token = TokenSecret::new(response.access_token.expose().to_owned());
    let answer = patiently(|| issuer.introspect(&token, Caller::Internal)).await;
    matches!(answer, Introspection::Active(_))
}
