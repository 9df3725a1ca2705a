#![doc = include_str!("../README.md")]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod client;
mod error;
mod events;
mod flow;
mod form;
#[cfg(feature = "http")]
pub mod http;
mod introspection;
mod issuer;
mod metrics;
pub mod operator;
mod revocation;
#[cfg(feature = "testing")]
pub mod testing;
mod write;

pub use client::Client;
pub use client::builder::{ClientBuilder, ClientConfigError};
pub use client::directory::{ClientDirectory, DirectoryError, StaticClients};
#[cfg(feature = "client-documents")]
pub use client::document::{
    ClientDocument, ClientDocuments, ClientDocumentsBuilder, DocumentRedirects,
};
pub use client::registration::{ClientLifetimes, Format, GrantType, Role, Serves};
#[cfg(feature = "http")]
pub use client::registry::{RegisteredClient, RegisteredClients, RegistrationStore, Replaceable};
pub use client::secret_hash::SecretHash;
pub use error::{AuthenticationFailure, BuildError, GrantRefusal, TokenError};
pub use events::sink::EventSink;
pub use events::{Event, Operation};
pub use flow::adopt::Adopted;
pub use flow::authorization_request::{
    AuthorizationError, AuthorizationErrorCode, AuthorizationRedirect, AuthorizationRequest,
    PageError, Prompt,
};
pub use flow::authorization_response::AuthorizationResponse;
pub use flow::extension_grant::{ExtensionGrant, ExtensionRequest, ExtensionResponse};
pub use flow::hook::{NewToken, Occasion, TokenChanges, TokenHook, TokenHookError};
pub use flow::request::{
    AdoptRequest, ApprovedRequest, CodeRequest, Grant, Pkce, RefreshRequest, TokenResponse,
};
pub use form::Form;
pub use introspection::Caller;
#[cfg(feature = "resource")]
pub use introspection::local::LocalIntrospector;
pub use issuer::Issuer;
pub use issuer::builder::IssuerBuilder;
pub use issuer::lifetimes::Lifetimes;
pub use issuer::signing_keys::SigningKeys;
pub use issuer::single_use::NonceError;
pub use revocation::sessions::Session;
pub use revocation::store_regression::Regression;

/// For a [`ClientDirectory`] or a [`ClientAuthenticator`](crate::http::ClientAuthenticator) of your
/// own.
pub use async_trait::async_trait;
/// [`Endpoints::router`](crate::http::Endpoints::router) returns one of its routers.
#[cfg(feature = "axum")]
pub use axum;
/// The values of claims and of `authorization_details`.
pub use serde_json;

// What the signatures above are made of.
pub use cloakroom_core::handle::{HandleKeys, HandleSecret};
pub use cloakroom_core::keys::KeyPolicy;
pub use cloakroom_core::record::{Claims, Device};
pub use cloakroom_core::revocation::Epoch;
pub use cloakroom_core::store::{SingleUse, SingleUseStore, Spent};
pub use cloakroom_core::time::UnixTime;
pub use cloakroom_core::{
    Audience, ClientId, Confirmation, GrantId, Introspection, InvalidValue, Scope, Subject,
    TokenSecret,
};

/// Identifiers, records, the store contract and opaque handles.
pub use cloakroom_core as core;
/// JWTs, JWK Sets and signing keys.
pub use cloakroom_jwt as jwt;
/// The in-memory store.
#[cfg(feature = "memory")]
pub use cloakroom_memory as memory;
/// The MySQL and MariaDB store.
#[cfg(feature = "mysql")]
pub use cloakroom_mysql as mysql;
/// The PostgreSQL store.
#[cfg(feature = "postgres")]
pub use cloakroom_postgres as postgres;
/// The store in Redis or Valkey.
#[cfg(feature = "redis")]
pub use cloakroom_redis as redis;
/// The resource side: verifier, introspection client, tower layers.
#[cfg(feature = "resource")]
pub use cloakroom_resource as resource;

/// The SQLite store.
#[cfg(feature = "sqlite")]
pub use cloakroom_sqlite as sqlite;

/// The programs of the page about MCP servers, compiled.
#[cfg(all(
    doctest,
    feature = "client-documents",
    feature = "axum",
    feature = "resource",
    feature = "memory"
))]
#[doc = include_str!("../../../docs/mcp.md")]
struct McpServers;

/// The programs of the repository's README, compiled.
#[cfg(all(doctest, feature = "sqlite", feature = "axum", feature = "resource"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The programs of the page about the authorization endpoint, compiled.
#[cfg(all(doctest, feature = "axum", feature = "resource"))]
#[doc = include_str!("../../../docs/authorization.md")]
struct Authorization;

/// The programs of the cookbook, compiled and run.
#[cfg(all(doctest, feature = "sqlite", feature = "axum", feature = "serve", feature = "testing"))]
mod cookbook {
    #[doc = include_str!("../../../docs/cookbook/own-server.md")]
    struct OwnServer;

    #[doc = include_str!("../../../docs/cookbook/same-process.md")]
    struct SameProcess;

    #[doc = include_str!("../../../docs/cookbook/opaque-api.md")]
    struct OpaqueApi;

    #[doc = include_str!("../../../docs/cookbook/worker.md")]
    struct Worker;

    #[doc = include_str!("../../../docs/cookbook/gateway.md")]
    struct Gateway;

    #[doc = include_str!("../../../docs/cookbook/clients-from-a-table.md")]
    struct ClientsFromATable;

    #[doc = include_str!("../../../docs/cookbook/registered-clients.md")]
    struct RegisteredClients;

    #[doc = include_str!("../../../docs/cookbook/kms.md")]
    struct Kms;

    #[doc = include_str!("../../../docs/cookbook/audit-trail.md")]
    struct AuditTrail;

    #[doc = include_str!("../../../docs/cookbook/rate-limits.md")]
    struct RateLimits;

    #[doc = include_str!("../../../docs/cookbook/tenants.md")]
    struct Tenants;

    #[doc = include_str!("../../../docs/cookbook/moving.md")]
    struct Moving;

    #[doc = include_str!("../../../docs/cookbook/testing.md")]
    struct Testing;
}
