//! Protects a service with bearer tokens (RFC 6750).

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloakroom_core::{ActiveToken, Clock, Introspection, Invalid, Scope, SystemClock, TokenSecret};
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::authorization::{Presented, authorization};
use crate::challenge::{Challenges, Refusal};
use crate::error::{InvalidToken, TokenError};
use crate::introspection::Introspector;
use crate::proof::Proof;
use crate::verified::VerifiedToken;
use crate::verifier::{Verifier, is_jwt_shaped};

/// A tower layer that lets a request through only with a good access token, and puts a
/// [`VerifiedToken`] into its extensions. For any HTTP service: axum, hyper, tonic.
///
/// The token is taken from the `Authorization` header alone. Requests without a good one are
/// answered here, with an empty body:
///
/// | request | answer |
/// |---|---|
/// | no bearer token | 401 |
/// | two `Authorization` headers, or one that cannot be read | 400 `invalid_request` |
/// | a token that is not good, or bound to a key that is not proved | 401 `invalid_token` |
/// | a good token without a [required scope](BearerLayer::require_scope) | 403 `insufficient_scope` |
/// | nobody can tell just now | 503 with `Retry-After` |
///
/// ```
/// use cloakroom_resource::http::{Request, Response, StatusCode, header};
/// use cloakroom_resource::{BearerLayer, JwkSet, VerifiedToken, Verifier};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = JwkSet::new(vec![]);
/// let verifier = Verifier::with_keys("https://as.example", "https://orders.example", &keys);
/// let bearer = BearerLayer::new(verifier);
///
/// let api = ServiceBuilder::new()
///     .layer(bearer.require_scope("orders:read")?)
///     .service(service_fn(|request: Request<String>| async move {
///         let token = request.extensions().get::<VerifiedToken>().expect("the layer sets it");
///         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", token.subject())))
///     }));
///
/// let response = api.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(
///     response.headers()[header::WWW_AUTHENTICATE],
///     "Bearer realm=\"https://orders.example\""
/// );
/// # Ok(()) }
/// ```
///
/// With axum, one layer a group of routes; a clone with another scope costs nothing:
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// # use cloakroom_resource::BearerLayer;
/// # async fn read() {}
/// # async fn write() {}
/// fn app(bearer: BearerLayer) -> Result<Router, Box<dyn std::error::Error>> {
///     let reading = Router::new()
///         .route("/orders", get(read))
///         .route_layer(bearer.clone().require_scope("orders:read")?);
///     let writing = Router::new()
///         .route("/orders", post(write))
///         .route_layer(bearer.require_scope("orders:write")?);
///     Ok(reading.merge(writing))
/// }
/// ```
/// # Tokens bound to a key
///
/// A token with `cnf` passes only with a proof of that key. **The app verifies proofs**: a
/// middleware outside of this layer checks the `DPoP` header with its `ath` (RFC 9449 §4.3), or the
/// client certificate (RFC 8705), and puts the key it found into the request's extensions, as a
/// [`Confirmation`](crate::Confirmation). Here it is compared.
///
/// | the token is | and passes |
/// |---|---|
/// | not bound | as `Bearer`, whatever is proved |
/// | bound to a certificate (`x5t#S256`) | as `Bearer`, if that certificate is proved |
/// | bound by `DPoP` (`jkt`) | as `DPoP`, if that key is proved; never as `Bearer` (RFC 9449 §7.2) |
///
/// A service behind a gateway sees bound JWTs whose proofs the gateway has checked:
/// [`Verifier::trust_gateway_proofs`].
///
/// ```
/// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response};
/// use cloakroom_resource::{BearerLayer, Confirmation};
///
/// # struct Tls([u8; 32]);
/// async fn prove(mut request: Request, next: Next) -> Response {
///     // Here, from the connection: whoever ends TLS knows the client's certificate.
///     if let Some(Tls(thumbprint)) = request.extensions().get() {
///         let proved = Confirmation::CertificateThumbprint(*thumbprint);
///         request.extensions_mut().insert(proved);
///     }
///     next.run(request).await
/// }
///
/// fn protect(api: Router, bearer: BearerLayer) -> Router {
///     api.route_layer(bearer).layer(from_fn(prove)) // what is added last sees a request first
/// }
/// ```
#[derive(Debug, Clone)]
pub struct BearerLayer(Arc<Checks>);

#[derive(Debug, Clone)]
struct Checks {
    verifier: Option<Verifier>,
    introspector: Option<Arc<dyn Introspector>>,
    issuer: Arc<str>,
    audience: Arc<str>,
    clock: Arc<dyn Clock>,
    required: Scope,
    challenges: Challenges,
}

impl BearerLayer {
    /// Accepts the JWTs that this verifier accepts.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(Checks {
            introspector: None,
            issuer: Arc::clone(verifier.issuer()),
            audience: Arc::clone(verifier.audience()),
            clock: Arc::clone(verifier.own_clock()),
            required: Scope::empty(),
            challenges: Challenges::new(verifier.audience(), &Scope::empty()),
            verifier: Some(verifier),
        }))
    }

    /// Accepts the tokens, of whatever form, that introspection calls active, and that are meant
    /// for `audience`: the answer's `aud` must contain it, its `iss`, if it has one, must be
    /// `issuer`, and its `exp` must be ahead.
    #[must_use]
    pub fn introspecting(introspector: impl Introspector, issuer: &str, audience: &str) -> Self {
        Self(Arc::new(Checks {
            verifier: None,
            introspector: Some(Arc::new(introspector)),
            issuer: issuer.into(),
            audience: audience.into(),
            clock: Arc::new(SystemClock::new()),
            required: Scope::empty(),
            challenges: Challenges::new(audience, &Scope::empty()),
        }))
    }

    /// Besides the verifier's JWTs, accepts opaque tokens by introspection. A token of three
    /// segments is a JWT and stays the verifier's: one that it refuses is not asked about.
    #[must_use]
    pub fn or_introspect(mut self, introspector: impl Introspector) -> Self {
        Arc::make_mut(&mut self.0).introspector = Some(Arc::new(introspector));
        self
    }

    /// Lets only tokens through that grant this scope: one value, or several separated by spaces,
    /// which must all be granted. Adds to what was required before.
    ///
    /// # Errors
    ///
    /// If it is no scope (RFC 6749 §3.3).
    pub fn require_scope(mut self, scope: &str) -> Result<Self, Invalid> {
        let checks = Arc::make_mut(&mut self.0);
        let all = [checks.required.as_str(), scope];
        let all: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
        checks.required = Scope::parse(&all.join(" "))?;
        checks.challenges = Challenges::new(&checks.audience, &checks.required);
        Ok(self)
    }

    /// Takes the time for introspected tokens from this clock; by default the verifier's, or the
    /// system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        Arc::make_mut(&mut self.0).clock = clock;
        self
    }
}

impl Checks {
    async fn check(&self, presented: Presented) -> Result<VerifiedToken, Refusal> {
        let (token, proof) = (presented.token?, presented.proof);
        let verified = self.verify(&token, &proof).await.map_err(|error| {
            crate::trace_refusal(&error);
            Refusal::from(&error)
        })?;
        if self.required.is_subset(verified.scope()) {
            Ok(verified)
        } else {
            tracing::debug!(required = %self.required, granted = %verified.scope(),
                "the token lacks a scope");
            Err(Refusal::InsufficientScope)
        }
    }

    async fn verify(
        &self,
        token: &TokenSecret,
        proof: &Proof,
    ) -> Result<VerifiedToken, TokenError> {
        proof.check()?;
        match (&self.verifier, &self.introspector) {
            (Some(verifier), introspector)
                if introspector.is_none() || is_jwt_shaped(token.expose()) =>
            {
                verifier.check(token.expose(), proof).await
            }
            (_, Some(introspector)) => match introspector.introspect(token).await? {
                Introspection::Active(token) => Ok(self.admit(*token, proof)?),
                Introspection::Inactive => Err(InvalidToken::Inactive.into()),
            },
            // Unreachable by construction; nobody who could tell is an invalid token.
            (_, None) => Err(InvalidToken::NotJwt.into()),
        }
    }

    /// The authorization server vouches for the token; that it is meant for this resource is for
    /// the resource to see (RFC 7662 §2.2, RFC 9700 §2.3).
    fn admit(&self, token: ActiveToken, proof: &Proof) -> Result<VerifiedToken, InvalidToken> {
        if !matches!(&token.audience, Some(audience) if audience.contains(&self.audience)) {
            return Err(InvalidToken::Audience);
        }
        if matches!(&token.issuer, Some(issuer) if *issuer != self.issuer) {
            return Err(InvalidToken::Issuer);
        }
        if matches!(token.expires_at, Some(end) if end <= self.clock.now()) {
            return Err(InvalidToken::Expired);
        }
        proof.covers(token.confirmation.as_ref())?;
        VerifiedToken::of_introspected(token)
    }
}

impl<S> Layer<S> for BearerLayer {
    type Service = BearerService<S>;

    fn layer(&self, inner: S) -> BearerService<S> {
        BearerService { inner, checks: Arc::clone(&self.0) }
    }
}

/// The service that [`BearerLayer`] makes.
#[derive(Debug, Clone)]
pub struct BearerService<S> {
    inner: S,
    checks: Arc<Checks>,
}

impl<S, B, R> Service<Request<B>> for BearerService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The inner service that was polled ready is the one to call; its clone may not be ready.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let checks = Arc::clone(&self.checks);
        let presented = present(&mut request);
        let scheme = presented.scheme;
        Box::pin(async move {
            match checks.check(presented).await {
                Ok(token) => {
                    request.extensions_mut().insert(token);
                    inner.call(request).await
                }
                Err(refusal) => Ok(checks.challenges.response(refusal, scheme)),
            }
        })
    }
}

/// The token, which from here on no trace of the request's headers shows.
fn present<B>(request: &mut Request<B>) -> Presented {
    for value in request
        .headers_mut()
        .iter_mut()
        .filter_map(|(name, value)| (*name == http::header::AUTHORIZATION).then_some(value))
    {
        value.set_sensitive(true);
    }
    Presented::new(authorization(request.headers()), request.extensions())
}
