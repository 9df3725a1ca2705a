//! The gateway: a handle comes in, a JWT goes on.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloakroom_core::Scope;
use cloakroom_core::time::Clock;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::cache::Entry;
use crate::error::TokenError;
use crate::freshness::{self, Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::introspect::swap::{Replacement, Swap};
use crate::layer::authorization::{Presented, Token, authorization, cookie_token, remove_cookie};
use crate::layer::challenge::{Challenges, Refusal};
use crate::layer::response_future::ResponseFuture;
use crate::layer::token_source::{Settings, Source, Terms};
use crate::replica::RevocationReplica;
use crate::verify::proof::{Proof, Scheme};
use cloakroom_core::time::ClockReading;

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
/// # fn layers(client: IntrospectionClient, replica: RevocationReplica) -> [PhantomLayer; 2] {
/// // The classic short cache, at any server: revoked handles live on for 2 s at most.
/// let short = PhantomLayer::new(client.clone(), "https://orders.example")
///     .cache(100_000)
///     .freshness(Freshness::within(Duration::from_secs(2)));
///
/// // With the revocation log: revoked handles die as soon as the log tells it.
/// let followed = PhantomLayer::new(client, "https://orders.example")
///     .cache(100_000)
///     .replica(replica);
/// # [short, followed] }
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
pub struct PhantomLayer(Arc<Gateway>);

#[derive(Debug, Clone)]
struct Gateway {
    source: Arc<Source<Swap>>,
    settings: Settings,
    replica: Option<RevocationReplica>,
    handle_keys: Option<GatewayKeys>,
    /// What the app named, or what goes with the replica.
    freshness: Freshness,
    is_named: bool,
    when_stale: WhenStale,
    cookie: Option<Arc<str>>,
    challenges: Challenges,
}

impl PhantomLayer {
    /// Swaps handles for JWTs meant for `audience`, the service behind this gateway.
    #[must_use]
    pub fn new(introspector: impl Introspector, audience: &str) -> Self {
        let question = Swap { introspector: Arc::new(introspector), audience: audience.into() };
        let settings = Settings::default();
        Self(Arc::new(Gateway {
            source: Source::new(question, settings.clone()),
            settings,
            replica: None,
            handle_keys: None,
            freshness: Freshness::every_request(),
            is_named: false,
            when_stale: WhenStale::default(),
            cookie: None,
            challenges: Challenges::new(audience, &Scope::empty()),
        }))
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
        self.gateway().change(|settings| settings.capacity = handles);
        self
    }

    /// Refuses the handles that this replica of the revocation log says are revoked. While it is
    /// fresh enough, handles that are remembered need not be asked about again.
    ///
    /// Where no freshness is named, it may be 10 s behind, or a second more than it is while
    /// nothing is wrong, if that is longer.
    #[must_use]
    pub fn replica(mut self, replica: RevocationReplica) -> Self {
        let gateway = self.gateway();
        if let (false, Some(freshness)) = (gateway.is_named, freshness::default_of(Some(&replica)))
        {
            gateway.freshness = freshness;
        }
        gateway.replica = Some(replica);
        self
    }

    /// How long a revocation may take to reach the requests that go through this layer. Without it
    /// and without a [`replica`](Self::replica), every request asks the authorization server. A
    /// clone with another freshness shares the memory.
    #[must_use]
    pub fn freshness(mut self, freshness: Freshness) -> Self {
        let gateway = self.gateway();
        (gateway.freshness, gateway.is_named) = (freshness, true);
        self
    }

    /// What becomes of a handle that is remembered when the replica is too far behind:
    /// [`WhenStale::Introspect`] by default.
    #[must_use]
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.gateway().when_stale = when_stale;
        self
    }

    /// Refuses whatever is no handle of the authorization server without asking it.
    #[must_use]
    pub fn handle_keys(mut self, keys: GatewayKeys) -> Self {
        self.gateway().handle_keys = Some(keys);
        self
    }

    /// How much the authorization server may be asked.
    #[must_use]
    pub fn limits(mut self, limits: IntrospectionLimits) -> Self {
        self.gateway().change(|settings| settings.limits = limits);
        self
    }

    /// Takes the time from this clock. Forgets what is remembered.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.gateway().change(|settings| settings.clock = clock);
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
        self.gateway().cookie = Some(name.into());
        self
    }

    fn gateway(&mut self) -> &mut Gateway {
        Arc::make_mut(&mut self.0)
    }
}

impl Gateway {
    /// Begins with an empty memory: what was remembered, was under other settings.
    fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.source = self.source.with(self.settings.clone());
    }

    /// Takes the handle out of a request, with everything that must not go on.
    fn take(&self, headers: &mut HeaderMap) -> Result<Option<(Scheme, Token)>, Refusal> {
        // RFC 9110 §7.6.1: a proxy behind this layer removes what `Connection` names, and would
        // remove the JWT: a request that was let in would go on as nobody's.
        if names_authorization(headers) {
            return Err(Refusal::InvalidRequest);
        }
        let header = authorization(headers)?;
        let cookie = match &self.cookie {
            Some(name) => cookie_token(headers, name)?,
            None => None,
        };
        headers.remove(header::AUTHORIZATION);
        if let Some(name) = &self.cookie {
            remove_cookie(headers, name);
        }
        match (header, cookie) {
            // RFC 6750 §2: "Clients MUST NOT use more than one method to transmit the token in
            // each request."
            (Some(_), Some(_)) => Err(Refusal::InvalidRequest),
            (header, cookie) => Ok(header.or(cookie.map(|handle| (Scheme::Bearer, handle)))),
        }
    }

    /// What goes on in place of the handle, where that can be told at once.
    fn recall(
        &self,
        presented: &Presented,
        now: ClockReading,
    ) -> Option<Result<HeaderValue, Refusal>> {
        let handle = presented.token.as_ref().ok()?;
        presented.proof.check().ok()?;
        let entry = self.source.remembered(handle.expose(), &self.terms(now))?;
        Some(refused(entry.and_then(|entry| authorized(&entry, &presented.proof))))
    }

    async fn swap(&self, presented: Presented, now: ClockReading) -> Result<HeaderValue, Refusal> {
        let (handle, proof) = (presented.token?, presented.proof);
        refused(self.authorization(&handle, &proof, now).await)
    }

    async fn authorization(
        &self,
        handle: &Token,
        proof: &Proof,
        now: ClockReading,
    ) -> Result<HeaderValue, TokenError> {
        proof.check()?;
        let entry = self.source.get(handle.expose(), self.terms(now)).await?;
        authorized(&entry, proof)
    }

    fn terms(&self, now: ClockReading) -> Terms<'_> {
        Terms {
            now,
            freshness: self.freshness,
            when_stale: self.when_stale,
            replica: self.replica.as_ref(),
            handle_keys: self.handle_keys.as_ref(),
        }
    }
}

fn authorized(entry: &Entry<Arc<Replacement>>, proof: &Proof) -> Result<HeaderValue, TokenError> {
    // Nobody behind the gateway can check this any more: the proof is about the handle.
    proof.covers(entry.answer.confirmation.as_ref())?;
    Ok(entry.answer.value.authorization.clone())
}

fn refused(result: Result<HeaderValue, TokenError>) -> Result<HeaderValue, Refusal> {
    result.map_err(|error| {
        crate::trace_refusal(&error);
        Refusal::from(&error)
    })
}

fn names_authorization(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        // Bytes: a proxy behind may not mind that some of them are no text.
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"authorization"))
    })
}

impl<S> Layer<S> for PhantomLayer {
    type Service = PhantomService<S>;

    fn layer(&self, inner: S) -> PhantomService<S> {
        PhantomService { inner, gateway: Arc::clone(&self.0) }
    }
}

/// The service that [`PhantomLayer`] makes.
#[derive(Debug, Clone)]
pub struct PhantomService<S> {
    inner: S,
    gateway: Arc<Gateway>,
}

impl<S, B, R> Service<Request<B>> for PhantomService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = ClockReading::now(&*self.gateway.settings.clock);
        let handle = self.gateway.take(request.headers_mut());
        let presented = Presented::new(handle, request.extensions());
        let scheme = presented.scheme;
        // Nothing is copied for a request that needs not wait.
        let recalled = self.gateway.recall(&presented, now);
        if let Some(Ok(authorization)) = recalled {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
            return ResponseFuture::inner(self.inner.call(request));
        }
        // The inner service that was polled ready is the one to call, or to give up what it has
        // reserved; its clone may not be ready.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let gateway = Arc::clone(&self.gateway);
        if let Some(Err(refusal)) = recalled {
            let refused = async move { Ok(gateway.challenges.response(refusal, scheme)) };
            return ResponseFuture::waiting(refused);
        }
        ResponseFuture::waiting(async move {
            match gateway.swap(presented, now).await {
                Ok(authorization) => {
                    request.headers_mut().insert(header::AUTHORIZATION, authorization);
                    inner.call(request).await
                }
                Err(refusal) => Ok(gateway.challenges.response(refusal, scheme)),
            }
        })
    }
}
