//! A gateway that swaps handles for JWTs.

use std::sync::Arc;

use cloakroom_core::time::Clock;
use tower_layer::Layer;

use crate::client::credentials::ClientCredentials;
use crate::client::discovery::Metadata;
use crate::client::http::HttpClient;
use crate::client::protected::Protected;
use crate::error::SetupError;
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::introspect::{IntrospectionClient, Introspector};
use crate::layer::phantom_policy::PhantomPolicy;
use crate::layer::resource_metadata::ResourceMetadata;
use crate::layer::service::TokenService;
use crate::revocation_replica::{HttpLog, RevocationReplica};

/// A tower layer for API gateways: it swaps the opaque handle of a request for a short-lived JWT for
/// one audience (the phantom token pattern), and forwards the request with
/// `Authorization: Bearer <jwt>`. Clients never see the JWT; services never see the handle.
///
/// The layer always replaces `Authorization`, so a client cannot send a JWT of its own to the
/// service. It answers requests without a valid handle itself, as
/// [`BearerLayer`](crate::BearerLayer) does: 401, 400, or 503 if the authorization server does not
/// answer.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::any};
/// use cloakroom_resource::{ClientCredentials, PhantomLayer};
/// # async fn proxy() {}
///
/// let credentials = ClientCredentials::new("gateway", std::env::var("GATEWAY_SECRET")?);
/// let swap =
///     PhantomLayer::discover("https://as.example", "https://orders.example", credentials).await?;
///
/// let gateway: Router = Router::new().route("/orders/{*path}", any(proxy)).route_layer(swap);
/// # Ok(()) }
/// ```
///
/// [`new`](Self::new) takes the parts one by one, and suits servers that have no revocation log.
///
/// You can use any [`Introspector`], such as an authorization server in the same process:
///
/// ```
/// use cloakroom_resource::http::{Request, Response, StatusCode};
/// use cloakroom_resource::{
///     Introspection, Introspector, UnavailableError, PhantomLayer, PhantomJwt, TokenSecret, async_trait,
/// };
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// #[derive(Debug)]
/// struct NothingIsActive;
///
/// #[async_trait]
/// impl Introspector for NothingIsActive {
///     async fn introspect(&self, _: &TokenSecret) -> Result<Introspection, UnavailableError> {
///         Ok(Introspection::Inactive)
///     }
///     async fn swap(&self, _: &TokenSecret, _: &str) -> Result<Option<PhantomJwt>, UnavailableError> {
///         Ok(None)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = ServiceBuilder::new()
///     .layer(PhantomLayer::new(NothingIsActive, "https://orders.example"))
///     .service(service_fn(|_: Request<String>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(String::new()))
///     }));
///
/// let request = Request::get("/orders").header("authorization", "Bearer cr_at_x").body(String::new())?;
/// assert_eq!(gateway.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
/// # Ok(()) }
/// ```
/// # Other headers
///
/// The layer forwards all other headers. A service that reads the caller's identity from headers
/// (`X-User`, `Role`, `Tenant`, …) would believe any client. Forward headers by an allow-list in
/// the proxy behind this layer, as `examples/gateway` does, or let your services trust only the
/// JWT.
///
/// # How often a handle is swapped
///
/// By default, the layer asks the authorization server for every request, so a revoked handle is
/// refused at once. Requests that wait for the same handle share an answer. With a
/// [cache](Self::cache), and a [freshness](Self::freshness) or a [replica](Self::replica) of the
/// revocation log, it asks once for each handle, again when the JWT has expired, and whenever it
/// cannot tell otherwise that the handle is not revoked:
///
/// ```no_run
/// # use cloakroom_resource::{Freshness, IntrospectionClient, PhantomLayer, RevocationReplica};
/// # use std::time::Duration;
/// # use cloakroom_resource::SetupError;
/// # fn layers(
/// #     client: IntrospectionClient,
/// #     replica: RevocationReplica,
/// # ) -> Result<[PhantomLayer; 2], SetupError> {
/// // A short cache, for any server: a revoked handle works for at most 2 s more.
/// let short = PhantomLayer::new(client.clone(), "https://orders.example")
///     .cache(100_000)
///     .freshness(Freshness::within(Duration::from_secs(2)))?;
///
/// // With the revocation log: a revoked handle stops working as soon as the log brings it.
/// let followed = PhantomLayer::new(client, "https://orders.example")
///     .cache(100_000)
///     .replica(replica);
/// # Ok([short, followed]) }
/// ```
///
/// # Handles bound to a key
///
/// A handle with `cnf` is swapped only with a proof of that key. Your middleware verifies the proof
/// and puts the key into the request's extensions, as [`BearerLayer`](crate::BearerLayer)
/// describes. A handle bound by `DPoP` must be sent in that scheme; in a cookie it is refused.
///
/// The JWT is forwarded as `Bearer` and keeps its `cnf`. **The service behind the gateway gets a bound
/// JWT whose proof only the gateway could check.** It refuses that JWT unless you use
/// [`Verifier::trust_gateway_proofs`](crate::Verifier::trust_gateway_proofs).
#[derive(Debug, Clone)]
pub struct PhantomLayer(Arc<PhantomPolicy>);

/// How many JWTs are cached by a layer that was discovered.
const CACHED: usize = 100_000;

impl PhantomLayer {
    /// All that a Cloakroom server offers a gateway, found through the issuer's metadata (RFC 8414): a handle
    /// is swapped once, its JWT is [cached](Self::cache) (100,000 of them) and refused as soon as the
    /// [revocation log](Self::replica) says so, and invented tokens are refused by the
    /// [handle keys](Self::handle_keys). If the server adopts tokens of another server or has custom formats,
    /// call [`introspect_other_tokens`](Self::introspect_other_tokens): else the handle keys refuse them.
    ///
    /// At the server, the gateway is a resource server for `audience` that may read the revocation log
    /// and the handle keys (`Role::RevocationLog`, `Role::HandleKeys`).
    ///
    /// # Errors
    ///
    /// [`SetupError`] if the metadata cannot be fetched, belongs to another issuer or lacks one of the
    /// three endpoints, or if the log cannot be read: the server is down, or this client may not.
    #[cfg(feature = "client")]
    pub async fn discover(
        issuer: &str,
        audience: &str,
        credentials: ClientCredentials,
    ) -> Result<Self, SetupError> {
        Self::discover_with(issuer, audience, credentials, crate::ReqwestClient::new()?).await
    }

    /// Like `discover`, with your own HTTP client.
    ///
    /// # Errors
    ///
    /// As `discover`.
    pub async fn discover_with(
        issuer: &str,
        audience: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let metadata = Metadata::fetch(issuer, &*client).await?;
        let at = |what, endpoint| {
            Protected::at(what, endpoint, credentials.clone(), Arc::clone(&client))
        };
        let swaps = at("introspection_endpoint", metadata.introspection_endpoint()?)?;
        let keys = at("handle_keys_endpoint", metadata.handle_keys_endpoint()?)?;
        let log = at("revocations_endpoint", metadata.revocations_endpoint()?)?;
        let replica =
            RevocationReplica::follow(HttpLog::from(log)).await.map_err(SetupError::Log)?;
        Ok(Self::new(IntrospectionClient::from(swaps), audience)
            .cache(CACHED)
            .handle_keys(GatewayKeys::from(keys))
            .replica(replica))
    }

    /// Swaps handles for JWTs whose audience is `audience`, the service behind this gateway.
    #[must_use]
    pub fn new(introspector: impl Introspector, audience: &str) -> Self {
        Self(Arc::new(PhantomPolicy::new(Arc::new(introspector), audience)))
    }

    /// Caches the JWTs of up to this many handles, each until it expires. Set a
    /// [`freshness`](Self::freshness) or a [`replica`](Self::replica) as well: without either,
    /// every request asks the authorization server anyway.
    ///
    /// An entry takes about 0.7 KB plus the size of its JWT. A JWT larger than 1 KiB counts as one
    /// entry for each KiB begun. Up to 10,000 refused handles are cached separately, for the
    /// layer's freshness and at most 10 s, so invented handles cannot evict valid ones. Clones of
    /// this layer share the cache.
    #[must_use]
    pub fn cache(mut self, handles: usize) -> Self {
        self.policy().change(|settings| settings.capacity = handles);
        self
    }

    /// Refuses handles that are revoked according to this replica of the revocation log. While the
    /// replica is fresh enough, cached handles are not swapped again.
    ///
    /// If you set no freshness, the replica may be 10 s behind, or its
    /// [`steady_staleness`](RevocationReplica::steady_staleness) plus 1 s, whichever is longer.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        self.policy().follow(replica);
        self
    }

    /// How long a revocation may take to reach the requests that go through this layer. Without it
    /// and without a [`replica`](Self::replica), every request asks the authorization server. A
    /// clone with another freshness shares the cache.
    ///
    /// Set it after [`replica`](Self::replica) and [`when_stale`](Self::when_stale): what can be met
    /// depends on them.
    ///
    /// # Errors
    ///
    /// [`SetupError::Freshness`] if requests are refused when the replica is stale
    /// ([`WhenStale::Refuse`]), and the replica is further behind than this even in normal
    /// operation.
    pub fn freshness(mut self, freshness: Freshness) -> Result<Self, SetupError> {
        self.policy().set_freshness(freshness)?;
        Ok(self)
    }

    /// What happens to a request with a cached handle when the replica is too far behind. The
    /// default is [`WhenStale::Introspect`].
    #[must_use]
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.policy().when_stale = when_stale;
        self
    }

    /// Refuses tokens that are not handles of the authorization server, without asking it.
    #[must_use]
    pub fn handle_keys(mut self, keys: GatewayKeys) -> Self {
        self.policy().handle_keys = Some(keys);
        self
    }

    /// Introspects tokens that do not look like handles, as
    /// [`GatewayKeys::introspect_other_tokens`] does. Without [`handle_keys`](Self::handle_keys) nothing changes:
    /// every token is introspected then.
    #[must_use]
    pub fn introspect_other_tokens(mut self) -> Self {
        let policy = self.policy();
        policy.handle_keys = policy.handle_keys.take().map(GatewayKeys::introspect_other_tokens);
        self
    }

    /// How many swaps this layer may send.
    #[must_use]
    pub fn limits(mut self, limits: IntrospectionLimits) -> Self {
        self.policy().change(|settings| settings.limits = limits);
        self
    }

    /// Takes the time from this clock, and clears the cache.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.policy().change(|settings| settings.clock = clock);
        self
    }

    /// Also takes the handle from the cookie with this name, and removes the cookie from the forwarded
    /// request. A request with a handle in both places, or with the cookie twice, is refused with 400.
    ///
    /// Set the cookie with `HttpOnly; Secure; SameSite=Lax` (or `Strict`) and a name that starts
    /// with `__Host-`. **Browsers attach cookies to requests that other sites trigger** (CSRF), but
    /// never an `Authorization` header. In addition to `SameSite`, check the `Origin` header or a
    /// CSRF token on every request that changes something. This layer does not.
    #[must_use]
    pub fn cookie(mut self, name: &str) -> Self {
        self.policy().cookie = Some(name.into());
        self
    }

    /// Names this metadata in each 401 (`resource_metadata`, RFC 9728 §5.1). Serve it as well: it is a
    /// layer. Its `resource` is what clients request tokens for, which may be another audience than that
    /// of the JWTs.
    #[must_use]
    pub fn announce(mut self, metadata: &ResourceMetadata) -> Self {
        self.policy().announce(metadata);
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
