//! The gateway: a handle comes in, a JWT goes on.

use std::sync::Arc;

use cloakroom_core::time::Clock;
use tower_layer::Layer;

use crate::error::SetupError;
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::layer::phantom_policy::PhantomPolicy;
use crate::layer::service::TokenService;
use crate::replica::RevocationReplica;

/// A tower layer for API gateways: swaps the opaque handle of a request for the short-lived JWT
/// that stands for it at one audience (the phantom token pattern), and passes the request on with
/// `Authorization: Bearer <jwt>`. Clients never see the JWT; services never see the handle.
///
/// Whatever a client put into `Authorization` is replaced: no JWT of its own gets through. Requests
/// without a good handle are answered here as [`BearerLayer`](crate::BearerLayer) does: 401, 400,
/// or 503 when the authorization server gives no answer.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::any};
/// use cloakroom_resource::{ClientCredentials, IntrospectionClient, PhantomLayer};
/// # async fn proxy() {}
///
/// let credentials = ClientCredentials::new("gateway", std::env::var("GATEWAY_SECRET")?);
/// let client = IntrospectionClient::discover("https://as.example", credentials).await?;
///
/// let gateway: Router = Router::new()
///     .route("/orders/{*path}", any(proxy))
///     .route_layer(PhantomLayer::new(client, "https://orders.example"));
/// # Ok(()) }
/// ```
///
/// Anything that implements [`Introspector`] will do, such as the authorization server itself in
/// the same process:
///
/// ```
/// use cloakroom_resource::http::{Request, Response, StatusCode};
/// use cloakroom_resource::{
///     Introspection, Introspector, UnavailableError, PhantomLayer, PhantomJwt, TokenSecret, async_trait,
/// };
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// #[derive(Debug)]
/// struct NobodyIsIn;
///
/// #[async_trait]
/// impl Introspector for NobodyIsIn {
///     async fn introspect(&self, _: &TokenSecret) -> Result<Introspection, Outage> {
///         Ok(Introspection::Inactive)
///     }
///     async fn swap(&self, _: &TokenSecret, _: &str) -> Result<Option<PhantomJwt>, Outage> {
///         Ok(None)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = ServiceBuilder::new()
///     .layer(PhantomLayer::new(NobodyIsIn, "https://orders.example"))
///     .service(service_fn(|_: Request<String>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(String::new()))
///     }));
///
/// let request = Request::get("/orders").header("authorization", "Bearer cr_at_x").body(String::new())?;
/// assert_eq!(gateway.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
/// # Ok(()) }
/// ```
/// # How often the authorization server is asked
///
/// By default, for every request, so that a revoked handle is refused at once; requests that wait
/// for the same handle share an answer. With a [cache](Self::cache) and a
/// [freshness](Self::freshness), or with a [replica](Self::replica) of the revocation log, once for
/// each handle, again when its JWT has expired, and whenever nothing else says that it is not
/// revoked:
///
/// ```no_run
/// # use cloakroom_resource::{Freshness, IntrospectionClient, PhantomLayer, RevocationReplica};
/// # use std::time::Duration;
/// # use cloakroom_resource::SetupError;
/// # fn layers(
/// #     client: IntrospectionClient,
/// #     replica: RevocationReplica,
/// # ) -> Result<[PhantomLayer; 2], SetupError> {
/// // The classic short cache, at any server: revoked handles live on for 2 s at most.
/// let short = PhantomLayer::new(client.clone(), "https://orders.example")
///     .cache(100_000)
///     .freshness(Freshness::within(Duration::from_secs(2)))?;
///
/// // With the revocation log: revoked handles die as soon as the log tells it.
/// let followed = PhantomLayer::new(client, "https://orders.example")
///     .cache(100_000)
///     .replica(replica);
/// # Ok([short, followed]) }
/// ```
///
/// # Handles bound to a key
///
/// A handle with `cnf` is swapped only with a proof of that key, which a middleware of the app's
/// own verifies and puts into the request's extensions, as [`BearerLayer`](crate::BearerLayer)
/// describes. A handle bound by `DPoP` must come in that scheme; in a cookie it is refused.
///
/// The JWT goes on as `Bearer`, and keeps its `cnf`. **A service inside therefore sees a bound JWT
/// whose proof only this gateway could check**, and refuses it, unless it says that it stands
/// behind a gateway: [`Verifier::trust_gateway_proofs`](crate::Verifier::trust_gateway_proofs).
#[derive(Debug, Clone)]
pub struct PhantomLayer(Arc<PhantomPolicy>);

impl PhantomLayer {
    /// Swaps handles for JWTs meant for `audience`, the service behind this gateway.
    #[must_use]
    pub fn new(introspector: impl Introspector, audience: &str) -> Self {
        Self(Arc::new(PhantomPolicy::new(Arc::new(introspector), audience)))
    }

    /// Remembers the JWTs of up to so many handles, each until it expires. Whether a request may be
    /// answered from memory is for [`freshness`](Self::freshness) to say: where neither that nor a
    /// [`replica`](Self::replica) is there, every request asks all the same.
    ///
    /// One entry takes about 0.7 KB and its JWT; a JWT of more than a KiB counts as one entry for
    /// each KiB begun. Handles that were refused are remembered apart from these, 10,000 of them,
    /// for the layer's freshness and 10 s at most: junk pushes no good handle out. Clones of this
    /// layer share the memory.
    #[must_use]
    pub fn cache(mut self, handles: usize) -> Self {
        self.policy().change(|settings| settings.capacity = handles);
        self
    }

    /// Refuses the handles that this replica of the revocation log says are revoked. While it is
    /// fresh enough, handles that are remembered need not be asked about again.
    ///
    /// Where no freshness is named, it may be 10 s behind, or a second more than it is while
    /// nothing is wrong, if that is longer.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.policy().follow(replica);
        self
    }

    /// How long a revocation may take to reach the requests that go through this layer. Without it
    /// and without a [`replica`](Self::replica), every request asks the authorization server. A
    /// clone with another freshness shares the memory.
    ///
    /// Set it after [`replica`](Self::replica) and [`when_stale`](Self::when_stale): what can be met
    /// depends on them.
    ///
    /// # Errors
    ///
    /// [`SetupError::Freshness`] if requests are refused when the replica is stale
    /// ([`WhenStale::Refuse`]), and the replica is further behind than this even while nothing is
    /// wrong.
    pub fn freshness(mut self, freshness: Freshness) -> Result<Self, SetupError> {
        self.policy().set_freshness(freshness)?;
        Ok(self)
    }

    /// What becomes of a handle that is remembered when the replica is too far behind:
    /// [`WhenStale::Introspect`] by default.
    #[must_use]
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.policy().when_stale = when_stale;
        self
    }

    /// Refuses whatever is no handle of the authorization server without asking it.
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

    /// Takes the time from this clock. Forgets what is remembered.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.policy().change(|settings| settings.clock = clock);
        self
    }

    /// Takes the handle from the cookie of this name, too, and removes that cookie from what goes
    /// on. A request that carries a handle both ways, or the cookie twice, is refused with 400.
    ///
    /// Set the cookie with `HttpOnly; Secure; SameSite=Lax` (or `Strict`) and a name that starts
    /// with `__Host-`. **A browser sends cookies along with requests that other sites cause**
    /// (CSRF), which it never does with an `Authorization` header: besides `SameSite`, check the
    /// `Origin` header or a CSRF token on every request that changes something. This layer does
    /// not.
    #[must_use]
    pub fn cookie(mut self, name: &str) -> Self {
        self.policy().cookie = Some(name.into());
        self
    }

    fn policy(&mut self) -> &mut PhantomPolicy {
        Arc::make_mut(&mut self.0)
    }
}

impl<S> Layer<S> for PhantomLayer {
    type Service = TokenService<S>;

    fn layer(&self, inner: S) -> TokenService<S> {
        TokenService::phantom(inner, &self.0)
    }
}
