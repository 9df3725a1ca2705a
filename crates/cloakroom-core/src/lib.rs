//! Words, records, store contract and opaque handles of **cloakroom**, an embeddable library for
//! issuing and managing OAuth 2.0 tokens.
//!
//! | you write | start at |
//! |---|---|
//! | a store of your own | [`store::TokenStore`], [`keys::KeyStore`] and [`store::SingleUseStore`] |
//! | a token format of your own | [`format::TokenFormat`] |
//! | an app that issues tokens | the crate `cloakroom`, which builds on this one |
//! | an API or a gateway | the crate `cloakroom-resource` |
//!
//! The idea that carries the rest: the *grant* is the only thing that lives. It holds one chain of
//! single-use credentials — its code, then its refresh tokens — guarded by a generation number;
//! access tokens hang off it by their digest. Redeeming a credential is one compare-and-set of one
//! row, and revoking a grant is one write, whatever hangs off it.
//!
//! This crate does no I/O and needs no runtime.
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

#[cfg(test)]
mod test_records;
#[cfg(test)]
mod torn_find_tests;

pub use ids::{ClientId, GrantId, InvalidValue, Jti, Kid, MAX_ID_BYTES, Subject, UserId};
pub use introspection::{ActiveToken, Introspection};
pub use random::{Random, RandomError};
pub use record::Confirmation;
pub use scope::{Audience, Scope};
pub use secret::{TokenDigest, TokenKind, TokenSecret, decode_hex, scrubbed};
