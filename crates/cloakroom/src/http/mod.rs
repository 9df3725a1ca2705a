//! The endpoints: framework-free handlers over [`http`] types, and an axum router over them.
//!
//! | path, after the issuer's | method | RFC |
//! |---|---|---|
//! | `/token` | POST | 6749 §3.2, 7636, 8707 |
//! | `/introspect` | POST | 7662, 9701, or only the phantom JWT |
//! | `/revoke` | POST | 7009 |
//! | `/revocations?after=…&wait=…` | GET, POST | the revocation log, for [`Role::RevocationLog`] |
//! | `/handle-keys` | GET, POST | the keys that detect forged handles, for [`Role::HandleKeys`] |
//! | `/register` | POST, GET, PUT, DELETE | 7591, 7592; off unless [`Endpoints::registration`] |
//! | `/.well-known/jwks.json` | GET | 7517 |
//! | `/.well-known/oauth-authorization-server`, *before* the issuer's path | GET | 8414 |
//!
//! The metadata has the URLs of the two endpoints without an RFC in `revocations_endpoint` and `handle_keys_endpoint`.
//! With GET, a client authenticates there with a header, or with its certificate and the parameter `client_id`; a
//! secret or an assertion in the URL is not read, since URLs are logged. With POST, all parameters are in a form, and a
//! client authenticates as at the other endpoints.
//!
//! The revocation log is read by long polling. The response is a
//! [`RevocationPage`](cloakroom_core::revocation::RevocationPage) with the entries after the cursor
//! `after`, or from the start of the log without a cursor. The server responds at once if there are
//! entries. Otherwise it responds when the log grows, or with an empty page after `wait` seconds. A
//! page holds at most `limit` entries, and never more than 1,000 entries or 192 KiB. However many
//! clients wait for the same page, the log is read once and the page is encoded once.
//!
//! You write the authorization endpoint, since it signs the user in and asks for consent.
//! [`AuthorizationRequest`](crate::AuthorizationRequest) checks its requests and makes its responses. Name
//! its URL with [`Endpoints::authorization_page`]. [`Browser`] knows who is signed in at your pages.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloakroom::http::Endpoints;
//! use cloakroom::{Client, Issuer};
//!
//! let issuer = Issuer::dev().static_clients([Client::public("app")])?.build().await?;
//! let endpoints = Endpoints::new(issuer);
//!
//! let request = http::Request::get("/.well-known/jwks.json").body(bytes::Bytes::new())?;
//! let response = endpoints.handle(request).await;
//! assert_eq!(response.status(), 200);
//! assert!(response.headers().contains_key("etag"));
//! # Ok(()) }
//! ```

pub(crate) mod revocations;

mod accept_header;
mod authenticate;
mod authorization;
#[cfg(feature = "axum")]
mod axum;
mod browser;
mod cors;
mod form;
mod handle_keys;
mod introspection;
mod metadata;
mod registration;
mod respond;
mod revoke;
#[cfg(feature = "serve")]
mod serve;
mod token;

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::InvalidValue;
use tokio::sync::Semaphore;

use crate::client::Client;
use crate::client::registration::Role;
use crate::error::{AuthenticationFailure, TokenError};
use crate::issuer::Issuer;
use crate::metrics::{self, Timer};

pub use authenticate::{ClientAuthenticator, SecretAuthenticator};
pub use browser::{Browser, SignIn};
pub use form::Form;
pub use registration::{Registration, RegistrationRefusal, RegistrationRequest};
#[cfg(feature = "serve")]
pub use serve::{Server, serve};

// The foreign types in the signatures above and below.
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
pub use bytes::Bytes;

/// The default of [`Endpoints::body_limit`], in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The default of [`Endpoints::max_wait`].
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The default of [`Endpoints::max_followers`].
const MAX_FOLLOWERS: usize = 4096;

/// The endpoints of an issuer. Cheap to clone.
///
/// Your middleware verifies the key that a client proves, with a `DPoP` proof or a client
/// certificate, and puts a [`Confirmation`](cloakroom_core::Confirmation) into the extensions of
/// the request. It may put a [`Device`](crate::Device) there as well, such as the address of the browser:
/// `/token` updates the session with it ([`RefreshRequest::device`](crate::RefreshRequest::device)).
#[derive(Debug, Clone)]
pub struct Endpoints {
    issuer: Issuer,
    authenticator: Arc<dyn ClientAuthenticator>,
    /// The path of the issuer's URL, without a slash at its end.
    path: Arc<str>,
    /// The members that [`Endpoints::add_metadata`] added.
    metadata: serde_json::Map<String, serde_json::Value>,
    origins: cors::Origins,
    cache_swapped: Duration,
    keeps_user_agents: bool,
    body_limit: usize,
    max_wait: Duration,
    /// One permit for each follower that waits for the revocation log to grow.
    followers: Arc<Semaphore>,
    page_cache: revocations::page_cache::PageCache,
    registration: Option<Registration>,
}

/// The endpoints by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Token,
    Introspect,
    Revoke,
    Revocations,
    HandleKeys,
    Register,
    JwkSet,
    Metadata,
}

impl Endpoint {
    /// Its name in metrics: the end of its path.
    fn label(self, uri: &::http::Uri) -> &str {
        match self {
            Self::Metadata => "metadata",
            _ => uri.path().rsplit('/').next().unwrap_or_default(),
        }
    }
}

const TOKEN: &str = "/token";
const INTROSPECT: &str = "/introspect";
const REVOKE: &str = "/revoke";
const REVOCATIONS: &str = "/revocations";
const HANDLE_KEYS: &str = "/handle-keys";
const REGISTER: &str = "/register";
const JWK_SET: &str = "/.well-known/jwks.json";
const METADATA: &str = "/.well-known/oauth-authorization-server";

impl Endpoints {
    /// The endpoints of this issuer, with [`SecretAuthenticator`].
    #[must_use]
    pub fn new(issuer: Issuer) -> Self {
        let path = url::Url::parse(issuer.url())
            .map_or_else(|_| String::new(), |url| url.path().trim_end_matches('/').to_owned());
        Self {
            issuer,
            authenticator: Arc::new(SecretAuthenticator),
            path: path.into(),
            metadata: serde_json::Map::new(),
            origins: cors::Origins::default(),
            cache_swapped: Duration::ZERO,
            keeps_user_agents: false,
            body_limit: BODY_LIMIT,
            max_wait: MAX_WAIT,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            page_cache: revocations::page_cache::PageCache::default(),
            registration: None,
        }
    }

    /// Authenticates clients with an authenticator of your own.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn ClientAuthenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Adds the URL of your authorization endpoint to the metadata. Without it, the metadata offers
    /// neither `code` nor `authorization_code`, since clients would not know where to request a
    /// code; `/token` still redeems codes.
    #[must_use]
    pub fn authorization_endpoint(self, url: &str) -> Self {
        self.add_metadata("authorization_endpoint", url.into())
    }

    /// Adds to the metadata the URL of your authorization endpoint, which must read its requests with
    /// [`AuthorizationRequest`](crate::AuthorizationRequest), and what that type supports: `iss` in each response (RFC
    /// 9207), the response modes and prompts, and no request objects.
    #[must_use]
    pub fn authorization_page(self, url: &str) -> Self {
        self.authorization_endpoint(url)
            .authorization_response_iss()
            .add_metadata("response_modes_supported", ["query", "form_post"].as_slice().into())
            .add_metadata("request_parameter_supported", false.into())
            // OpenID Connect Discovery §3: without this member, it would be supported.
            .add_metadata("request_uri_parameter_supported", false.into())
    }

    /// Says in the metadata that your authorization endpoint names the issuer in `iss` in each of its
    /// responses, errors included (`authorization_response_iss_parameter_supported`, RFC 9207 §3).
    /// [`Issuer::authorization_response`] does so. Clients then refuse a response without `iss`.
    #[must_use]
    pub fn authorization_response_iss(self) -> Self {
        self.add_metadata("authorization_response_iss_parameter_supported", true.into())
    }

    /// Adds a member to the metadata, such as `service_documentation` (RFC 8414 §2). It does not
    /// replace a member that the server itself writes, such as `issuer` or `jwks_uri`, except
    /// `scopes_supported`, which otherwise lists the scope values of the directory
    /// ([`ClientDirectory::scopes`](crate::ClientDirectory::scopes)). A member that is `null` is
    /// omitted.
    #[must_use]
    pub fn add_metadata(mut self, name: &str, value: serde_json::Value) -> Self {
        self.metadata.insert(name.into(), value);
        self
    }

    /// Allows scripts of this origin, such as `https://app.example`, to call `/token`, `/revoke` and `/register`
    /// and to read the JWK Set and the metadata (CORS). By default no origin is allowed.
    ///
    /// It is normalized: capital letters in scheme and host, a default port and a trailing slash
    /// make no difference.
    ///
    /// # Errors
    ///
    /// If it is not an origin. `*`, `null` and URLs with a path are refused: with the first two,
    /// anyone's script could act with the user's rights.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, InvalidValue> {
        self.origins.allow(origin)?;
        Ok(self)
    }

    /// Also allows scripts to send this header; `authorization`, `content-type`, `dpop` and
    /// `mcp-protocol-version` are always allowed.
    #[must_use]
    pub fn allow_header(mut self, name: HeaderName) -> Self {
        self.origins.allow_header(name);
        self
    }

    /// Also lets scripts read this header of a response; they may always read `dpop-nonce`,
    /// `retry-after` and `www-authenticate`.
    #[must_use]
    pub fn expose_header(mut self, name: HeaderName) -> Self {
        self.origins.expose_header(name);
        self
    }

    /// Allows HTTP caches to keep a swapped JWT for at most this long, and never beyond its
    /// lifetime. If the handle is revoked, the JWT stays in such a cache. By default nothing is
    /// cached.
    #[must_use]
    pub const fn cache_swapped(mut self, at_most: Duration) -> Self {
        self.cache_swapped = at_most;
        self
    }

    /// Keeps the `User-Agent` of the requests to `/token` in the description of the session, as
    /// `user_agent`: its first 256 characters. By default nothing of a request is kept.
    #[must_use]
    pub const fn keep_user_agents(mut self) -> Self {
        self.keeps_user_agents = true;
        self
    }

    /// The largest size of the body of a request, in bytes (64 KiB by default).
    #[must_use]
    pub const fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// The longest time that a follower of the revocation log waits for the next entry, however
    /// long it requests (30 seconds by default, and at most 5 minutes). Proxies in between must
    /// allow such long requests.
    #[must_use]
    pub fn max_wait(mut self, at_most: Duration) -> Self {
        self.max_wait = at_most.min(Duration::from_secs(300));
        self
    }

    /// The largest number of followers of the revocation log that may wait at the same time (4,096
    /// by default). Others get 503 and try again.
    #[must_use]
    pub fn max_followers(mut self, at_most: usize) -> Self {
        self.followers = Arc::new(Semaphore::new(at_most.min(Semaphore::MAX_PERMITS)));
        self
    }

    /// The issuer.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Answers a request to any of the endpoints.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.respond(&request).await
    }

    async fn respond(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let Some(endpoint) = self.endpoint(request.uri().path()) else {
            return respond::not_found();
        };
        let shared = self.is_shared(endpoint);
        if shared && request.method() == Method::OPTIONS {
            return self.origins.preflight(request.headers());
        }
        let timer = Timer::start();
        let mut response = self.dispatch(endpoint, request).await;
        let status = response.status().as_u16();
        metrics::request(endpoint.label(request.uri()), status, &timer);
        if shared {
            self.origins.mark(request.headers(), response.headers_mut());
        }
        if request.method() == Method::HEAD {
            respond::head_only(&mut response);
        }
        response
    }

    /// The refusal of a request whose body was not read.
    #[cfg(feature = "axum")]
    fn refused(
        &self,
        request: &::http::request::Parts,
        mut response: Response<Bytes>,
        timer: &Timer,
    ) -> Response<Bytes> {
        let Some(endpoint) = self.endpoint(request.uri.path()) else { return response };
        metrics::request(endpoint.label(&request.uri), response.status().as_u16(), timer);
        if self.is_shared(endpoint) {
            self.origins.mark(&request.headers, response.headers_mut());
        }
        response
    }

    /// Whether scripts of other origins may call it. They may not call the endpoints of resource
    /// servers.
    fn is_shared(&self, endpoint: Endpoint) -> bool {
        let inside =
            matches!(endpoint, Endpoint::Introspect | Endpoint::Revocations | Endpoint::HandleKeys);
        !inside && self.origins.any()
    }

    async fn dispatch(&self, endpoint: Endpoint, request: &Request<Bytes>) -> Response<Bytes> {
        let allowed = match endpoint {
            Endpoint::JwkSet | Endpoint::Metadata => [Method::GET, Method::HEAD].as_slice(),
            Endpoint::Revocations | Endpoint::HandleKeys => [Method::GET, Method::POST].as_slice(),
            Endpoint::Register => {
                [Method::POST, Method::GET, Method::PUT, Method::DELETE].as_slice()
            }
            _ => [Method::POST].as_slice(),
        };
        if !allowed.contains(request.method()) {
            return respond::method_not_allowed(allowed);
        }
        if request.body().len() > self.body_limit {
            return respond::too_large();
        }
        // Boxed, so that the future of every request is not as large as the largest of these.
        let answer = match endpoint {
            Endpoint::Token => Box::pin(self.token(request)).await,
            Endpoint::Introspect => Box::pin(self.introspect(request)).await,
            Endpoint::Revoke => Box::pin(self.revoke(request)).await,
            Endpoint::Revocations => {
                Box::pin(self.revocations(request)).await.or_else(respond::forbidden)
            }
            Endpoint::HandleKeys => {
                Box::pin(self.handle_keys(request)).await.or_else(respond::forbidden)
            }
            Endpoint::Register => match &self.registration {
                Some(registration) => Box::pin(self.register(request, registration)).await,
                None => Ok(respond::not_found()),
            },
            Endpoint::JwkSet => Box::pin(self.jwk_set(request)).await,
            Endpoint::Metadata => Ok(self.metadata()),
        };
        answer.unwrap_or_else(|error| {
            if let TokenError::InvalidClient(reason) = error {
                let (claimed, method) = authenticate::claimed(request);
                let claimed = claimed.as_ref().map(|claimed| claimed.as_str());
                self.issuer.inner.refusals.authentication(claimed, method, reason);
            }
            respond::error(&error)
        })
    }

    fn endpoint(&self, path: &str) -> Option<Endpoint> {
        // RFC 8414 §3.1: the well-known part stands between the host and the issuer's path.
        if path.strip_prefix(METADATA) == Some(&*self.path) {
            return Some(Endpoint::Metadata);
        }
        match path.strip_prefix(&*self.path)? {
            TOKEN => Some(Endpoint::Token),
            INTROSPECT => Some(Endpoint::Introspect),
            REVOKE => Some(Endpoint::Revoke),
            REVOCATIONS => Some(Endpoint::Revocations),
            HANDLE_KEYS => Some(Endpoint::HandleKeys),
            REGISTER if self.registration.is_some() => Some(Endpoint::Register),
            JWK_SET => Some(Endpoint::JwkSet),
            _ => None,
        }
    }

    async fn authenticate(
        &self,
        request: &Request<Bytes>,
        form: &Form,
    ) -> Result<Arc<Client>, TokenError> {
        self.authenticator.authenticate(request, form, self.issuer.clients()).await
    }

    /// Authenticates the client of an endpoint that no RFC defines. It must have this role.
    async fn authorized(
        &self,
        request: &Request<Bytes>,
        form: &Form,
        role: Role,
    ) -> Result<(), TokenError> {
        let client = self.authenticate(request, form).await?;
        if client.is_public() {
            return Err(AuthenticationFailure::PublicClient.into());
        }
        if !client.has_role(role) {
            return Err(TokenError::UnauthorizedClient("the client lacks the role for this"));
        }
        Ok(())
    }
}

/// The parameters that a client may authenticate with: the form of a POST, and with GET no more than
/// `client_id`, which a client that shows a certificate sends (RFC 8705 §2).
fn credentials(request: &Request<Bytes>) -> Result<Form, TokenError> {
    if request.method() == Method::POST {
        return Form::of(request);
    }
    // RFC 6749 §2.3.1: credentials as parameters "MUST NOT be included in the request URI".
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    Ok(query.unwrap_or_default().only("client_id"))
}
