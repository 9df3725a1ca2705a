//! Words, records, store contract and opaque handles of **cloakroom**, an embeddable library for
//! issuing and managing OAuth 2.0 tokens.
//!
//! | you write | start at |
//! |---|---|
//! | a store of your own | [`TokenStore`], [`KeyStore`] and [`SingleUseStore`] |
//! | a token format of your own | [`TokenFormat`] |
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
//! use cloakroom_core::{GrantId, HandleKeys, HandleSecret, Random};
//!
//! let random = Random::system();
//! let keys = HandleKeys::new(&HandleSecret::random(1, &random)?);
//! let (token, digest) = keys.mint_access(GrantId::random(&random)?, &random)?;
//!
//! // The client holds the token; a store only ever sees the digest.
//! assert_eq!(keys.parse_access(token.expose()).unwrap().digest, digest);
//! # Ok::<(), cloakroom_core::RandomError>(())
//! ```

mod check_values;
mod claims;
mod codec;
mod error;
mod format;
mod handle;
mod handle_access;
mod handle_spelling;
mod ids;
mod introspection;
mod judge;
mod keystore;
mod log;
mod log_page;
mod nonce;
mod random;
mod record;
mod revocation;
pub mod schedule;
mod scope;
mod secret;
mod single_use;
mod store;
mod tenant;
mod tenant_keys;
mod time;

#[cfg(test)]
mod test_records;
#[cfg(test)]
mod torn_find_tests;

pub use check_values::{CheckValue, CheckValues, CheckValuesExt};
pub use claims::{Claims, Device, RESERVED_CLAIMS, bounded_json};
pub use codec::{GrantRow, TokenRow};
pub use error::StoreError;
pub use format::{
    Carried, FormatError, Kept, Located, MintContext, Minted, OpaqueFormat, TokenFormat, TokenTerms,
};
pub use handle::{ChainHandle, ChainKind, HandleKeys, HandleSecret};
pub use handle_access::{AccessHandle, AccessHandleKeys, HandleCheck};
pub use handle_spelling::Spelling;
pub use ids::{ClientId, GrantId, Invalid, Jti, Kid, MAX_ID_BYTES, Subject, UserId};
pub use introspection::{ActiveToken, Introspection};
pub use judge::{fresh_tokens, tokens_of};
pub use keystore::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
pub use log::{Cursor, CursorPlace, EntryId, LogEntry, LogEvent, RevocationBatch, Wakeups};
pub use log_page::RevocationPage;
pub use nonce::Nonce;
pub use random::{Random, RandomError};
pub use record::{
    Chain, ChainKey, ChainPosition, CodeBinding, Confirmation, GrantRecord, SealedSuccessor,
    SpentBefore, TokenRecord, UnknownFields, token_type,
};
pub use revocation::{Epoch, Revocation, Rule, RuleKey, Rules, Target};
pub use schedule::{KeyPolicy, PolicyError};
pub use scope::{Audience, Scope};
pub use secret::{TokenDigest, TokenKind, TokenSecret, decode_hex, scrubbed};
pub use single_use::{SingleUse, SingleUseId, SingleUseStore, Spend, Spent};
pub use store::{
    Advance, Advanced, Change, Created, Found, Housekeeping, Listing, Lookup, Maintained, Page,
    Revoked, Selector, TokenStore, TokenStoreExt,
};
pub use tenant::TenantStore;
pub use time::{Clock, ManualClock, SystemClock, UnixTime};
