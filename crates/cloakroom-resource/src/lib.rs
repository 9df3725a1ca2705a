//! The resource side of **cloakroom**: for authors of APIs and of gateways.
//!
//! | you write | start at |
//! |---|---|
//! | an API | [`Verifier::discover_with`] or `Verifier::discover`, and [`BearerLayer`] |
//! | an API whose tokens are opaque | [`IntrospectionClient`], and [`BearerLayer::introspecting`] |
//! | an API gateway | [`IntrospectionClient`], and [`PhantomLayer`] |
//! | something without tower | [`Verifier::verify`], [`BearerLayer::verify`] |
//! | an API or a gateway that learns of revocations at once | [`RevocationReplica`] |
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
//! # What is remembered, and for how long
//!
//! Nothing, unless the app says so: every opaque token is introspected, every handle swapped and
//! every JWT verified anew, for each request. An app that wants it quicker says how much is to be
//! remembered and [how old](Freshness) the knowledge may be that a request is let in on. Then a
//! revocation takes that long at most; with a [`RevocationReplica`], as long as the log takes to
//! bring it.
//!
//! ```no_run
//! use std::time::Duration;
//! use cloakroom_resource::{
//!     BearerLayer, ClientCredentials, Freshness, HttpLog, IntrospectionClient, RevocationReplica,
//!     Verifier, WhenStale,
//! };
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let (issuer, audience) = ("https://as.example", "https://orders.example");
//! let credentials = ClientCredentials::new("orders-api", std::env::var("ORDERS_API_SECRET")?);
//! let log = HttpLog::discover(issuer, credentials.clone()).await?;
//! let replica = RevocationReplica::follow(log).await?;
//! let client = IntrospectionClient::discover(issuer, credentials).await?;
//!
//! let verifier = Verifier::discover(issuer, audience).await?.replica(replica).cache(100_000);
//! let bearer = BearerLayer::new(verifier)
//!     .or_introspect(client)
//!     .cache(10_000)
//!     .freshness(Freshness::within(Duration::from_secs(10)))?
//!     .when_stale(WhenStale::Introspect);
//! # Ok(()) }
//! ```
//!
//! | memory | set by | asked about each time |
//! |---|---|---|
//! | introspected tokens | [`BearerLayer::cache`] | replica, age, expiry, proof of the key |
//! | JWTs of handles | [`PhantomLayer::cache`] | replica, age, expiry, proof of the key |
//! | verified JWTs | [`Verifier::cache`] | replica, JWK Set, times, proof of the key |
//! | refused tokens, 10,000 beside each of the first two | the same | age, 10 s at most |
//!
//! Each belongs to one audience, knows tokens by their SHA-256 alone, and is bounded: what is
//! needed least is dropped. Requests that wait for the same token share one question, which goes on
//! when some of them are given up; none shares an answer that was asked for earlier than its
//! freshness allows. A failure reaches those who wait for it and is never remembered.
//! [`IntrospectionLimits`] and [`GatewayKeys`] keep junk from the authorization server.
//!
//! # Features
//!
//! - `client` (default): `ReqwestClient`, an [`HttpClient`] on reqwest and rustls, and the
//!   constructors that need no other;
//! - `axum` (default): [`VerifiedToken`] as an extractor;
//! - `metrics`: counters and gauges through the crate `metrics`.
//!
//! # Metrics
//!
//! With the feature `metrics`. Those of the first part carry the label `cache`: `introspection`,
//! `phantom` or `jwt`.
//!
//! | counter | counts |
//! |---|---|
//! | `cloakroom_cache_hits_total` | requests answered from memory |
//! | `cloakroom_cache_negative_hits_total` | requests refused from memory |
//! | `cloakroom_cache_misses_total` | questions started; JWTs verified |
//! | `cloakroom_cache_coalesced_total` | requests that waited for the question of another |
//! | `cloakroom_cache_revoked_evictions_total` | entries dropped because a replica denied them |
//! | `cloakroom_stale_refusals_total` | 503: the replica is too far behind |
//! | `cloakroom_introspection_overloads_total` | 503: [`IntrospectionLimits`] are reached |
//! | `cloakroom_forged_handles_total` | refused by [`GatewayKeys`] |
//! | `cloakroom_replica_gaps_total` | times that a place in the log was gone |
//! | `cloakroom_replica_reconnects_total` | times that the log could be read again after a failure |
//!
//! | gauge | shows |
//! |---|---|
//! | `cloakroom_replica_staleness_seconds` | how old what a replica knows may be; infinite while nothing can be said |
//! | `cloakroom_replica_rules` | the rules that it holds |

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod cache;
mod client;
mod double_buffer;
mod error;
mod freshness;
mod introspect;
mod layer;
mod metrics;
mod replica;
mod verify;

pub use client::credentials::ClientCredentials;
pub use client::http::{HttpClient, HttpError, MAX_BODY_BYTES};
#[cfg(feature = "client")]
pub use client::reqwest::{HttpTimeouts, ReqwestClient};
pub use error::{InvalidToken, SetupError, TokenError, UnavailableError};
pub use freshness::{Freshness, WhenStale};
pub use introspect::handle_keys::GatewayKeys;
pub use introspect::limits::IntrospectionLimits;
pub use introspect::phantom_jwt::PhantomJwt;
pub use introspect::{IntrospectionClient, Introspector};
pub use layer::bearer::BearerLayer;
#[cfg(feature = "axum")]
pub use layer::extract::MissingLayer;
pub use layer::phantom::PhantomLayer;
pub use layer::response_future::ResponseFuture;
pub use layer::service::TokenService;
pub use replica::{HttpLog, ReplicaBuilder, RevocationLog, RevocationReplica, StoreLog};
pub use verify::Verifier;
pub use verify::token::VerifiedToken;

/// For an [`Introspector`], an [`HttpClient`] or a [`RevocationLog`] of the app's own.
pub use async_trait::async_trait;
pub use bytes;
pub use cloakroom_core::handle::AccessHandleKeys;
pub use cloakroom_core::revocation::Epoch;
/// What a [`RevocationLog`] hands out, and what a [`StoreLog`] reads.
pub use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, LogEntry, LogEvent, RevocationBatch, RevocationPage, Target,
};
pub use cloakroom_core::store::TokenStore;
pub use cloakroom_core::time::{Clock, ManualClock, SystemClock, UnixTime};
pub use cloakroom_core::{
    ActiveToken, Audience, ClientId, Confirmation, GrantId, Introspection, InvalidValue, Jti, Kid,
    Scope, Subject, TokenDigest, TokenSecret, UserId,
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
        // Whoever floods this service must not flood its log as well: others have warned.
        TokenError::Unavailable(UnavailableError::Overloaded | UnavailableError::HandleKey) => {
            tracing::debug!(error = source, "a token cannot be checked");
        }
        TokenError::Unavailable(_) => tracing::warn!(error = source, "a token cannot be checked"),
    }
}
