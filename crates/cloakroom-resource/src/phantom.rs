//! The gateway: a handle comes in, a JWT goes on.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloakroom_core::{Scope, TokenSecret};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::authorization::{Presented, authorization, cookie_token, remove_cookie};
use crate::challenge::{Challenges, Refusal};
use crate::error::{InvalidToken, Outage, TokenError};
use crate::introspection::Introspector;
use crate::proof::{Proof, Scheme};

/// A tower layer for API gateways: swaps the opaque handle of a request for the short-lived JWT
/// that stands for it at one audience (the phantom token pattern), and passes the request on with
/// `Authorization: Bearer <jwt>`. Clients never see the JWT; services never see the handle.
///
/// Whatever a client put into `Authorization` is replaced: no JWT of its own gets through. Every
/// request asks the authorization server, so that a revoked handle is refused at once. Requests
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
///     Introspection, Introspector, Outage, PhantomLayer, Swapped, TokenSecret, async_trait,
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
///     async fn swap(&self, _: &TokenSecret, _: &str) -> Result<Option<Swapped>, Outage> {
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
    introspector: Arc<dyn Introspector>,
    audience: Arc<str>,
    cookie: Option<Arc<str>>,
    challenges: Challenges,
}

impl PhantomLayer {
    /// Swaps handles for JWTs meant for `audience`, the service behind this gateway.
    #[must_use]
    pub fn new(introspector: impl Introspector, audience: &str) -> Self {
        Self(Arc::new(Gateway {
            introspector: Arc::new(introspector),
            audience: audience.into(),
            cookie: None,
            challenges: Challenges::new(audience, &Scope::empty()),
        }))
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
        Arc::make_mut(&mut self.0).cookie = Some(name.into());
        self
    }
}

impl Gateway {
    /// Takes the handle out of a request, with everything that must not go on.
    fn take(&self, headers: &mut HeaderMap) -> Result<Option<(Scheme, TokenSecret)>, Refusal> {
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

    async fn swap(&self, presented: Presented) -> Result<HeaderValue, Refusal> {
        let (handle, proof) = (presented.token?, presented.proof);
        self.authorization(&handle, &proof).await.map_err(|error| {
            crate::trace_refusal(&error);
            Refusal::from(&error)
        })
    }

    async fn authorization(
        &self,
        handle: &TokenSecret,
        proof: &Proof,
    ) -> Result<HeaderValue, TokenError> {
        proof.check()?;
        let swapped = self.introspector.swap(handle, &self.audience).await?;
        let swapped = swapped.ok_or(InvalidToken::Inactive)?;
        // Nobody behind the gateway can check this any more: the proof is about the handle.
        proof.covers(swapped.confirmation())?;
        let value = TokenSecret::new(format!("Bearer {}", swapped.jwt().expose()));
        let mut value = HeaderValue::from_str(value.expose()).map_err(Outage::other)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn names_authorization(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|name| name.trim().eq_ignore_ascii_case("authorization"))
        })
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
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The inner service that was polled ready is the one to call; its clone may not be ready.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let gateway = Arc::clone(&self.gateway);
        let handle = gateway.take(request.headers_mut());
        let presented = Presented::new(handle, request.extensions());
        let scheme = presented.scheme;
        Box::pin(async move {
            match gateway.swap(presented).await {
                Ok(authorization) => {
                    request.headers_mut().insert(header::AUTHORIZATION, authorization);
                    inner.call(request).await
                }
                Err(refusal) => Ok(gateway.challenges.response(refusal, scheme)),
            }
        })
    }
}
