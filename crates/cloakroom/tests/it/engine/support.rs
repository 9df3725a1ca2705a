//! An issuer to test: its store, its clock, its events, its clients.

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::handle::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::{
    ApprovedRequest, Caller, Client, ClientBuilder, CodeRequest, Event, EventSink, Format, Grant,
    GrantRefusal, GrantType, Issuer, IssuerBuilder, Pkce, RefreshRequest, Serves, TokenError,
    TokenResponse,
};
use sha2::{Digest as _, Sha256};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::store::ProbeStore;

pub(crate) const ISSUER: &str = "https://as.example";
/// A resource of phantom tokens, and the default of most clients.
pub(crate) const ORDERS: &str = "https://orders.example";
/// Another one of phantom tokens.
pub(crate) const BILLING: &str = "https://billing.example";
/// One of opaque tokens.
pub(crate) const REPORTS: &str = "https://reports.example";
/// One of JWTs.
pub(crate) const JOBS: &str = "https://jobs.example";

pub(crate) const CALLBACK: &str = "https://app.example/callback";
pub(crate) const CLIENT_SECRET: &str = "a-client-secret-of-the-tests-0123456789";
pub(crate) const VERIFIER: &str = "the-pkce-verifier-of-the-tests-0123456789-abcdef";
pub(crate) const START: UnixTime = UnixTime::from_millis(1_700_000_000_250);

pub(crate) const MINUTE: Duration = secs(60);
pub(crate) const HOUR: Duration = secs(3600);
pub(crate) const DAY: Duration = secs(86_400);
/// How long a spent refresh token may be sent again: the default window, and the clock skew.
pub(crate) const WINDOW: Duration = secs(35);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Everything that happened, in order; what was refused, apart.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    done: Mutex<Vec<Event>>,
    refused: Mutex<Vec<Event>>,
}

impl EventSink for Recorder {
    fn record(&self, event: &Event) {
        let events = match event {
            Event::GrantRefused { .. }
            | Event::TokenRefused { .. }
            | Event::AuthenticationFailed { .. } => &self.refused,
            _ => &self.done,
        };
        events.lock().unwrap().push(event.clone());
    }
}

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    /// What was refused since the last look.
    pub(crate) fn refused(&self) -> Vec<Event> {
        std::mem::take(&mut *self.refused.lock().unwrap())
    }

    /// What happened since the last look, by name.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |event: &Event| {
            let text = format!("{event:?}");
            let end = text.find([' ', '(']).unwrap_or(text.len());
            text[..end].to_owned()
        };
        self.take().iter().map(name).collect()
    }
}

pub(crate) struct Fixture {
    pub(crate) issuer: Issuer,
    pub(crate) store: Arc<ProbeStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) events: Arc<Recorder>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// With some settings of the test's own.
    pub(crate) async fn with(settings: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        hear_everything();
        let clock = Arc::new(ManualClock::at(START));
        let (store, events) = (ProbeStore::new(clock.clone()), Arc::new(Recorder::default()));
        let builder = builder(&store, &clock).events(events.clone());
        let issuer = settings(builder).build().await.unwrap();
        store.seen();
        // The first keys.
        events.take();
        Self { issuer, store, clock, events }
    }

    /// Another node over the same store, with a clock of its own.
    pub(crate) async fn node(&self, clock: &Arc<ManualClock>) -> Issuer {
        let builder = builder(&self.store, clock).events(self.events.clone());
        builder.build().await.unwrap()
    }

    /// Alice signs in at a client, with all that it may have.
    pub(crate) async fn sign_in(&self, client: &str) -> TokenResponse {
        let grant = Grant::user(client, "alice").unwrap();
        self.issuer.issue(grant).await.unwrap()
    }

    /// Alice signs in at `web-app`.
    pub(crate) async fn session(&self) -> Session {
        Session::of(self.sign_in("web-app").await)
    }

    /// A token of `web-app` for this resource, in the format that it has there.
    pub(crate) async fn token_for(&self, resource: &str) -> TokenResponse {
        let grant = Grant::user("web-app", "alice").unwrap();
        let grant = grant.audience(Audience::one(resource).unwrap());
        self.issuer.issue(grant).await.unwrap()
    }

    /// A code for `web-app`, bound to the callback and the verifier of the tests.
    pub(crate) async fn code(&self) -> TokenSecret {
        let grant = Grant::user("web-app", "alice").unwrap();
        self.issuer
            .authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()))
            .await
            .unwrap()
    }

    pub(crate) async fn redeem(&self, code: &TokenSecret) -> Result<TokenResponse, TokenError> {
        self.issuer.redeem(redemption(code)).await
    }

    /// `web-app` refreshes.
    pub(crate) async fn refresh(&self, token: &TokenSecret) -> Result<TokenResponse, TokenError> {
        self.issuer.refresh(refreshing(token)).await
    }

    pub(crate) async fn is_active(&self, token: &TokenSecret) -> bool {
        let answer = self.issuer.introspect(token, Caller::Internal).await;
        answer.unwrap().is_active()
    }

    pub(crate) async fn client(&self, id: &str) -> Arc<Client> {
        let found = self.issuer.clients().client(&client_id(id)).await;
        found.unwrap().unwrap()
    }

    /// How many sessions Alice has.
    pub(crate) async fn sessions(&self) -> usize {
        self.issuer.sessions(&alice()).await.unwrap().len()
    }
}

/// Keeps every trace switched on. A place that traces is switched off for good if a thread that
/// nobody listens to comes by it first; the tests that do listen, each on its own thread, would then
/// hear nothing from there.
pub(crate) fn hear_everything() {
    struct Deaf;
    impl Subscriber for Deaf {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &tracing::Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    static ONCE: Once = Once::new();
    // Whoever was faster listens to everything as well.
    ONCE.call_once(|| drop(tracing::subscriber::set_global_default(Deaf)));
}

/// The tokens of a session, both there.
pub(crate) struct Session {
    pub(crate) access: TokenSecret,
    pub(crate) refresh: TokenSecret,
}

impl Session {
    pub(crate) fn of(response: TokenResponse) -> Self {
        Self { access: response.access_token, refresh: response.refresh_token.unwrap() }
    }
}

pub(crate) fn builder(store: &Arc<ProbeStore>, clock: &Arc<ManualClock>) -> IssuerBuilder {
    Issuer::builder(ISSUER)
        .store(store.clone())
        .handle_keys(handles())
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .clock(clock.clone())
        .static_clients(clients())
        .unwrap()
}

/// The handle keys of every issuer of the tests.
pub(crate) fn handles() -> HandleKeys {
    HandleKeys::new(&HandleSecret::new(1, [1; 32])).for_issuer(ISSUER, &[])
}

fn clients() -> Vec<Client> {
    let app = |client: ClientBuilder| {
        client
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(CALLBACK)
            .scope("orders:read orders:write")
            .audience(ORDERS, Format::Phantom)
            .audience(BILLING, Format::Phantom)
            .audience(REPORTS, Format::Opaque)
            .audience(JOBS, Format::Jwt)
    };
    let confidential = |id: &str| {
        let client = Client::confidential(id, CLIENT_SECRET);
        app(client.grant_types([GrantType::ClientCredentials]))
    };
    let serves = |id: &str, serves| Client::resource_server(id, CLIENT_SECRET, serves);
    let only = |resource| Serves::Only(Audience::one(resource).unwrap());
    let clients = [
        confidential("web-app"),
        confidential("other-app"),
        confidential("workers").without_rotation(),
        confidential("oidc-app").without_pkce(),
        app(Client::public("spa-app")),
        serves("orders-api", only(ORDERS)),
        serves("billing-api", only(BILLING)),
        serves("jobs-api", only(JOBS)),
        serves("gateway", Serves::Everything),
    ];
    clients.map(|client| client.build().unwrap()).into()
}

pub(crate) fn challenge() -> Pkce {
    Pkce::s256(URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))).unwrap()
}

/// The right redemption of a code of `web-app`.
pub(crate) fn redemption(code: &TokenSecret) -> CodeRequest {
    redemption_by("web-app", code)
}

pub(crate) fn redemption_by(client: &str, code: &TokenSecret) -> CodeRequest {
    CodeRequest::new(code.clone(), client_id(client))
        .redirect_uri(CALLBACK.to_owned())
        .verifier(TokenSecret::new(VERIFIER))
}

pub(crate) fn refreshing(token: &TokenSecret) -> RefreshRequest {
    RefreshRequest::new(token.clone(), client_id("web-app"))
}

pub(crate) fn client_id(id: &str) -> ClientId {
    ClientId::new(id).unwrap()
}

pub(crate) fn alice() -> Subject {
    Subject::user("alice").unwrap()
}

/// Why a code or a refresh token was refused.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, TokenError>) -> GrantRefusal {
    match result {
        Err(TokenError::InvalidGrant(refusal)) => refusal,
        other => panic!("not refused, but {other:?}"),
    }
}

/// The grant that a handle belongs to.
pub(crate) fn grant_of(token: &TokenSecret) -> GrantId {
    let (handles, text) = (handles(), token.expose());
    let chain = |kind| handles.parse_chain(kind, text).map(|handle| handle.grant);
    handles
        .parse_access(text)
        .map(|handle| handle.grant)
        .or_else(|| chain(ChainKind::Refresh))
        .or_else(|| chain(ChainKind::Code))
        .unwrap()
}

/// The claims of a JWT, unchecked.
pub(crate) fn claims(jwt: &TokenSecret) -> serde_json::Value {
    let payload = jwt.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Another character in the place of the one at `at`.
pub(crate) fn tampered(token: &TokenSecret, at: usize) -> TokenSecret {
    let mut text = token.expose().to_owned();
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    text.replace_range(at..=at, other);
    TokenSecret::new(text)
}
