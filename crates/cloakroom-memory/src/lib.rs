//! The in-memory store of **cloakroom**: tokens, signing keys and the revocation log of one process.
//!
//! [`MemoryStore`] implements [`TokenStore`](cloakroom_core::store::TokenStore) and
//! [`KeyStore`](cloakroom_core::keys::KeyStore), for concurrent use. Use it for tests, for trying
//! cloakroom out, and for a single-process authorization server whose sessions may end with the
//! process. It is also an example of a store for those who write one for a database.
//! [`MemorySingleUse`] is a store for nonces and other single-use items.
//!
//! The crate has no features, and needs no async runtime.
//!
//! ```
//! use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject};
//! use cloakroom_core::record::GrantRecord;
//! use cloakroom_core::revocation::{Revocation, Target};
//! use cloakroom_core::store::{CreateOutcome, Lookup, TokenStore, TokenStoreExt};
//! use cloakroom_core::time::UnixTime;
//! use cloakroom_memory::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let (now, end) = (UnixTime::from_secs(1_700_000_000), UnixTime::from_secs(1_707_000_000));
//! let mut grant = GrantRecord::new(
//!     GrantId::random(&Random::system())?,
//!     ClientId::new("web-app")?,
//!     Subject::user("alice")?,
//!     Audience::one("https://orders.example")?,
//!     now,
//!     end,
//! );
//! grant.scope = Scope::parse("orders:read")?;
//! grant.epoch = store.epoch().await?;
//! let id = grant.id;
//! assert_eq!(store.create(grant, vec![]).await?, CreateOutcome::Inserted);
//!
//! // "Log out everywhere":
//! let target = Target::Subject(Subject::user("alice")?);
//! store.revoke(Revocation::new(target, now, end)).await?;
//!
//! let Lookup::Found(found) = store.find(id, None).await? else { panic!("it is there") };
//! assert_eq!(found.grant.revoked_at, Some(now));
//! # Ok(())
//! # }
//! ```
//!
//! # Properties
//!
//! - Nothing survives the end of the process, and processes share nothing: each node has its own
//!   store.
//! - [`find`](cloakroom_core::store::TokenStore::find) takes one read lock of one of 256 shards and clones
//!   two `Arc`s.
//! - Only [`maintain`](cloakroom_core::store::TokenStore::maintain) frees memory. The engine calls it. If you
//!   use the store without the engine, call it yourself.
//! - A grant with a refresh token and an access token takes some 800 bytes.
//! - The revocation of a subject or a client revokes all its grants before it returns, on the calling
//!   thread. This takes about a second for a million grants.
//!
//! Where the contract allows several behaviours, this store behaves as follows:
//!
//! - A token that is inserted again with the same content is a retry. It stays as it is, even if it is
//!   revoked. The same digest with other content is
//!   [`Misuse`](cloakroom_core::store::StoreError::Misuse), and nothing is written.
//! - `advance` on a tombstone answers [`Dead`](cloakroom_core::store::AdvanceOutcome::Dead); for a
//!   chain that has expired *and* is at another position, it also answers `Dead`.
//! - A grant is deleted only after its last token, even if its `row_expires_at` passed earlier.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod check_values;
mod due_queue;
mod grant_entry;
mod grants;
mod keys;
mod locks;
mod place_table;
mod revocation_log;
mod shard;
mod single_use;
mod store;
mod subject_index;
mod wakeups;

pub use single_use::MemorySingleUse;
pub use store::MemoryStore;
