//! Protect an API or an API gateway with OAuth 2.0 access tokens.
//!
//! | you write | start at |
//! |---|---|
//! | an API that accepts JWTs | [`Verifier::discover_with`] or `Verifier::discover`, and [`BearerLayer::new`] |
//! | an API that accepts opaque tokens | [`IntrospectionClient`] and [`BearerLayer::introspecting`] |
//! | an API gateway | [`PhantomLayer::discover_with`] or `PhantomLayer::discover` |
//! | a job or a service that needs a token of its own | [`TokenClient`] |
//! | a service without tower | [`Verifier::verify`] or [`BearerLayer::verify`] |
//! | an API or a gateway that learns of revocations at once | [`RevocationReplica`] |
//! | an API whose clients find the authorization server by themselves, such as an MCP server | [`BearerLayer::resource_metadata`] |
//!
//! The crate works with every authorization server that follows RFC 9068 (JWT access tokens),
//! RFC 7662 (introspection) and RFC 8414 (metadata). [`PhantomLayer`] needs a server that answers an
//! introspection with `Accept: application/jwt`.
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
//! When the authorization server cannot be reached, requests fail with [`TokenError::Unavailable`]
//! and status 503. They are not let in, and clients are not told that their token is invalid.
//!
//! A token that is bound to a key (`cnf`) needs a proof of that key. Your application verifies the
//! proof, and the layers compare the keys: see [`BearerLayer`].
//!
//! The types in this crate's signatures are re-exported here: an API needs no other crate of the
//! workspace.
//!
//! The cookbook (`docs/cookbook` in the repository) shows a gateway, an API in the same process as its issuer, and how
//! to test an API: the feature `testing` of the crate `cloakroom` makes tokens of any shape, without a network.
//!
//! # What is cached, and for how long
//!
//! By default, nothing: for each request, opaque tokens are introspected, handles swapped and JWTs
//! verified. To check tokens from memory, set how many tokens to cache and how [fresh](Freshness)
//! the knowledge about revocations must be. A revocation then takes effect within that time. With a
//! [`RevocationReplica`] it takes effect as soon as it arrives through the revocation log.
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
//! | cache | set by | checked on each request |
//! |---|---|---|
//! | introspected tokens | [`BearerLayer::cache`] | replica, age, expiry, proof of the key |
//! | JWTs of handles | [`PhantomLayer::cache`] | replica, age, expiry, proof of the key |
//! | verified JWTs | [`Verifier::cache`] | replica, JWK Set, times, proof of the key |
//! | refused tokens, 10,000 for each of the first two caches | the same | age, 10 s at most |
//!
//! Each cache belongs to one audience, stores tokens as SHA-256 digests, and is limited in size.
//! Requests that wait for the same token share one introspection, which continues when some of them
//! are cancelled. No request gets an answer older than its freshness allows. A failure is reported
//! to the requests that wait for it and is not cached. There is one exception: if the answer about
//! a token cannot be parsed, that token gets the same error for one second, without a new request.
//! [`IntrospectionLimits`] and [`GatewayKeys`] protect the authorization server from invented
//! tokens.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `axum` (default) | [`VerifiedToken`] and `Token<YourClaims>` as extractors |
//! | `client` (default) | `ReqwestClient`, an [`HttpClient`] on reqwest and rustls, and the constructors that use it |
//! | `ml-dsa` | verifies ML-DSA-44 and ML-DSA-65 (RFC 9964), too |
//! | `metrics` | counters and gauges through the `metrics` crate |
//!
//! # Metrics
//!
//! These need the feature `metrics`. `docs/metrics.md` has alarms and a dashboard for them. The counters from
//! `cloakroom_cache_hits_total` to `cloakroom_forged_handles_total` have the label `cache`: `introspection`, `phantom`
//! or `jwt`.
//!
//! | counter | counts |
//! |---|---|
//! | `cloakroom_cache_hits_total` | requests answered from memory |
//! | `cloakroom_cache_negative_hits_total` | requests refused from memory |
//! | `cloakroom_cache_misses_total` | introspections and swaps started; JWTs verified |
//! | `cloakroom_cache_coalesced_total` | requests that waited for the introspection or swap of another |
//! | `cloakroom_cache_revoked_evictions_total` | entries dropped because a replica denied them |
//! | `cloakroom_stale_refusals_total` | 503: the replica is too far behind |
//! | `cloakroom_introspection_overloads_total` | 503: [`IntrospectionLimits`] are reached |
//! | `cloakroom_forged_handles_total` | refused by [`GatewayKeys`] |
//! | `cloakroom_replica_gaps_total` | times that the replica's position in the log was gone |
//! | `cloakroom_replica_reconnects_total` | times that the log could be read again after a failure |
//!
//! | gauge | shows |
//! |---|---|
//! | `cloakroom_replica_staleness_seconds` | how far the replica may be behind; infinite while that is unknown |
//! | `cloakroom_replica_rules` | how many rules the replica holds |

#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod cache;
mod client;
mod double_buffer;
mod error;
mod freshness;
mod introspect;
mod layer;
mod metrics;
mod revocation_replica;
mod verify;

pub use client::credentials::ClientCredentials;
pub use client::http::{HttpClient, HttpError, MAX_BODY_BYTES};
#[cfg(feature = "client")]
pub use client::reqwest::{HttpTimeouts, ReqwestClient};
pub use client::token_client::{TokenClient, TokenRequestError};
pub use error::{InvalidToken, SetupError, TokenError, UnavailableError};
pub use freshness::{Freshness, WhenStale};
pub use introspect::handle_keys::GatewayKeys;
pub use introspect::limits::IntrospectionLimits;
pub use introspect::phantom_jwt::PhantomJwt;
pub use introspect::{IntrospectionClient, Introspector};
pub use layer::bearer::BearerLayer;
#[cfg(feature = "axum")]
pub use layer::extract::{MissingLayer, Token, TokenRejection};
pub use layer::phantom::PhantomLayer;
pub use layer::resource_metadata::{ResourceMetadata, ResourceMetadataService};
pub use layer::response_future::ResponseFuture;
pub use layer::service::TokenService;
pub use revocation_replica::{HttpLog, ReplicaBuilder, RevocationLog, RevocationReplica, StoreLog};
pub use verify::Verifier;
pub use verify::token::VerifiedToken;

/// The attribute that implementations of [`Introspector`], [`HttpClient`] and [`RevocationLog`]
/// need.
pub use async_trait::async_trait;
pub use bytes;
pub use cloakroom_core::handle::AccessHandleKeys;
pub use cloakroom_core::revocation::Epoch;
/// What a [`RevocationLog`] returns, and what a [`StoreLog`] reads.
pub use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, LogEntry, LogEvent, RevocationBatch, RevocationPage, Target,
};
pub use cloakroom_core::store::TokenStore;
pub use cloakroom_core::time::{Clock, ManualClock, SystemClock, UnixTime};
pub use cloakroom_core::{
    ActiveToken, Audience, ClientId, Confirmation, GrantId, Introspection, InvalidValue, Jti, Kid,
    Scope, Subject, TokenDigest, TokenSecret, UserId,
};
/// JWTs, JWK Sets and signing keys. Tests of an API sign their tokens with these.
pub use cloakroom_jwt as jwt;
pub use cloakroom_jwt::{IssuerProfile, JwkSet};
pub use http;
/// The bound of [`VerifiedToken::claims`].
pub use serde::de::DeserializeOwned;
/// The types of [`VerifiedToken::claim`] and [`VerifiedToken::claims`].
pub use serde_json;

/// The programs of the page about other issuers, compiled.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../../../docs/other-issuers.md")]
struct OtherIssuers;

/// The longest token that is accepted: 8,192 bytes, about what HTTP servers accept in a header.
pub const MAX_TOKEN_BYTES: usize = cloakroom_jwt::MAX_JWT_BYTES;

fn trace_refusal(error: &TokenError) {
    let source: &dyn std::error::Error = error;
    match error {
        TokenError::Invalid(_) => tracing::debug!(error = source, "token refused"),
        // A flood of requests must not flood the log as well. A warning was logged elsewhere.
        TokenError::Unavailable(
            UnavailableError::Overloaded
            | UnavailableError::HandleKey
            | UnavailableError::SigningKey,
        ) => {
            tracing::debug!(error = source, "token could not be checked");
        }
        TokenError::Unavailable(_) => tracing::warn!(error = source, "token could not be checked"),
    }
}

/// The program of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
