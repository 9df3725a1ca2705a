//! What a client has when its registration is deleted (RFC 7592 §2.3), whatever happens meanwhile.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::UnixTime;
use cloakroom::http::Registration;
use cloakroom::{
    Caller, Client, ClientDirectory, ClientId, DirectoryError, Format, Grant, Issuer,
    IssuerBuilder, RegisteredClient, RegisteredClients, RegistrationStore, Replaceable,
    StaticClients, TokenChanges, TokenError, TokenSecret,
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::registration::{ask, manages, public, registered, text};
use super::request::Reply;
use super::server::{CHALLENGE, Server};

const NOTES: &str = "https://notes.example/mcp";

type Step = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Registrations, and what happens right before one is deleted.
#[derive(Default)]
struct Table {
    rows: Mutex<HashMap<ClientId, (RegisteredClient, u64)>>,
    before_removal: Mutex<Option<Arc<Step>>>,
    removals: AtomicUsize,
    is_down: AtomicBool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

#[async_trait]
impl RegistrationStore for Table {
    async fn insert(&self, client: RegisteredClient, _: usize) -> Result<bool, DirectoryError> {
        self.rows.lock().unwrap().insert(client.id().clone(), (client, 0));
        Ok(true)
    }

    async fn find(&self, id: &ClientId) -> Result<Option<(RegisteredClient, u64)>, DirectoryError> {
        Ok(self.rows.lock().unwrap().get(id).cloned())
    }

    async fn update(&self, client: RegisteredClient) -> Result<bool, DirectoryError> {
        let mut rows = self.rows.lock().unwrap();
        Ok(rows.get_mut(&client.id().clone()).map(|row| row.0 = client).is_some())
    }

    async fn count_grant(&self, id: &ClientId, _: UnixTime) -> Result<bool, DirectoryError> {
        Ok(self.rows.lock().unwrap().get_mut(id).map(|row| row.1 += 1).is_some())
    }

    async fn remove(&self, id: &ClientId, grants: u64) -> Result<bool, DirectoryError> {
        self.removals.fetch_add(1, Ordering::SeqCst);
        let step = self.before_removal.lock().unwrap().clone();
        if let Some(step) = step {
            step().await;
        }
        if self.is_down.load(Ordering::SeqCst) {
            return Err(DirectoryError::new(io::Error::other("the database is down")));
        }
        let mut rows = self.rows.lock().unwrap();
        let is_unchanged = rows.get(id).is_some_and(|row| row.1 == grants);
        Ok(is_unchanged && rows.remove(id).is_some())
    }

    async fn make_room(&self, _: Replaceable) -> Result<bool, DirectoryError> {
        Ok(false)
    }
}

/// A directory that somebody wrote before grants were counted.
#[derive(Debug)]
struct Forgetful(Arc<RegisteredClients>);

#[async_trait]
impl ClientDirectory for Forgetful {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        self.0.client(id).await
    }
}

struct Fixture {
    server: Server,
    table: Arc<Table>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Format::Opaque, |clients| clients, |issuer| issuer).await
    }

    /// With tokens of this format, this directory of the issuer, and these settings.
    async fn with(
        format: Format,
        directory: impl FnOnce(Arc<RegisteredClients>) -> Arc<dyn ClientDirectory>,
        settings: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
    ) -> Self {
        let table = Arc::new(Table::default());
        let clients = RegisteredClients::new(StaticClients::default(), move |client, _| {
            Some(client.scope("notes:read").audience(NOTES, format.clone()))
        });
        let clients = Arc::new(clients.store(table.clone()));
        let directory = directory(clients.clone());
        let server = Server::with(|issuer| settings(issuer.clients(directory))).await;
        let registration = Registration::new(clients).limit(u32::MAX, Duration::from_secs(1));
        Self { server: server.mounted(|endpoints| endpoints.registration(registration)), table }
    }

    async fn register(&self) -> Value {
        registered(&self.server, &public()).await
    }

    async fn delete(&self, client: &Value) -> Reply {
        let access = text(client, "registration_access_token");
        self.server.send(ask("DELETE", &manages(client), &Value::Null, Some(access))).await
    }

    /// The clients in the log of revocations.
    async fn revoked(&self) -> Vec<ClientId> {
        let batch = self.server.store.revocations(Cursor::start(), 100).await.unwrap();
        let RevocationBatch::Entries { entries, .. } = batch else { panic!("{batch:?}") };
        let clients = entries.into_iter().filter_map(|entry| match entry.event {
            LogEvent::Revoked { target: Target::Client(client), .. } => Some(client),
            _ => None,
        });
        clients.collect()
    }

    /// From now on, the user signs in at the client right before it is deleted; the tokens of that.
    fn signs_in_meanwhile(&self, client: &Value, times: usize) -> Arc<Mutex<Vec<TokenSecret>>> {
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let (issuer, id) = (self.server.issuer().clone(), text(client, "client_id").to_owned());
        let got = tokens.clone();
        let step: Step = Box::new(move || {
            let (issuer, id, got) = (issuer.clone(), id.clone(), got.clone());
            Box::pin(async move {
                if got.lock().unwrap().len() < times {
                    let token = sign_in(&issuer, &id).await.unwrap();
                    got.lock().unwrap().push(token);
                }
            })
        });
        *self.table.before_removal.lock().unwrap() = Some(Arc::new(step));
        tokens
    }

    async fn is_active(&self, token: &TokenSecret) -> bool {
        let answer = self.server.issuer().introspect(token, Caller::Internal).await;
        answer.unwrap().is_active()
    }
}

async fn sign_in(issuer: &Issuer, client: &str) -> Result<TokenSecret, TokenError> {
    let tokens = issuer.issue(Grant::user(client, "alice").unwrap()).await?;
    Ok(tokens.access_token)
}

#[tokio::test]
async fn registering_and_deleting_in_a_loop_leaves_nothing_to_remember() {
    let fixture = Fixture::new().await;
    for _ in 0..20 {
        let client = fixture.register().await;
        // Anybody can ask for an authorization. Nobody lets the client in.
        let query = format!(
            "response_type=code&client_id={}&redirect_uri=http://127.0.0.1/callback\
             &code_challenge={CHALLENGE}&code_challenge_method=S256",
            text(&client, "client_id")
        );
        let issuer = fixture.server.issuer();
        drop(issuer.authorization_request(query.as_bytes()).await.unwrap().deny());
        assert_eq!(fixture.delete(&client).await.status, 204);
    }
    assert!(fixture.revoked().await.is_empty());
    assert!(fixture.table.rows.lock().unwrap().is_empty());

    // One that a user has let in is revoked, once.
    let client = fixture.register().await;
    let token = sign_in(fixture.server.issuer(), text(&client, "client_id")).await.unwrap();
    assert_eq!(fixture.delete(&client).await.status, 204);
    assert!(!fixture.is_active(&token).await);
    assert_eq!(fixture.revoked().await.len(), 1);
}

#[tokio::test]
async fn a_grant_that_is_made_while_the_registration_is_deleted_is_revoked() {
    for signed_in_before in [false, true] {
        for times in [1, 2, 15] {
            let fixture = Fixture::new().await;
            let client = fixture.register().await;
            let id = text(&client, "client_id");
            if signed_in_before {
                sign_in(fixture.server.issuer(), id).await.unwrap();
            }
            let tokens = fixture.signs_in_meanwhile(&client, times);
            assert_eq!(fixture.delete(&client).await.status, 204);
            let tokens = tokens.lock().unwrap().clone();
            assert_eq!(tokens.len(), times);
            for token in &tokens {
                assert!(!fixture.is_active(token).await, "{signed_in_before} {times}");
            }
            assert!(sign_in(fixture.server.issuer(), id).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_client_that_gets_grants_without_end_is_not_deleted_silently() {
    let fixture = Fixture::new().await;
    let client = fixture.register().await;
    let tokens = fixture.signs_in_meanwhile(&client, usize::MAX);
    assert_eq!(fixture.delete(&client).await.status, 503);
    // It can be asked again.
    *fixture.table.before_removal.lock().unwrap() = None;
    assert_eq!(fixture.delete(&client).await.status, 204);
    let tokens = tokens.lock().unwrap().clone();
    for token in &tokens {
        assert!(!fixture.is_active(token).await);
    }
}

#[tokio::test]
async fn a_deletion_that_ends_half_way_can_be_repeated() {
    let fixture = Fixture::new().await;
    let client = fixture.register().await;
    let token = sign_in(fixture.server.issuer(), text(&client, "client_id")).await.unwrap();
    fixture.table.is_down.store(true, Ordering::SeqCst);
    assert_eq!(fixture.delete(&client).await.status, 503);
    assert!(!fixture.is_active(&token).await);
    fixture.table.is_down.store(false, Ordering::SeqCst);
    assert_eq!(fixture.delete(&client).await.status, 204);
    assert_eq!(fixture.delete(&client).await.status, 401);
}

#[tokio::test]
async fn a_directory_that_does_not_count_is_not_relied_on() {
    let fixture =
        Fixture::with(Format::Opaque, |clients| Arc::new(Forgetful(clients)), |issuer| issuer)
            .await;
    let client = fixture.register().await;
    let before = sign_in(fixture.server.issuer(), text(&client, "client_id")).await.unwrap();
    let meanwhile = fixture.signs_in_meanwhile(&client, 1);
    assert_eq!(fixture.delete(&client).await.status, 204);
    let meanwhile = meanwhile.lock().unwrap().remove(0);
    for token in [before, meanwhile] {
        assert!(!fixture.is_active(&token).await);
    }
    assert_eq!(fixture.table.removals.load(Ordering::SeqCst), 1);
}

/// The hook holds a grant up, after it was counted and before it is written.
async fn held_up(format: Format, is_stateless: bool, follows_the_log: bool) {
    let (asked, goes_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (on_asked, on_goes_on) = (asked.clone(), goes_on.clone());
    let hooked = move |issuer: IssuerBuilder| {
        let issuer = if is_stateless { issuer.stateless_jwt() } else { issuer };
        issuer.on_token(move |_| {
            let (asked, goes_on) = (on_asked.clone(), on_goes_on.clone());
            async move {
                asked.add_permits(1);
                goes_on.acquire().await?.forget();
                Ok(TokenChanges::none())
            }
        })
    };
    let fixture = Fixture::with(format.clone(), |clients| clients, hooked).await;
    if follows_the_log {
        let issuer = fixture.server.issuer().clone();
        tokio::spawn(async move { issuer.run_maintenance().await });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    // Without a refresh token, a JWT can be stateless.
    let metadata = json!({
        "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
    });
    let client = registered(&fixture.server, &metadata).await;
    let issuer = fixture.server.issuer().clone();
    let id = text(&client, "client_id").to_owned();
    let signing_in = tokio::spawn(async move { sign_in(&issuer, &id).await });
    asked.acquire().await.unwrap().forget();
    assert_eq!(fixture.delete(&client).await.status, 204);
    // As often as it likes.
    goes_on.add_permits(100);
    let answer = signing_in.await.unwrap();
    assert!(answer.is_err(), "{format:?} {is_stateless} {follows_the_log}: {answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_begun_before_the_deletion_is_not_made_after_it() {
    for follows_the_log in [false, true] {
        held_up(Format::Opaque, false, follows_the_log).await;
        held_up(Format::Jwt, false, follows_the_log).await;
        held_up(Format::Jwt, true, follows_the_log).await;
    }
}
