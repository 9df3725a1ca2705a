//! The types, the store contract and the opaque handles of **cloakroom**, an embeddable library that
//! issues and manages OAuth 2.0 tokens.
//!
//! | you write | start at |
//! |---|---|
//! | a store for your database | [`store::TokenStore`], [`keys::KeyStore`] and [`store::SingleUseStore`] |
//! | a format of access tokens | [`format::TokenFormat`] |
//! | an app that issues tokens | the crate `cloakroom`, which builds on this one |
//! | an API or a gateway | the crate `cloakroom-resource` |
//!
//! Everything belongs to a *grant*, which allows one client to act for one subject. A grant holds
//! one chain of single-use credentials, which are its code and then its refresh tokens. A
//! generation number guards the chain. Access tokens refer to the grant, and are stored by their
//! digest. So redeeming a credential is one compare-and-set of one row, and revoking a grant is one
//! write, however many tokens it has.
//!
//! This crate does no I/O, needs no async runtime and has no features.
//!
//! ```
//! use cloakroom_core::{GrantId, Random};
//! use cloakroom_core::handle::{HandleKeys, HandleSecret};
//!
//! let random = Random::system();
//! let keys = HandleKeys::new(&HandleSecret::random(1, &random)?);
//! let (token, digest) = keys.mint_access(GrantId::random(&random)?, &random)?;
//!
//! // The client holds the token; a store only ever sees the digest.
//! assert_eq!(keys.parse_access(token.expose()).unwrap().digest, digest);
//! # Ok::<(), cloakroom_core::RandomError>(())
//! ```

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

pub mod format;
pub mod handle;
pub mod keys;
pub mod record;
pub mod revocation;
pub mod store;
pub mod time;

mod ids;
mod introspection;
mod random;
mod scope;
mod secret;
mod text;

// What crates of the workspace share, and nobody else needs.
#[doc(hidden)]
pub mod freshness;
#[doc(hidden)]
pub mod strict_json;

#[cfg(test)]
mod test_records;

pub use ids::{ClientId, GrantId, InvalidValue, Jti, Kid, MAX_ID_BYTES, Subject, UserId};
pub use introspection::{ActiveToken, Introspection};
pub use random::{Random, RandomError};
pub use record::Confirmation;
pub use scope::{Audience, Scope};
pub use secret::{TokenDigest, TokenKind, TokenSecret};
#[doc(hidden)]
pub use secret::{decode_hex, scrubbed};

/// For implementations of this crate's asynchronous traits, such as
/// [`TokenStore`](store::TokenStore) and [`TokenFormat`](format::TokenFormat).
pub use async_trait::async_trait;
/// The streams of [`LogNotifications`](revocation::LogNotifications).
pub use futures_core;
/// Generators for [`Random::from_rng`].
pub use rand_core;
/// The JSON values in claims and records.
pub use serde_json;
/// Wraps the secrets that some functions return, and wipes them on drop.
pub use zeroize::Zeroizing;
