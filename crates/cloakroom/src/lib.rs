#![doc = include_str!("../README.md")]

mod builder;
mod chain;
mod client;
mod directory;
mod error;
mod events;
mod follow;
mod grant;
mod growth;
#[cfg(feature = "http")]
pub mod http;
mod introspect;
mod issue;
mod issuer;
mod known;
#[cfg(feature = "resource")]
mod local;
mod maintenance;
mod own_log;
mod ownership;
mod redeem;
mod refresh;
mod refusals;
mod registration;
mod regression;
mod remembering;
mod revoke;
mod secret_hash;
mod sessions;
mod settings;
mod single_use;
mod successor;
mod write;

pub use builder::IssuerBuilder;
pub use client::Client;
pub use directory::{ClientDirectory, ClientRefused, DirectoryError, StaticClients};
pub use error::{AuthenticationFailure, BuildError, GrantRefusal, TokenError};
pub use events::{Event, EventSink, Operation};
pub use grant::{Grant, Pkce, Redeem, Refresh, TokenResponse};
pub use introspect::Caller;
pub use issue::Adopted;
pub use issuer::Issuer;
#[cfg(feature = "resource")]
pub use local::LocalIntrospector;
pub use registration::{ClientLifetimes, Format, GrantType, Role, Serves};
pub use regression::Regression;
pub use secret_hash::SecretHash;
pub use sessions::Session;
pub use settings::Lifetimes;
pub use single_use::NonceError;

// What the signatures above are made of.
pub use cloakroom_core::{
    Audience, ClientId, Confirmation, Device, Epoch, GrantId, HandleKeys, HandleSecret,
    Introspection, Invalid, KeyPolicy, Scope, SingleUse, SingleUseStore, Spent, Subject,
    TokenSecret, UnixTime,
};

/// Words, records, the store contract and opaque handles.
pub use cloakroom_core as core;
/// JWTs, JWK Sets and signing keys.
pub use cloakroom_jwt as jwt;
/// The in-memory store.
#[cfg(feature = "memory")]
pub use cloakroom_memory as memory;
/// The resource side: verifier, introspection client, tower layers.
#[cfg(feature = "resource")]
pub use cloakroom_resource as resource;

/// The store in a file of SQLite's.
#[cfg(feature = "sqlite")]
pub use cloakroom_sqlite as sqlite;

/// The programs of the repository's README, compiled.
#[cfg(all(doctest, feature = "sqlite", feature = "axum", feature = "resource"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
