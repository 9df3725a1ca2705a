//! The endpoints: framework-free handlers over [`http`] types, and an axum router over them.
//!
//! | path, after the issuer's | method | RFC |
//! |---|---|---|
//! | `/token` | POST | 6749 §3.2, 7636, 8707 |
//! | `/introspect` | POST | 7662, 9701, and the phantom JWT alone |
//! | `/revoke` | POST | 7009 |
//! | `/revocations?after=…&wait=…` | GET | the revocation log, for [`Role::RevocationLog`] |
//! | `/handle-keys` | GET | what tells a forged handle, for [`Role::HandleKeys`] |
//! | `/.well-known/jwks.json` | GET | 7517 |
//! | `/.well-known/oauth-authorization-server`, *before* the issuer's path | GET | 8414 |
//!
//! The metadata names the two of ours as `revocations_endpoint` and `handle_keys_endpoint`; clients
//! authenticate there with a header, since there is no form.
//!
//! The revocation log is handed out by long poll: a
//! [`RevocationPage`](cloakroom_core::revocation::RevocationPage) with what comes after the cursor `after` (all
//! of it, without one), at once if there is anything, else when the log grows, else empty after `wait`
//! seconds. A page holds at most `limit` entries, 1,000, and 192 KiB. However many wait at one place,
//! the log is read once when it grows, and the page encoded once.
//!
//! The authorization endpoint is the app's own: it signs the user in, asks for consent, and calls
//! [`Issuer::authorize`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloakroom::http::Endpoints;
//! use cloakroom::{Client, Issuer};
//!
//! let issuer = Issuer::dev().static_clients([Client::public("app")?])?.build().await?;
//! let endpoints = Endpoints::new(issuer);
//!
//! let request = http::Request::get("/.well-known/jwks.json").body(bytes::Bytes::new())?;
//! let response = endpoints.handle(request).await;
//! assert_eq!(response.status(), 200);
//! assert!(response.headers().contains_key("etag"));
//! # Ok(()) }
//! ```

pub(crate) mod revocations;

mod accept;
mod authenticate;
#[cfg(feature = "axum")]
mod axum;
mod cors;
mod form;
mod handle_keys;
mod introspection;
mod metadata;
mod respond;
mod revocation;
#[cfg(feature = "serve")]
mod serve;
mod token;

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::client::Client;
use crate::client::registration::Role;
use crate::error::{AuthenticationFailure, TokenError};
use crate::issuer::Issuer;

pub use authenticate::{ClientAuthenticator, SecretAuthenticator};
pub use form::Form;
#[cfg(feature = "serve")]
pub use serve::{Server, serve};

/// The most bytes that the body of a request may have, by default.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a follower of the revocation log is kept waiting at most, by default.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How many followers may wait at once, by default.
const MAX_FOLLOWERS: usize = 4096;

/// The endpoints of an issuer. Cheap to clone.
///
/// The key that a client has proved (a `DPoP` proof, a client certificate) is taken from the
/// request's extensions, where the app's own middleware puts a
/// [`Confirmation`](cloakroom_core::Confirmation).
#[derive(Debug, Clone)]
pub struct Endpoints {
    issuer: Issuer,
    authenticator: Arc<dyn ClientAuthenticator>,
    /// The path of the issuer's URL, without a slash at its end.
    path: Arc<str>,
    /// Members that the app adds to the metadata.
    metadata: serde_json::Map<String, serde_json::Value>,
    origins: cors::Origins,
    cache_swapped: Duration,
    body_limit: usize,
    max_wait: Duration,
    /// The places of those who wait for the revocation log to grow.
    followers: Arc<Semaphore>,
    page_cache: revocations::page_cache::PageCache,
}

/// The endpoints by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Token,
    Introspect,
    Revoke,
    Revocations,
    HandleKeys,
    JwkSet,
    Metadata,
}

const TOKEN: &str = "/token";
const INTROSPECT: &str = "/introspect";
const REVOKE: &str = "/revoke";
const REVOCATIONS: &str = "/revocations";
const HANDLE_KEYS: &str = "/handle-keys";
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
            body_limit: BODY_LIMIT,
            max_wait: MAX_WAIT,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            page_cache: revocations::page_cache::PageCache::default(),
        }
    }

    /// Authenticates clients in a way of the app's own.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn ClientAuthenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Names the app's authorization endpoint in the metadata.
    #[must_use]
    pub fn authorization_endpoint(self, url: &str) -> Self {
        self.add_metadata("authorization_endpoint", url.into())
    }

    /// Adds a member to the metadata, such as `scopes_supported` (RFC 8414 §2).
    #[must_use]
    pub fn add_metadata(mut self, name: &str, value: serde_json::Value) -> Self {
        self.metadata.insert(name.into(), value);
        self
    }

    /// Lets scripts of this origin, such as `https://app.example`, call `/token` and `/revoke` and
    /// read the JWK Set and the metadata (CORS). Without it, none may.
    #[must_use]
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.origins.allow(origin);
        self
    }

    /// Lets plain HTTP caches keep a swapped JWT for at most this long, and never beyond its life.
    /// A handle that is revoked meanwhile lives on in such a cache. Without it, nothing is cached.
    #[must_use]
    pub const fn cache_swapped(mut self, at_most: Duration) -> Self {
        self.cache_swapped = at_most;
        self
    }

    /// Bounds the body of a request (64 KiB).
    #[must_use]
    pub const fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// How long a follower of the revocation log is kept waiting for the next entry (30 seconds, and
    /// at most 5 minutes), however long it asks for. Proxies in between must allow as much.
    #[must_use]
    pub fn max_wait(mut self, at_most: Duration) -> Self {
        self.max_wait = at_most.min(Duration::from_secs(300));
        self
    }

    /// How many followers of the revocation log may wait at once (4,096); one more gets 503 and
    /// tries again.
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
        let mut response = self.dispatch(endpoint, request).await;
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
    ) -> Response<Bytes> {
        if self.endpoint(request.uri.path()).is_some_and(|endpoint| self.is_shared(endpoint)) {
            self.origins.mark(&request.headers, response.headers_mut());
        }
        response
    }

    /// Whether scripts of other origins may call it: a resource server is no script.
    fn is_shared(&self, endpoint: Endpoint) -> bool {
        let inside =
            matches!(endpoint, Endpoint::Introspect | Endpoint::Revocations | Endpoint::HandleKeys);
        !inside && self.origins.any()
    }

    async fn dispatch(&self, endpoint: Endpoint, request: &Request<Bytes>) -> Response<Bytes> {
        let allowed = match endpoint {
            Endpoint::JwkSet | Endpoint::Metadata => [Method::GET, Method::HEAD].as_slice(),
            Endpoint::Revocations | Endpoint::HandleKeys => [Method::GET].as_slice(),
            _ => [Method::POST].as_slice(),
        };
        if !allowed.contains(request.method()) {
            return respond::method_not_allowed(allowed);
        }
        if request.body().len() > self.body_limit {
            return respond::too_large();
        }
        // Boxed: the future of each request would else have room for the largest of them.
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
            JWK_SET => Some(Endpoint::JwkSet),
            _ => None,
        }
    }

    async fn authenticate(
        &self,
        request: &Request<Bytes>,
        form: &Form,
    ) -> Result<Arc<Client>, TokenError> {
        self.authenticator.authenticate(request.headers(), form, self.issuer.clients()).await
    }

    /// The client of a request without a form, if it has this role.
    async fn authorized(
        &self,
        request: &Request<Bytes>,
        role: Role,
    ) -> Result<Arc<Client>, TokenError> {
        // RFC 6749 §2.3.1: credentials as parameters "MUST NOT be included in the request URI".
        let client = self.authenticate(request, &Form::parse(b"")?).await?;
        if client.is_public() {
            return Err(AuthenticationFailure::PublicClient.into());
        }
        if !client.has_role(role) {
            return Err(TokenError::UnauthorizedClient("the client lacks the role for this"));
        }
        Ok(client)
    }
}
