//! Verifies JWT access tokens (RFC 9068).

pub(crate) mod cached;
pub(crate) mod jwks;
pub(crate) mod proof;
pub(crate) mod token;
pub(crate) mod unverified;

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{Confirmation, TokenSecret};
use cloakroom_jwt::{IssuerProfile, JwkSet, KeySet};

use crate::cache::JwtCache;
use crate::client::discovery::Metadata;
use crate::client::endpoint::Endpoint;
use crate::client::http::HttpClient;
use crate::error::{SetupError, TokenError, UnavailableError};
use crate::freshness;
use crate::metrics::{Event, Of, count};
use crate::revocation_replica::RevocationReplica;
use crate::verify::cached::{GoodJwt, JwtTerms};
use crate::verify::jwks::{CurrentKeys, FetchedKeys};
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;
use cloakroom_core::time::ClockReading;

/// Verifies JWT access tokens of one issuer for one audience. Cheap to clone; clones share the JWK Set
/// and the cache.
///
/// Most services need only [`Verifier::discover`]: it finds the JWK Set through the issuer's metadata
/// (RFC 8414).
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
/// A fetched JWK Set is used for as long as its `Cache-Control: max-age` says, but at least 30 s
/// and at most 24 h, or for 1 h without one, counted from the request. It is fetched again before
/// it ends, in the background, by one request at a time. If the set has ended and cannot be
/// fetched, it is used for another hour ([`stale_if_error`](Self::stale_if_error)). After that,
/// tokens are [`TokenError::Unavailable`], never invalid.
///
/// # Unknown keys
///
/// A JWT whose key is not in the set causes a fetch of the set. Anyone can invent key ids, so these
/// fetches are limited: three at once, and one more every 7.5 to 12.5 s. The token is then
///
/// | the key | result |
/// |---|---|
/// | is in the set that was fetched | verified |
/// | is not in it | 401, for this token and, for 30 s, for all others with this key |
/// | cannot be fetched yet | 503: [`UnavailableError::SigningKey`] |
///
/// # Revocation
///
/// A signature says nothing about revocation: by default, a verifier accepts a JWT until it
/// expires. With a [`replica`](Self::replica) of the revocation log, it refuses revoked JWTs.
///
/// If you already have the keys, nothing is fetched:
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
    stale_if_error: Duration,
    trusts_gateway: bool,
    keys: Keys,
    cache: Option<JwtCache>,
    replica: Option<RevocationReplica>,
    /// Verifiers for other issuers.
    others: Vec<Self>,
}

#[derive(Debug, Clone)]
enum Keys {
    Static(CurrentKeys),
    Fetched(Arc<FetchedKeys>),
}

impl Verifier {
    /// Uses the JWK Set that the issuer's metadata names, with the built-in HTTP client. The
    /// metadata is fetched once, now; the JWK Set is fetched when the first token arrives.
    ///
    /// `issuer` is the issuer's identifier exactly as in its tokens, including a trailing slash. It
    /// must be `https`, or `http` on this machine.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if the metadata cannot be fetched, belongs to another issuer, or names no usable
    /// `jwks_uri`. Print the error and its sources to see what went wrong:
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

    /// Like `discover`, with your own HTTP client.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if the metadata cannot be fetched, belongs to another issuer, or names no usable
    /// `jwks_uri`.
    pub async fn discover_with(
        issuer: &str,
        audience: &str,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let jwks_uri = Metadata::fetch(issuer, &*client).await?.jwks_uri()?;
        Self::fetched(issuer, audience, &jwks_uri, client)
    }

    /// Uses the JWK Set at `jwks_uri`, for an issuer without metadata. It is fetched when the first
    /// token arrives.
    ///
    /// # Errors
    ///
    /// [`SetupError::Url`] if `jwks_uri` is not a URL, or uses plain `http` to another machine.
    pub fn fetching(
        issuer: &str,
        audience: &str,
        jwks_uri: &str,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let jwks_uri = Endpoint::parse("jwks_uri", jwks_uri)?;
        Self::fetched(issuer, audience, &jwks_uri, Arc::new(client))
    }

    /// Uses these keys, and fetches nothing.
    #[must_use]
    pub fn with_keys(issuer: &str, audience: &str, keys: &JwkSet) -> Self {
        let keys = CurrentKeys { keys: KeySet::prepare(keys), version: 0, has_ended: false };
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
            stale_if_error: Duration::from_secs(60 * 60),
            trusts_gateway: false,
            keys,
            cache: None,
            replica: None,
            others: Vec::new(),
        }
        .leeway(Duration::from_secs(30))
    }

    /// Takes the time from this clock. Set it before the first token.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.checks = self.checks.clock(Arc::clone(&clock));
        self.others = self.others.into_iter().map(|it| it.clock(Arc::clone(&clock))).collect();
        self.clock = clock;
        self
    }

    /// Accepts access tokens of this form, for an issuer that does not follow RFC 9068, such as
    /// Keycloak or Microsoft Entra ID. Set it before the first token.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use cloakroom_resource::{IssuerProfile, Verifier};
    ///
    /// let issuer = "https://id.example/realms/shop";
    /// let verifier = Verifier::discover(issuer, "https://orders.example")
    ///     .await?
    ///     .profile(IssuerProfile::keycloak());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn profile(mut self, profile: IssuerProfile) -> Self {
        self.checks = self.checks.profile(profile);
        self
    }

    /// Also accepts the tokens of another issuer, as `other` does: with its keys, profile,
    /// audience, leeway, cache and replica. The `iss` of a token decides which issuer's settings
    /// apply, before any key is used; it must be exactly the issuer's identifier.
    ///
    /// The [`Freshness`](crate::Freshness) of a route applies to the tokens of every issuer. A
    /// token of another issuer is never introspected at the first one's authorization server: where
    /// `other` has no replica that is fresh enough, its tokens are [`UnavailableError::Stale`].
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        let mut other = other.clock(Arc::clone(&self.clock));
        let others = std::mem::take(&mut other.others);
        self.others.push(other);
        self.others.extend(others);
        self
    }

    /// The largest difference between the issuer's clock and this one: 30 s by default, at most 2 min.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(cloakroom_jwt::Verifier::MAX_LEEWAY);
        self.checks = self.checks.leeway(self.leeway);
        self
    }

    /// How long a fetched JWK Set may be used after its end, while it cannot be fetched again (RFC
    /// 5861 §4), whatever its `Cache-Control` says: 1 h by default, at most 24 h; zero turns this
    /// off.
    ///
    /// **The trade-off:** while the issuer cannot be reached, a verifier cannot see that a key has
    /// left the set, so it accepts that key for this much longer. A [`replica`](Self::replica)
    /// still refuses a compromised key, as soon as the revocation log names it. If the issuer
    /// publishes a set without a usable key, this setting does not apply, and the old set is not
    /// used.
    #[must_use]
    pub fn stale_if_error(mut self, limit: Duration) -> Self {
        self.stale_if_error = limit.min(jwks::MAX_STALE);
        self
    }

    /// Caches up to this many accepted JWTs, so that each signature is verified once; zero turns
    /// the cache off. A JWT larger than 1 KiB counts as one for each KiB begun.
    ///
    /// These are checked every time, since they may change: the times, the proof of a key, the JWK
    /// Set (if it changes, every JWT is verified again) and the [`replica`](Self::replica). A
    /// typical JWT takes about 2 KB. Refused JWTs are not cached.
    #[must_use]
    pub fn cache(mut self, jwts: usize) -> Self {
        self.cache = (jwts > 0).then(|| JwtCache::new(jwts));
        self
    }

    /// Refuses JWTs that are revoked according to this replica of the revocation log.
    ///
    /// The replica may be 10 s behind, or its
    /// [`steady_staleness`](RevocationReplica::steady_staleness) plus 1 s, whichever is longer. If
    /// it is further behind, JWTs get [`UnavailableError::Stale`]. With
    /// [`BearerLayer`](crate::BearerLayer) you can set another [`Freshness`](crate::Freshness), and
    /// introspect such tokens instead.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.replica = Some(replica);
        self
    }

    /// **Turns off the proof check for JWTs that a gateway swapped.** A phantom JWT (a JWT with
    /// `handle_hash`) that is bound to a key (`cnf`) is then accepted as `Bearer` without a proof:
    /// its proof was for the handle, and only the gateway could check it. Other bound JWTs still
    /// need their proof.
    ///
    /// Use this only for a service that clients can reach only through gateways that check proofs,
    /// such as [`PhantomLayer`](crate::PhantomLayer). Anyone else who obtains a phantom JWT, or can
    /// swap a handle without a proof, can use a bound token as a bearer token.
    #[must_use]
    pub const fn trust_gateway_proofs(mut self) -> Self {
        self.trusts_gateway = true;
        self
    }

    /// Verifies a JWT: its form, signature, issuer, audience and times, and that it is not revoked
    /// according to the replica.
    ///
    /// A token bound to a key (`cnf`) is refused; use [`verify_with`](Self::verify_with).
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token fails a check or is revoked; [`TokenError::Unavailable`] if
    /// no keys are available, or if the replica is too far behind.
    pub async fn verify(&self, token: &TokenSecret) -> Result<VerifiedToken, TokenError> {
        self.verify_with(token, None).await
    }

    /// Like [`verify`](Self::verify), for a request that proves this key: a bound token must be
    /// bound to it. You must have verified the proof, and that a token bound by `DPoP` was sent in
    /// the scheme `DPoP` (RFC 9449 §7.2), as [`BearerLayer`](crate::BearerLayer) does.
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token fails a check or is revoked; [`TokenError::Unavailable`] if
    /// no keys are available, or if the replica is too far behind.
    pub async fn verify_with(
        &self,
        token: &TokenSecret,
        proved: Option<&Confirmation>,
    ) -> Result<VerifiedToken, TokenError> {
        let token = token.expose();
        let (now, replica) = (ClockReading::now(&*self.clock), self.replica.as_ref());
        let proof = Proof { scheme: None, key: proved.cloned() };
        let freshness = freshness::default_of(replica);
        let terms = JwtTerms { proof: &proof, freshness, is_named: false, replica, now };
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

    /// The issuers of the verifiers that [`or`](Self::or) added.
    pub(crate) fn other_issuers(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(|other| &*other.issuer)
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
