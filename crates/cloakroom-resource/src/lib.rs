//! The resource side of **cloakroom**: for authors of APIs and of gateways.
//!
//! | you write | start at |
//! |---|---|
//! | an API | [`Verifier::discover_with`] or `Verifier::discover`, and [`BearerLayer`] |
//! | an API whose tokens are opaque | [`IntrospectionClient`], and [`BearerLayer::introspecting`] |
//! | an API gateway | [`IntrospectionClient`], and [`PhantomLayer`] |
//! | something without tower | [`Verifier::verify`], [`Introspector`] |
//!
//! Works with every authorization server that keeps to RFC 9068 (JWT access tokens), RFC 7662
//! (introspection) and RFC 8414 (metadata); [`PhantomLayer`] needs one that answers an
//! introspection with `Accept: application/jwt`.
//!
//! An outage of the authorization server is never taken for a verdict: it is
//! [`TokenError::Unavailable`] and 503, lets nobody in and makes no client throw its token away.
//!
//! A token bound to a key (`cnf`) passes only with a proof of that key, which the app verifies and
//! the layers compare: see [`BearerLayer`].
//!
//! Whatever its signatures name is re-exported here: an API needs no other crate of the workspace.
//!
//! ```
//! use axum::{Router, routing::get};
//! use cloakroom_resource::{BearerLayer, VerifiedToken, Verifier};
//!
//! async fn orders(token: VerifiedToken) -> String {
//!     format!("orders of {}", token.subject().map_or("nobody", |subject| subject.id()))
//! }
//!
//! async fn app() -> Result<Router, Box<dyn std::error::Error>> {
//!     let verifier = Verifier::discover("https://as.example", "https://orders.example").await?;
//!     let bearer = BearerLayer::new(verifier).require_scope("orders:read")?;
//!     Ok(Router::new().route("/orders", get(orders)).route_layer(bearer))
//! }
//! ```
//!
//! # Features
//!
//! - `client` (default): `ReqwestClient`, an [`HttpClient`] on reqwest and rustls, and the
//!   constructors that need no other;
//! - `axum` (default): [`VerifiedToken`] as an extractor.

mod authorization;
mod bearer;
mod challenge;
mod discovery;
mod endpoint;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod http_client;
mod introspection;
mod jwks;
mod moment;
mod phantom;
mod proof;
#[cfg(feature = "client")]
mod reqwest_client;
mod swapped;
mod verified;
mod verifier;

pub use bearer::{BearerLayer, BearerService};
pub use error::{InvalidToken, Outage, SetupError, TokenError};
#[cfg(feature = "axum")]
pub use extract::MissingLayer;
pub use http_client::{HttpClient, HttpError, MAX_BODY_BYTES};
pub use introspection::{ClientCredentials, IntrospectionClient, Introspector};
pub use phantom::{PhantomLayer, PhantomService};
#[cfg(feature = "client")]
pub use reqwest_client::ReqwestClient;
pub use swapped::Swapped;
pub use verified::VerifiedToken;
pub use verifier::Verifier;

/// For an [`Introspector`] or an [`HttpClient`] of the app's own.
pub use async_trait::async_trait;
pub use bytes;
pub use cloakroom_core::{
    ActiveToken, Audience, ClientId, Clock, Confirmation, Epoch, GrantId, Introspection, Invalid,
    Jti, Kid, ManualClock, Scope, Subject, SystemClock, TokenDigest, TokenSecret, UnixTime, UserId,
};
/// JWTs, JWK Sets and signing keys: what tests of an API sign their tokens with.
pub use cloakroom_jwt as jwt;
pub use cloakroom_jwt::JwkSet;
pub use http;
/// [`VerifiedToken::claim`] and [`VerifiedToken::claims`] speak in it.
pub use serde_json;

/// The longest token that is looked at: 8,192 bytes, what HTTP headers carry.
pub const MAX_TOKEN_BYTES: usize = cloakroom_jwt::MAX_JWT_BYTES;

fn trace_refusal(error: &TokenError) {
    let source: &dyn std::error::Error = error;
    match error {
        TokenError::Invalid(_) => tracing::debug!(error = source, "a token is refused"),
        TokenError::Unavailable(_) => tracing::warn!(error = source, "a token cannot be checked"),
    }
}
