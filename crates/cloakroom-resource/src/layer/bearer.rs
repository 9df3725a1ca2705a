//! Protects a service with access tokens (RFC 6750).

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::time::{Clock, ClockReading};
use cloakroom_core::{Confirmation, InvalidValue, Scope, TokenSecret};
use http::{Request, Response};
use tower_layer::Layer;

use crate::error::{SetupError, TokenError};
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::layer::bearer_policy::BearerPolicy;
use crate::layer::resource_metadata::ResourceMetadata;
use crate::layer::service::{LookUp, Policy as _, TokenService, check};
use crate::revocation_replica::RevocationReplica;
use crate::verify::Verifier;
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;

/// A tower layer that forwards a request only if it has a valid access token, and puts a
/// [`VerifiedToken`] into the request's extensions. It works with any HTTP service: axum, hyper,
/// tonic.
///
/// The layer reads the token from the `Authorization` header only. It answers requests without a
/// valid token itself, with an empty body:
///
/// | request | answer |
/// |---|---|
/// | no bearer token | 401 |
/// | two `Authorization` headers, or a malformed one | 400 `invalid_request` |
/// | an invalid token, or a token bound to a key that is not proved | 401 `invalid_token` |
/// | a valid token without a [required scope](BearerLayer::require_scope) | 403 `insufficient_scope` |
/// | a valid token of a user who has to [sign in again](BearerLayer::require_auth) | 401 `insufficient_user_authentication` |
/// | a token that cannot be checked now | 503 with `Retry-After` |
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
/// With axum, use one layer for each group of routes. Clones that require other scopes are cheap:
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
/// A token with `cnf` passes only with a proof of that key. **Your application verifies the proof**:
/// a middleware outside this layer checks the `DPoP` header and its `ath` (RFC 9449 §4.3), or the client certificate
/// (RFC 8705), and puts the proved key into the request's extensions, as a [`Confirmation`](crate::Confirmation). This
/// layer compares the keys.
///
/// | the token is | it passes |
/// |---|---|
/// | not bound | as `Bearer`, with or without a proof |
/// | bound to a certificate (`x5t#S256`) | as `Bearer`, if that certificate is proved |
/// | bound by `DPoP` (`jkt`) | as `DPoP`, if that key is proved; never as `Bearer` (RFC 9449 §7.2) |
///
/// A service behind a gateway gets bound JWTs whose proofs only the gateway could check: see
/// [`Verifier::trust_gateway_proofs`].
///
/// ```
/// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response};
/// use cloakroom_resource::{BearerLayer, Confirmation};
///
/// # struct Tls([u8; 32]);
/// async fn prove(mut request: Request, next: Next) -> Response {
///     // Whatever terminates TLS knows the client's certificate.
///     if let Some(Tls(thumbprint)) = request.extensions().get() {
///         let proved = Confirmation::CertificateThumbprint(*thumbprint);
///         request.extensions_mut().insert(proved);
///     }
///     next.run(request).await
/// }
///
/// fn protect(api: Router, bearer: BearerLayer) -> Router {
///     api.route_layer(bearer).layer(from_fn(prove)) // the layer added last runs first
/// }
/// ```
#[derive(Debug, Clone)]
pub struct BearerLayer(Arc<BearerPolicy>);

impl BearerLayer {
    /// Accepts the JWTs that this verifier accepts.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(BearerPolicy::verifying(verifier)))
    }

    /// Accepts tokens of any format that introspection reports as active. The answer's `aud` must
    /// contain `audience`, its `iss` must be `issuer` if present, and its `exp` must be in the
    /// future.
    #[must_use]
    pub fn introspecting(introspector: impl Introspector, issuer: &str, audience: &str) -> Self {
        Self(Arc::new(BearerPolicy::introspecting(Arc::new(introspector), issuer, audience)))
    }

    /// Also accepts opaque tokens, by introspection. The verifier still decides about JWTs: a JWT
    /// that it refuses is not introspected. A JWT that it accepts is introspected only if the
    /// route's [`Freshness`] cannot be met in another way.
    #[must_use]
    pub fn or_introspect(mut self, introspector: impl Introspector) -> Self {
        self.policy().introspect_by(Arc::new(introspector));
        self
    }

    /// Requires this scope: one value, or several separated by spaces, all of which the token must
    /// grant. Further calls add to it.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if the value is not a valid scope (RFC 6749 §3.3).
    pub fn require_scope(mut self, scope: &str) -> Result<Self, InvalidValue> {
        self.policy().require(scope)?;
        Ok(self)
    }

    /// Requires a recent sign-in, a sign-in in one of these ways, or both (step-up authentication, RFC 9470). If
    /// `max_age` is set, the user must have signed in at most that long ago (the token's `auth_time`). If
    /// `acr_values` is not empty, the token's `acr` must be among them: one value, or several separated by spaces,
    /// the best first. A token must meet everything that is set. A further call replaces this one.
    ///
    /// The client of a token that does not meet this gets a challenge that names what is required. It then sends
    /// its user to the authorization server again, with these parameters. Clocks differ: do not make `max_age`
    /// shorter than a minute.
    ///
    /// ```
    /// # use cloakroom_resource::{BearerLayer, InvalidValue};
    /// # use std::time::Duration;
    /// fn paying(bearer: &BearerLayer) -> Result<BearerLayer, InvalidValue> {
    ///     bearer.clone().require_auth(Duration::from_secs(300), "urn:example:mfa")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it requires nothing, or if a value has characters other than printable ASCII.
    pub fn require_auth(
        mut self,
        max_age: impl Into<Option<Duration>>,
        acr_values: &str,
    ) -> Result<Self, InvalidValue> {
        self.policy().require_sign_in(max_age.into(), acr_values)?;
        Ok(self)
    }

    /// Also passes on requests without a token. A request with a token that is not valid is still
    /// refused, and a valid token still needs what this layer requires.
    ///
    /// With axum, a handler takes an `Option<VerifiedToken>`:
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use cloakroom_resource::{BearerLayer, VerifiedToken};
    ///
    /// async fn catalogue(token: Option<VerifiedToken>) -> &'static str {
    ///     if token.is_some() { "with your prices" } else { "with everyone's prices" }
    /// }
    ///
    /// fn app(bearer: BearerLayer) -> Router {
    ///     Router::new().route("/catalogue", get(catalogue)).route_layer(bearer.optional())
    /// }
    /// ```
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.policy().is_optional = true;
        self
    }

    /// Answers refused requests as gRPC does, for a service such as one of tonic: status 200 with
    /// `grpc-status` `UNAUTHENTICATED` (for 400 and 401), `PERMISSION_DENIED` (403) or `UNAVAILABLE` (503).
    /// The other headers are those of HTTP.
    ///
    /// With tonic, add it with `Server::builder().layer(bearer.grpc())`. A method finds the token with
    /// `request.extensions().get::<VerifiedToken>()`.
    #[must_use]
    pub fn grpc(mut self) -> Self {
        self.policy().challenges.is_grpc = true;
        self
    }

    /// Caches up to this many introspected tokens, each until it expires. Set a
    /// [`freshness`](Self::freshness) or a [`replica`](Self::replica) as well: without either, every
    /// request is introspected anyway.
    ///
    /// A typical entry takes about 2 KB. An entry whose claims are larger than 1 KiB counts as one
    /// entry for each KiB begun. Up to 10,000 refused tokens are cached separately, for the route's
    /// freshness and at most 10 s, so invented tokens cannot evict valid ones. Clones of this layer
    /// share the cache. Verified JWTs have [their own cache](Verifier::cache).
    #[must_use]
    pub fn cache(mut self, tokens: usize) -> Self {
        self.policy().change(|settings| settings.capacity = tokens);
        self
    }

    /// Refuses tokens that are revoked according to this replica of the revocation log. The default
    /// is the verifier's replica.
    ///
    /// While the replica is fresh enough for the route, cached tokens are not introspected again.
    /// If you set no freshness, the replica may be 10 s behind, or its
    /// [`steady_staleness`](RevocationReplica::steady_staleness) plus 1 s, whichever is longer.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.policy().follow(replica);
        self
    }

    /// How long a revocation may take to reach the routes behind this layer. Without a freshness and
    /// without a [`replica`](Self::replica), opaque tokens are introspected for every request, and
    /// JWTs are accepted until they expire.
    ///
    /// Set it last: whether it can be met depends on the other settings. A clone with another
    /// freshness shares the cache.
    ///
    /// ```
    /// # use cloakroom_resource::{BearerLayer, Freshness, SetupError};
    /// # use std::time::Duration;
    /// fn routes(bearer: &BearerLayer) -> Result<[BearerLayer; 2], SetupError> {
    ///     let reading = bearer.clone().freshness(Freshness::within(Duration::from_secs(10)))?;
    ///     let paying = bearer.clone().freshness(Freshness::every_request())?;
    ///     Ok([reading, paying])
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SetupError::Freshness`] if it can never be met: without introspection, that is
    /// [`Freshness::every_request`], or a time below the replica's staleness in normal operation.
    pub fn freshness(mut self, freshness: Freshness) -> Result<Self, SetupError> {
        self.policy().set_freshness(freshness)?;
        Ok(self)
    }

    /// What happens to a request when the replica is too far behind. The default is
    /// [`WhenStale::Introspect`].
    #[must_use]
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.policy().when_stale = when_stale;
        self
    }

    /// Refuses opaque tokens that are not handles of the authorization server, without introspection.
    #[must_use]
    pub fn handle_keys(mut self, keys: GatewayKeys) -> Self {
        self.policy().handle_keys = Some(keys);
        self
    }

    /// How many introspections this layer may send.
    #[must_use]
    pub fn limits(mut self, limits: IntrospectionLimits) -> Self {
        self.policy().change(|settings| settings.limits = limits);
        self
    }

    /// Takes the time from this clock, and clears the cache. The default is the verifier's clock,
    /// or the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.policy().keep_time(clock);
        self
    }

    /// The metadata of what this layer protects (RFC 9728): its audience is the resource, and its issuers
    /// are the authorization servers. Serve it, and [`announce`](Self::announce) it.
    ///
    /// # Errors
    ///
    /// [`SetupError::Url`] if the audience is not an `https` URL (or `http` on this machine).
    pub fn resource_metadata(&self) -> Result<ResourceMetadata, SetupError> {
        self.0.resource_metadata()
    }

    /// Names this metadata in each refusal (`resource_metadata`, RFC 9728 §5.1), and the required scope
    /// in each 401, so that clients find the authorization server and request what they need:
    ///
    /// ```text
    /// HTTP/1.1 401 Unauthorized
    /// WWW-Authenticate: Bearer realm="https://api.example/notes", scope="notes:read",
    ///     resource_metadata="https://api.example/.well-known/oauth-protected-resource/notes"
    /// ```
    #[must_use]
    pub fn announce(mut self, metadata: &ResourceMetadata) -> Self {
        self.policy().announce(metadata);
        self
    }

    /// The refusal of a token that lacks some of this scope, for a handler that learns only while it runs which
    /// scope the request needs: 403 `insufficient_scope`, as this layer itself would answer. It names this scope
    /// together with the scope that the layer requires, so that a client gets all it needs with one step-up. The body
    /// is empty.
    ///
    /// ```
    /// use cloakroom_resource::http::Response;
    /// use cloakroom_resource::{BearerLayer, Scope, VerifiedToken};
    ///
    /// fn check(bearer: &BearerLayer, token: &VerifiedToken, scope: &Scope) -> Option<Response<String>> {
    ///     (!scope.is_subset(token.scope())).then(|| bearer.insufficient_scope(token, scope))
    /// }
    /// ```
    #[must_use]
    pub fn insufficient_scope<B: Default>(
        &self,
        token: &VerifiedToken,
        scope: &Scope,
    ) -> Response<B> {
        self.0.insufficient_scope(token, scope)
    }

    /// Checks a request as the layer does, for frameworks without tower such as actix-web: the request with
    /// a [`VerifiedToken`] in its extensions, or the response that refuses it, with an empty body.
    ///
    /// The layer reads the header `Authorization` and the [proof of a key](#tokens-bound-to-a-key) in the
    /// extensions, and nothing else of the request. Where the framework has HTTP types of its own, copy
    /// them:
    ///
    /// ```
    /// use cloakroom_resource::http::{HeaderValue, Request, Response};
    /// use cloakroom_resource::{BearerLayer, VerifiedToken};
    ///
    /// /// The token of a request with these `Authorization` headers, or how it is refused.
    /// async fn protect(bearer: &BearerLayer, headers: &[&str]) -> Result<VerifiedToken, Response<()>> {
    ///     let mut request = Request::new(());
    ///     for value in headers {
    ///         let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("?"));
    ///         request.headers_mut().append("authorization", value);
    ///     }
    ///     let request = bearer.check(request).await?;
    ///     Ok(request.extensions().get::<VerifiedToken>().expect("the check sets it").clone())
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use cloakroom_resource::{JwkSet, Verifier};
    /// # let keys = JwkSet::new(vec![]);
    /// # let verifier = Verifier::with_keys("https://as.example", "https://orders.example", &keys);
    /// # let bearer = BearerLayer::new(verifier);
    /// # assert_eq!(protect(&bearer, &[]).await.unwrap_err().status(), 401);
    /// # assert_eq!(protect(&bearer, &["Bearer a", "Bearer b"]).await.unwrap_err().status(), 400);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The response for a request that is refused: see the table [above](Self).
    pub async fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Response<()>> {
        check(&*self.0, request).await
    }

    /// Checks a token as the layer does, for messages that do not pass through tower, such as those of a
    /// WebSocket. It does not check scopes.
    ///
    /// `proved` is the key that the request proves: see [`Verifier::verify_with`].
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token is refused, [`TokenError::Unavailable`] if it cannot be
    /// checked now.
    pub async fn verify(
        &self,
        token: &TokenSecret,
        proved: Option<&Confirmation>,
    ) -> Result<VerifiedToken, TokenError> {
        let proof = Proof { scheme: None, key: proved.cloned() };
        let (token, now) = (token.expose(), ClockReading::now(self.0.clock()));
        match self.0.look_up(token, &proof, now) {
            LookUp::Done(decision) => decision,
            // On the heap: the future of a call that is answered from memory stays small.
            LookUp::Continue(pending) => {
                Box::pin(self.0.resolve(token, &proof, now, pending)).await
            }
        }
    }

    fn policy(&mut self) -> &mut BearerPolicy {
        Arc::make_mut(&mut self.0)
    }
}

impl<S> Layer<S> for BearerLayer {
    type Service = TokenService<S>;

    fn layer(&self, inner: S) -> TokenService<S> {
        TokenService::bearer(inner, &self.0)
    }
}
