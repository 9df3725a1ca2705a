//! JWT access tokens (RFC 9068), checked here and now.

pub(crate) mod cached;
pub(crate) mod jwks;
pub(crate) mod proof;
pub(crate) mod token;
pub(crate) mod unverified;

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{Confirmation, TokenSecret};
use cloakroom_jwt::{JwkSet, KeySet};

use crate::cache::JwtCache;
use crate::client::discovery::Metadata;
use crate::client::endpoint::Endpoint;
use crate::client::http::HttpClient;
use crate::error::{SetupError, TokenError, UnavailableError};
use crate::freshness;
use crate::metrics::{Event, Of, count};
use crate::replica::RevocationReplica;
use crate::verify::cached::{GoodJwt, JwtTerms};
use crate::verify::jwks::{CurrentKeys, FetchedKeys};
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;
use cloakroom_core::time::ClockReading;

/// Verifies the JWT access tokens that one issuer made for one audience. Cheap to clone; clones
/// share the JWK Set, and what they remember.
///
/// [`Verifier::discover`] is all that most services need: it finds the JWK Set through the
/// issuer's metadata (RFC 8414).
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{TokenSecret, Verifier};
///
/// let verifier = Verifier::discover("https://as.example", "https://orders.example").await?;
/// let token = verifier.verify(&TokenSecret::new("eyJ...")).await?;
/// assert!(token.has_scope("orders:read"));
/// # Ok(()) }
/// ```
///
/// A fetched JWK Set is kept as long as its `Cache-Control: max-age` says, within 30 s and 24 h,
/// or 1 h if it says nothing, counted from when it was asked for. It is fetched again ahead of its
/// end, in the background, and by one request at a time. A token under a key that is not in the
/// set causes at most one fetch in 30 s. When the set has ended and none can be fetched, tokens
/// are [`TokenError::Unavailable`], never invalid.
///
/// A signature says nothing of revocation: by itself, a verifier accepts a JWT until it expires.
/// With a [`replica`](Self::replica) of the revocation log, JWTs die when they are revoked.
///
/// With keys at hand nothing is fetched:
///
/// ```
/// use cloakroom_resource::jwt::{ACCESS_TOKEN_TYP, Algorithm, SigningKey, sign_jwt};
/// use cloakroom_resource::{Clock, JwkSet, SystemClock, TokenError, TokenSecret, Verifier};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate(Algorithm::Es256)?;
/// let keys = JwkSet::new(vec![key.public_jwk().clone()]);
/// let verifier = Verifier::with_keys("https://as.example", "https://orders.example", &keys);
///
/// let now = SystemClock::new().now().as_secs();
/// let claims = json!({
///     "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
///     "client_id": "web-app", "iat": now, "exp": now + 300, "jti": "1", "scope": "orders:read",
/// });
/// let jwt = sign_jwt(&key, ACCESS_TOKEN_TYP, &claims).await?;
///
/// let token = verifier.verify(&jwt).await?;
/// assert_eq!(token.subject().unwrap().id(), "alice");
///
/// let damaged = TokenSecret::new(format!("{}A", jwt.expose()));
/// assert!(matches!(verifier.verify(&damaged).await, Err(TokenError::Invalid(_))));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Verifier {
    issuer: Arc<str>,
    audience: Arc<str>,
    checks: cloakroom_jwt::Verifier,
    clock: Arc<dyn Clock>,
    leeway: Duration,
    trusts_gateway: bool,
    keys: Keys,
    cache: Option<JwtCache>,
    replica: Option<RevocationReplica>,
}

#[derive(Debug, Clone)]
enum Keys {
    Static(CurrentKeys),
    Fetched(Arc<FetchedKeys>),
}

impl Verifier {
    /// A verifier over the JWK Set that the issuer's metadata names, with the built-in HTTP
    /// client. The metadata is fetched once, now; the JWK Set with the first token.
    ///
    /// `issuer` is the issuer's identifier exactly as it stands in its tokens, down to a trailing
    /// slash. It must be `https`, or `http` on this machine.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable `jwks_uri`. What
    /// went wrong is in the error and its sources; print them all, not the `Debug` of the error:
    ///
    /// ```
    /// # use cloakroom_resource::Verifier;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let result = Verifier::discover("http://127.0.0.1:1", "https://orders.example").await;
    /// let error = result.expect_err("nobody listens");
    ///
    /// let mut next: Option<&dyn std::error::Error> = Some(&error);
    /// while let Some(error) = next {
    ///     eprintln!("{error}");
    ///     next = error.source();
    /// }
    /// # }
    /// ```
    #[cfg(feature = "client")]
    pub async fn discover(issuer: &str, audience: &str) -> Result<Self, SetupError> {
        Self::discover_with(issuer, audience, crate::ReqwestClient::new()?).await
    }

    /// Like `discover`, with an HTTP client of the app's own.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable `jwks_uri`.
    pub async fn discover_with(
        issuer: &str,
        audience: &str,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let jwks_uri = Metadata::fetch(issuer, &*client).await?.jwks_uri()?;
        Self::fetched(issuer, audience, &jwks_uri, client)
    }

    /// A verifier over the JWK Set at `jwks_uri`, for an issuer without metadata. Fetched with the
    /// first token.
    ///
    /// # Errors
    ///
    /// If `jwks_uri` is no URL, or neither `https` nor on this machine.
    pub fn fetching(
        issuer: &str,
        audience: &str,
        jwks_uri: &str,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let jwks_uri = Endpoint::parse("jwks_uri", jwks_uri)?;
        Self::fetched(issuer, audience, &jwks_uri, Arc::new(client))
    }

    /// A verifier over keys at hand.
    #[must_use]
    pub fn with_keys(issuer: &str, audience: &str, keys: &JwkSet) -> Self {
        let keys = CurrentKeys { keys: KeySet::prepare(keys), version: 0 };
        Self::new(issuer, audience, Keys::Static(keys))
    }

    fn fetched(
        issuer: &str,
        audience: &str,
        jwks_uri: &Endpoint,
        client: Arc<dyn HttpClient>,
    ) -> Result<Self, SetupError> {
        let keys = FetchedKeys::new(client, jwks_uri.uri("jwks_uri")?);
        Ok(Self::new(issuer, audience, Keys::Fetched(keys)))
    }

    fn new(issuer: &str, audience: &str, keys: Keys) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            checks: cloakroom_jwt::Verifier::new(issuer, audience).clock(Arc::clone(&clock)),
            clock,
            leeway: Duration::ZERO,
            trusts_gateway: false,
            keys,
            cache: None,
            replica: None,
        }
        .leeway(Duration::from_secs(30))
    }

    /// Takes the time from this clock. Set it before the first token.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.checks = self.checks.clock(Arc::clone(&clock));
        self.clock = clock;
        self
    }

    /// How far the issuer's clock and this one may be apart: 30 s by default, 2 min at most.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(cloakroom_jwt::Verifier::MAX_LEEWAY);
        self.checks = self.checks.leeway(self.leeway);
        self
    }

    /// Remembers this many JWTs that it has accepted, so that the signature of each is verified
    /// once; zero remembers none. A JWT of more than a KiB counts as one for each KiB begun.
    ///
    /// What may change is asked for each time: the time, the proof of a key, the JWK Set (when it
    /// changes, every JWT is verified anew), and the [`replica`](Self::replica). An ordinary JWT
    /// takes about 2 KB. JWTs that were refused are not remembered.
    #[must_use]
    pub fn cache(mut self, jwts: usize) -> Self {
        self.cache = (jwts > 0).then(|| JwtCache::new(jwts));
        self
    }

    /// Refuses the JWTs that this replica of the revocation log says are revoked.
    ///
    /// Where no [`Freshness`](crate::Freshness) is named, the replica may be 10 s behind, or a
    /// second more than it is while nothing is wrong, if that is longer. If it is further behind, a
    /// JWT can no longer be told from a revoked one: [`UnavailableError::Stale`], unless it was issued so
    /// lately that its age alone meets that. [`BearerLayer`](crate::BearerLayer) names others, and
    /// can ask the authorization server instead.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.replica = Some(replica);
        self
    }

    /// **Switches the check of proofs off for the JWTs that a gateway swapped.** Such a phantom JWT
    /// (it has `handle_hash`) is then accepted although it is bound to a key (`cnf`), as `Bearer`,
    /// whatever is proved: its proof was about the handle, and only the gateway could check it.
    /// Bound JWTs of any other kind still need their proof.
    ///
    /// Only for a service that clients cannot reach but through gateways which check proofs, such
    /// as [`PhantomLayer`](crate::PhantomLayer). To anybody else who gets hold of a phantom JWT, or
    /// may swap a handle without a proof, a bound token is a bearer token here.
    #[must_use]
    pub const fn trust_gateway_proofs(mut self) -> Self {
        self.trusts_gateway = true;
        self
    }

    /// Verifies a JWT: form, signature, issuer, audience, times, and that the replica does not
    /// know it to be revoked.
    ///
    /// A token bound to a key (`cnf`) is refused: see [`verify_with`](Self::verify_with).
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token fails a check, or is revoked;
    /// [`TokenError::Unavailable`] if there are no keys to tell, or if the replica is too far
    /// behind.
    pub async fn verify(&self, token: &TokenSecret) -> Result<VerifiedToken, TokenError> {
        self.verify_with(token, None).await
    }

    /// Verifies a JWT that came with a proof of this key: one that is bound must be bound to it.
    /// The caller has verified the proof, and sees to it that a token bound by `DPoP` came in the
    /// scheme `DPoP` (RFC 9449 §7.2), as [`BearerLayer`](crate::BearerLayer) does.
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token fails a check, or is revoked;
    /// [`TokenError::Unavailable`] if there are no keys to tell, or if the replica is too far
    /// behind.
    pub async fn verify_with(
        &self,
        token: &TokenSecret,
        proved: Option<&Confirmation>,
    ) -> Result<VerifiedToken, TokenError> {
        let token = token.expose();
        let (now, replica) = (ClockReading::now(&*self.clock), self.replica.as_ref());
        let proof = Proof { scheme: None, key: proved.cloned() };
        let freshness = freshness::default_of(replica);
        let terms = JwtTerms { proof: &proof, freshness, replica, now };
        let key = self.cache_key(token);
        let jwt = match key.and_then(|key| self.look_up(&key, terms)) {
            Some(found) => found?,
            // On the heap: the future of a call that is answered from memory stays small.
            None => Box::pin(self.verify_and_decide(token, key.as_ref(), terms)).await?,
        };
        match jwt {
            GoodJwt::Fresh(token) => Ok(token),
            GoodJwt::NotFresh(..) => {
                count(Of::Jwt, Event::StaleRefusal);
                Err(UnavailableError::Stale.into())
            }
        }
    }

    pub(crate) fn own_replica(&self) -> Option<&RevocationReplica> {
        self.replica.as_ref()
    }

    pub(crate) fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    pub(crate) fn audience(&self) -> &Arc<str> {
        &self.audience
    }

    pub(crate) fn own_clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

/// Whether a token has the three segments of a JWT. Handles have no dot.
pub(crate) fn is_jwt_shaped(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}
