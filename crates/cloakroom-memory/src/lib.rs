//! The in-memory store of **cloakroom**: tokens, signing keys and the revocation log of one process.
//!
//! [`MemoryStore`] keeps the whole contract of [`TokenStore`](cloakroom_core::store::TokenStore) and
//! [`KeyStore`](cloakroom_core::keys::KeyStore) under real concurrency; one value serves as both. Use it
//! for tests, for trying things out, and for an authorization server of one process whose sessions
//! may end with it. It is also the store to read before writing one for a database.
//! [`MemorySingleUse`] is its sibling for nonces and other things that are good once.
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
//! # What it promises, and what not
//!
//! - Nothing survives the process, and nothing is shared between processes: one store is one node's.
//! - [`find`](cloakroom_core::store::TokenStore::find) takes one read lock of one of 256 shards and clones
//!   two `Arc`s.
//! - Memory is given back only by [`maintain`](cloakroom_core::store::TokenStore::maintain). The engine
//!   calls it; who uses the store alone must.
//! - The revocation of a subject or a client flags all its grants before it returns, in one go and
//!   on the calling thread: about a second for a million grants.
//!
//! Where the contract leaves a choice:
//!
//! - A token that is inserted again with the same content is a retry: it stays as it is, and
//!   revoked if it was. The same digest with other content is
//!   [`Misuse`](cloakroom_core::store::StoreError::Misuse), and nothing is written.
//! - `advance` on a tombstone answers [`Dead`](cloakroom_core::store::AdvanceOutcome::Dead); of a chain that has
//!   expired *and* stands elsewhere, it says that it is dead.
//! - A row is deleted only after the last token that hangs off it, even if its own
//!   `row_expires_at` has passed before.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod check_values;
mod grant_entry;
mod grants;
mod index;
mod keys;
mod locks;
mod revocation_log;
mod single_use;
mod store;
mod wakeups;

pub use single_use::MemorySingleUse;
pub use store::MemoryStore;
