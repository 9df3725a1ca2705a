//! A store of **cloakroom** in Redis or Valkey, for any number of authorization servers.
//!
//! ```no_run
//! use std::sync::Arc;
//! use cloakroom_core::store::TokenStore;
//! use cloakroom_redis::RedisStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = std::env::var("REDIS_URL")?; // redis://user:password@host:6379/0
//! let store = RedisStore::connect(&url).await?;
//! let tokens: Arc<dyn TokenStore> = Arc::new(store);
//! # Ok(()) }
//! ```
//!
//! [`RedisStore::connect`] lists the URLs: one server, sentinels, or a cluster. The crate has no features. It runs on
//! tokio, and uses rustls with aws-lc-rs.
//!
//! # What it promises
//!
//! - **Any number of nodes** can use the server. Each immediately sees the writes that the others
//!   have acknowledged. Readers of the revocation log wait for new entries on a connection of their
//!   own.
//! - **One script, one slot.** Keys that change together share a hash tag: a grant, its tokens, and
//!   its entries in the indexes. A lookup is one command. Creating a grant takes two round trips,
//!   revoking one takes three.
//! - **An acknowledged write is as durable as the server's settings make it.** Redis acknowledges a
//!   write before it is on disk, unless `appendfsync` is `always`, and before its replicas have it.
//!   A crash or a failover may undo the last second: a login is gone, a spent refresh token is
//!   valid again, and a revoked token is live again until the servers notice. `docs/redis.md` in
//!   the repository says which losses are detected, and which settings help.
//! - **Most writes may be sent twice.** A command whose connection broke is sent once more, and the
//!   cluster client repeats commands by itself. Writes of signing keys and single-use items are the
//!   exception: the store sends them once, and reports an error if the connection breaks.
//! - **Log first.** A revocation is in the log, with its rule, before it takes effect. If the process ends in between,
//!   [`maintain`](cloakroom_core::store::TokenStore::maintain) finishes the revocation. It does the same work once more
//!   a minute later, in case a shard failed over and lost it.
//! - **Keys have a time to live**, at least one hour after the end of their content, by the clock
//!   of the server. Only the log, the signing keys and the check values have none. So memory is
//!   freed even if housekeeping does not run.
//! - **Outages are errors**: a server that is gone, full, busy, a replica, or without enough replicas. A
//!   server that is full still revokes and deletes.
//! - **Single-use items** ([`SingleUseStore`](cloakroom_core::store::SingleUseStore)) can be in this store while the
//!   grants are in another one. The server removes each at its end. After a failover that loses writes, or to a
//!   server whose clock is behind, an item can be spent once more until it ends.
//!
//! Keys and values contain digests and no tokens, but they show who uses which client. Give the
//! store an ACL user that can access only its keys: `~{cloakroom*`.
//!
//! # Servers
//!
//! Redis 7 or newer, or Valkey; the tests run on Redis 7.0. The store refuses a server that evicts keys when
//! its memory is full, unless you [allow it](RedisStoreBuilder::allow_eviction). It uses database 0, or the one in the
//! URL.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod address;
mod batches;
mod builder;
mod check_server;
mod check_values;
mod cluster;
mod connection;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod layout;
mod replicas;
mod reply;
mod revocation_log;
mod rows;
mod scripts;
mod single_use;
mod status;
mod store;
mod wakeups;
mod work;

pub use builder::RedisStoreBuilder;
pub use connection::SharedConnection;
pub use error::OpenError;
/// The driver. Its errors are the sources of the errors of this store.
pub use redis;
pub use store::RedisStore;
