//! Protects a service with bearer tokens (RFC 6750).

use std::sync::Arc;

use cloakroom_core::time::{Clock, ClockReading};
use cloakroom_core::{Confirmation, InvalidValue, TokenSecret};
use tower_layer::Layer;

use crate::error::{SetupError, TokenError};
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::layer::bearer_policy::BearerPolicy;
use crate::layer::service::{LookUp, Policy as _, TokenService};
use crate::replica::RevocationReplica;
use crate::verify::Verifier;
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;

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
pub struct BearerLayer(Arc<BearerPolicy>);

impl BearerLayer {
    /// Accepts the JWTs that this verifier accepts.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(BearerPolicy::verifying(verifier)))
    }

    /// Accepts the tokens, of whatever form, that introspection calls active, and that are meant
    /// for `audience`: the answer's `aud` must contain it, its `iss`, if it has one, must be
    /// `issuer`, and its `exp` must be ahead.
    #[must_use]
    pub fn introspecting(introspector: impl Introspector, issuer: &str, audience: &str) -> Self {
        Self(Arc::new(BearerPolicy::introspecting(Arc::new(introspector), issuer, audience)))
    }

    /// Besides the verifier's JWTs, accepts opaque tokens by introspection. A token of three
    /// segments is a JWT and stays the verifier's: one that it refuses is not asked about. One that
    /// it accepts is asked about when nothing else meets the route's [`Freshness`].
    #[must_use]
    pub fn or_introspect(mut self, introspector: impl Introspector) -> Self {
        self.policy().introspect_by(Arc::new(introspector));
        self
    }

    /// Lets only tokens through that grant this scope: one value, or several separated by spaces,
    /// which must all be granted. Adds to what was required before.
    ///
    /// # Errors
    ///
    /// If it is no scope (RFC 6749 §3.3).
    pub fn require_scope(mut self, scope: &str) -> Result<Self, InvalidValue> {
        self.policy().require(scope)?;
        Ok(self)
    }

    /// Remembers up to so many introspected tokens, each at most until it expires. Whether a
    /// request may be answered from memory is for [`freshness`](Self::freshness) to say: where
    /// neither that nor a [`replica`](Self::replica) is there, every request asks all the same.
    ///
    /// An ordinary entry takes about 2 KB; one whose claims have more than a KiB counts as one for
    /// each KiB begun. Tokens that were refused are remembered apart from these, 10,000 of
    /// them, for the route's freshness and 10 s at most: junk pushes no good token out. Clones of
    /// this layer share the memory. JWTs that are verified here have
    /// [one of their own](Verifier::cache).
    #[must_use]
    pub fn cache(mut self, tokens: usize) -> Self {
        self.policy().change(|settings| settings.capacity = tokens);
        self
    }

    /// Refuses the tokens, introspected or verified, that this replica of the revocation log says
    /// are revoked. By default it is the verifier's.
    ///
    /// While it is fresh enough for the route, tokens that are remembered need not be asked about
    /// again. Where no freshness is named, it may be 10 s behind, or a second more than it is while
    /// nothing is wrong, if that is longer.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.policy().follow(replica);
        self
    }

    /// How long a revocation may take to reach the routes behind this layer. Without it and without
    /// a [`replica`](Self::replica), opaque tokens are introspected for every request, and JWTs
    /// accepted until they expire.
    ///
    /// Name it after everything else: what can be met depends on it. A clone with another freshness
    /// shares the memory.
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
    /// [`SetupError::Freshness`] if it could never be met: where nobody introspects, for every
    /// request, and for a time that the replica is behind although nothing is wrong.
    pub fn freshness(mut self, freshness: Freshness) -> Result<Self, SetupError> {
        self.policy().set_freshness(freshness)?;
        Ok(self)
    }

    /// What becomes of a request when the replica is too far behind: [`WhenStale::Introspect`] by
    /// default.
    #[must_use]
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.policy().when_stale = when_stale;
        self
    }

    /// Refuses opaque tokens that are no handles of the authorization server without asking it.
    #[must_use]
    pub fn handle_keys(mut self, keys: GatewayKeys) -> Self {
        self.policy().handle_keys = Some(keys);
        self
    }

    /// How much the authorization server may be asked.
    #[must_use]
    pub fn limits(mut self, limits: IntrospectionLimits) -> Self {
        self.policy().change(|settings| settings.limits = limits);
        self
    }

    /// Takes the time from this clock; by default the verifier's, or the system's. Forgets what is
    /// remembered.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.policy().keep_time(clock);
        self
    }

    /// What the layer does with a token, for whatever tower does not carry, such as the messages of
    /// a WebSocket. Scopes are for the caller to look at.
    ///
    /// `proved` is the key that the request proves: see [`Verifier::verify_with`].
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token is refused, [`TokenError::Unavailable`] if nobody can
    /// tell.
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
