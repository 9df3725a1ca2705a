//! Tokens for the tests of an app that checks them, without a network and without waiting.
//!
//! A [`TestIssuer`] keeps everything in memory, and its clock moves only when the test moves it. Your
//! app gets its [`BearerLayer`] or its [`Verifier`], and the test gets tokens of any shape:
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use cloakroom::resource::{BearerLayer, VerifiedToken};
//! use cloakroom::{TokenSecret, testing::TestIssuer};
//! use tower::ServiceExt as _;
//!
//! // Your app: where its tokens come from is a parameter.
//! fn app(bearer: BearerLayer) -> Router {
//!     let orders = get(async |token: VerifiedToken| format!("{:?}", token.subject()));
//!     Router::new().route("/orders", orders).route_layer(bearer)
//! }
//!
//! // Its tests.
//! let test = TestIssuer::new("https://orders.example").await?;
//! let app = app(test.bearer().require_scope("orders:read")?);
//! let status = async |token: &TokenSecret| {
//!     let request = Request::get("/orders").header("authorization", format!("Bearer {}", token.expose()));
//!     app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
//! };
//!
//! let token = test.token("alice").scope("orders:read").handle().await?;
//! assert_eq!(status(&token).await, 200);
//! assert_eq!(status(&test.token("alice").jwt().await?).await, 403, "it lacks the scope");
//! assert_eq!(status(&test.token("alice").expired().jwt().await?).await, 401);
//!
//! test.clock().advance(Duration::from_secs(3_600));
//! assert_eq!(status(&token).await, 401, "it has expired");
//! # Ok(()) }
//! # #[cfg(not(feature = "axum"))]
//! # fn main() {}
//! ```
//!
//! Add the feature to the dev-dependencies only: a release build must not contain an issuer that signs
//! for everyone.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::format::FormatError;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::record::Claims;
use cloakroom_core::time::{Clock as _, ManualClock, UnixTime};
use cloakroom_core::{
    ActiveToken, Audience, ClientId, Confirmation, GrantId, InvalidValue, Jti, Random, Scope,
    Subject, TokenSecret,
};
use cloakroom_jwt::{ACCESS_TOKEN_TYP, AesGcmSealer, JwkSet, sign_jwt};
use cloakroom_memory::{MemorySingleUse, MemoryStore};
use cloakroom_resource::{BearerLayer, Verifier};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::client::directory::{ClientDirectory, DirectoryError};
use crate::client::registration::Format;
use crate::error::{BuildError, TokenError};
use crate::flow::request::Grant;
use crate::issuer::Issuer;

/// The URL of the issuer.
const ISSUER: &str = "https://as.example";
/// What the clock shows at first: 2030-01-01.
const START: UnixTime = UnixTime::from_secs(1_893_456_000);
/// The lifetime of a token.
const LIFE: Duration = Duration::from_secs(600);
/// How long ago an expired token expired, and how far away a token that is not yet valid is. Longer
/// than the leeway of any verifier.
const FAR: Duration = Duration::from_secs(600);

/// An issuer for tests: see the [module](self).
pub struct TestIssuer {
    issuer: Issuer,
    clock: Arc<ManualClock>,
    /// Another node over the same store, whose clock is set for each handle.
    past: tokio::sync::Mutex<(Issuer, Arc<ManualClock>)>,
    clients: Arc<AnyClient>,
    audience: String,
}

impl TestIssuer {
    /// An issuer (`https://as.example`) for the tests of the API whose name in `aud` is `audience`. Its
    /// clock shows 2030-01-01 00:00 UTC.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub async fn new(audience: impl Into<String>) -> Result<Self, BuildError> {
        let clock = Arc::new(ManualClock::at(START));
        let past_clock = Arc::new(ManualClock::at(START));
        let clients = Arc::new(AnyClient::default());
        let store = Arc::new(MemoryStore::new());
        let single_use = Arc::new(MemorySingleUse::new());
        let random = |error| BuildError::Setting { setting: "random", why: format!("{error}") };
        let secret = HandleSecret::random(1, &Random::system()).map_err(random)?;
        let sealer = Arc::new(AesGcmSealer::random().map_err(random)?);
        let node = async |clock: &Arc<ManualClock>| {
            Issuer::builder(ISSUER)
                .store(Arc::clone(&store))
                .single_use(Arc::clone(&single_use) as Arc<_>)
                .handle_keys(HandleKeys::new(&secret))
                .sealer(Arc::clone(&sealer) as Arc<_>)
                .clients(Arc::clone(&clients) as Arc<_>)
                .clock(Arc::clone(clock) as Arc<_>)
                .build()
                .await
        };
        let issuer = node(&clock).await?;
        let past = tokio::sync::Mutex::new((node(&past_clock).await?, past_clock));
        Ok(Self { issuer, clock, past, clients, audience: audience.into() })
    }

    /// The issuer, for example to revoke: `test.issuer().revoke_subject(…)`. Its endpoints work, too.
    /// It knows the clients of the tokens that were made.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The clock of the issuer, of [`bearer`](Self::bearer) and of [`verifier`](Self::verifier).
    #[must_use]
    pub const fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// A layer that accepts the handles and the JWTs of this issuer for the API, and sees every
    /// revocation at once.
    #[must_use]
    pub fn bearer(&self) -> BearerLayer {
        self.issuer.protect(&self.audience)
    }

    /// A verifier that accepts the JWTs of this issuer for the API, with the keys of this moment. Like
    /// every verifier without a replica, it does not see revocations.
    ///
    /// # Errors
    ///
    /// If the keys cannot be loaded.
    pub async fn verifier(&self) -> Result<Verifier, TokenError> {
        let jwks = self.issuer.jwks().await?;
        let keys = JwkSet::from_json(jwks.json.as_bytes())
            .map_err(|error| FormatError::Other(error.into()))?;
        let verifier = Verifier::with_keys(ISSUER, &self.audience, &keys);
        Ok(verifier.clock(Arc::clone(&self.clock) as Arc<_>))
    }

    /// A token for this user. Without further calls it is valid for ten minutes at the API, belongs to
    /// the client `app`, and has no scope.
    pub fn token(&self, user: impl AsRef<str>) -> TestToken<'_> {
        TestToken::new(self, "app".to_owned(), Some(user.as_ref().to_owned()))
    }

    /// A token that a client has for itself (`client_credentials`).
    pub fn client_token(&self, client: impl AsRef<str>) -> TestToken<'_> {
        TestToken::new(self, client.as_ref().to_owned(), None)
    }
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestIssuer")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// A token to be made. End it with [`handle`](Self::handle) or [`jwt`](Self::jwt).
#[derive(Debug, Clone)]
#[must_use = "it makes no token before `handle` or `jwt`"]
pub struct TestToken<'a> {
    test: &'a TestIssuer,
    client: String,
    /// `None` for the client itself.
    user: Option<String>,
    scope: String,
    audience: Vec<String>,
    claims: Vec<(String, Value)>,
    /// Claims of a JWT as they are; `null` removes one.
    raw_claims: Map<String, Value>,
    auth_time: Option<UnixTime>,
    acr: Option<String>,
    confirmation: Option<Confirmation>,
    time: Time,
    revoked: bool,
    forged: bool,
}

/// When a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Now,
    Past,
    Future,
}

impl<'a> TestToken<'a> {
    fn new(test: &'a TestIssuer, client: String, user: Option<String>) -> Self {
        Self {
            client,
            user,
            scope: String::new(),
            audience: vec![test.audience.clone()],
            claims: Vec::new(),
            raw_claims: Map::new(),
            auth_time: None,
            acr: None,
            confirmation: None,
            time: Time::Now,
            revoked: false,
            forged: false,
            test,
        }
    }

    /// The client that has the token.
    pub fn client(mut self, client: impl Into<String>) -> Self {
        self.client = client.into();
        self
    }

    /// The scope: names separated by spaces.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// The resources, in place of the API. A token for another resource must be refused.
    pub fn audience(mut self, resources: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.audience = resources.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a custom claim.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }

    /// Sets any claim of a JWT without a check, such as `iss`, or removes it with `null`.
    pub fn raw_claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.raw_claims.insert(name.into(), value.into());
        self
    }

    /// When the user signed in (`auth_time`).
    pub const fn auth_time(mut self, auth_time: UnixTime) -> Self {
        self.auth_time = Some(auth_time);
        self
    }

    /// How the user signed in (`acr`).
    pub fn acr(mut self, acr: impl Into<String>) -> Self {
        self.acr = Some(acr.into());
        self
    }

    /// Binds the token to a key or a certificate (`cnf`). It passes only with a proof of that key.
    pub fn bound_to(mut self, key: Confirmation) -> Self {
        self.confirmation = Some(key);
        self
    }

    /// Makes a token that expired ten minutes ago.
    pub const fn expired(mut self) -> Self {
        self.time = Time::Past;
        self
    }

    /// Makes a JWT that becomes valid in ten minutes (`nbf`).
    pub const fn not_yet_valid(mut self) -> Self {
        self.time = Time::Future;
        self
    }

    /// Makes a token, and revokes it.
    pub const fn revoked(mut self) -> Self {
        self.revoked = true;
        self
    }

    /// Makes a token whose tag or signature is wrong.
    pub const fn forged(mut self) -> Self {
        self.forged = true;
        self
    }

    /// Makes the token as a handle, which gateways may swap.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if a value is invalid, or if only a JWT can have this shape.
    pub async fn handle(self) -> Result<TokenSecret, TokenError> {
        if self.time == Time::Future || !self.raw_claims.is_empty() {
            return Err(TokenError::InvalidRequest("only a JWT can have this shape"));
        }
        let (client, subject) = self.parties()?;
        let (scope, audience) = self.target()?;
        self.test.clients.register(&client, &scope, &audience);
        let mut grant = Grant::new(client.clone(), subject).audience(audience);
        grant.scope = Some(scope);
        grant.claims = valid(Claims::new(self.claims.clone()))?;
        grant.auth_time = self.auth_time;
        grant.acr.clone_from(&self.acr);
        grant.confirmation.clone_from(&self.confirmation);
        let response = if self.time == Time::Past {
            let past = self.test.past.lock().await;
            past.1.set(self.issued_at());
            past.0.issue(grant).await?
        } else {
            self.test.issuer.issue(grant).await?
        };
        self.finish(response.access_token, &client).await
    }

    /// Makes the token as a JWT (RFC 9068).
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if a value is invalid.
    pub async fn jwt(self) -> Result<TokenSecret, TokenError> {
        let issuer = &self.test.issuer;
        let (client, subject) = self.parties()?;
        let (scope, audience) = self.target()?;
        self.test.clients.register(&client, &scope, &audience);
        // The keys rotate with the clock of the test.
        issuer.maintain().await?;
        let random = Random::system();
        let issued_at = self.issued_at();
        let mut token = ActiveToken::default();
        token.issuer = Some(ISSUER.into());
        token.client = Some(client.clone());
        token.subject = Some(subject);
        token.scope = scope;
        token.audience = Some(audience);
        token.issued_at = Some(issued_at);
        token.expires_at = Some(issued_at + LIFE);
        token.not_before = (self.time == Time::Future).then_some(issued_at);
        token.jti = Some(Jti::random(&random).map_err(FormatError::from)?);
        token.grant = Some(GrantId::random(&random).map_err(FormatError::from)?);
        token.epoch = Some(issuer.epoch().await?);
        token.auth_time = self.auth_time;
        token.acr.clone_from(&self.acr);
        token.confirmation.clone_from(&self.confirmation);
        let own = valid(Claims::new(self.claims.clone()))?;
        token.extra = own.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        let claims = serde_json::to_value(&token);
        let mut claims = claims.map_err(|error| FormatError::Other(error.into()))?;
        // No grant is stored for it.
        claims["stateless"] = true.into();
        for (name, value) in &self.raw_claims {
            claims[name.as_str()] = value.clone();
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.retain(|_, value| !value.is_null());
        }
        let signer = issuer.keys().signer().await?;
        let jwt = sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await?;
        self.finish(jwt, &client).await
    }

    fn parties(&self) -> Result<(ClientId, Subject), TokenError> {
        let client = valid(ClientId::new(&self.client))?;
        let subject = match &self.user {
            Some(user) => valid(Subject::user(user))?,
            None => Subject::Client(client.clone()),
        };
        Ok((client, subject))
    }

    fn target(&self) -> Result<(Scope, Audience), TokenError> {
        let audience = valid(Audience::new(&self.audience))?;
        Ok((valid(Scope::parse(&self.scope))?, audience))
    }

    fn issued_at(&self) -> UnixTime {
        let now = self.test.clock.now();
        match self.time {
            Time::Now => now,
            Time::Past => now - LIFE - FAR,
            Time::Future => now + FAR,
        }
    }

    async fn finish(
        &self,
        token: TokenSecret,
        client: &ClientId,
    ) -> Result<TokenSecret, TokenError> {
        if self.revoked {
            self.test.issuer.revoke(&token, client).await?;
        }
        Ok(if self.forged { tampered(&token) } else { token })
    }
}

fn valid<T>(value: Result<T, InvalidValue>) -> Result<T, TokenError> {
    value.map_err(|invalid| TokenError::InvalidRequest(invalid.why))
}

/// The token with another character near its end, which belongs to the tag or the signature.
fn tampered(token: &TokenSecret) -> TokenSecret {
    let at = token.expose().len().saturating_sub(10);
    let change =
        |(index, char)| if index == at { if char == 'A' { 'B' } else { 'A' } } else { char };
    TokenSecret::new(token.expose().char_indices().map(change).collect::<String>())
}

/// A directory that registers a client as soon as a token needs it.
#[derive(Debug, Default)]
struct AnyClient(Mutex<HashMap<ClientId, Registered>>);

/// What the tokens of a client have had, together.
#[derive(Debug, Default)]
struct Registered {
    scope: BTreeSet<String>,
    audiences: BTreeSet<String>,
}

impl AnyClient {
    fn register(&self, client: &ClientId, scope: &Scope, audience: &Audience) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = clients.entry(client.clone()).or_default();
        registered.scope.extend(scope.iter().map(str::to_owned));
        registered.audiences.extend(audience.iter().map(str::to_owned));
    }
}

#[async_trait]
impl ClientDirectory for AnyClient {
    async fn client(&self, id: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(registered) = clients.get(id) else { return Ok(None) };
        let scope: Vec<&str> = registered.scope.iter().map(String::as_str).collect();
        let client = registered
            .audiences
            .iter()
            .fold(Client::public(id), |client, resource| client.audience(resource, Format::Phantom))
            .scope(&scope.join(" "));
        Ok(Some(Arc::new(client.build().map_err(DirectoryError::new)?)))
    }
}
