//! A store of **cloakroom** in a PostgreSQL database, for any number of authorization servers.
//!
//! ```no_run
//! use std::sync::Arc;
//! use cloakroom_core::store::TokenStore;
//! use cloakroom_postgres::PostgresStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = std::env::var("DATABASE_URL")?; // postgres://user:password@host/database
//! let store = PostgresStore::connect(&url).await?;
//! let tokens: Arc<dyn TokenStore> = Arc::new(store);
//! # Ok(()) }
//! ```
//!
//! It runs on tokio, and uses rustls with aws-lc-rs. With the feature `deadpool`, the store can use
//! connections of the app's own pool (`PostgresStore::with_pool`).
//!
//! # What it promises
//!
//! - **Any number of nodes** can use the database. Each immediately sees the writes that the others
//!   have acknowledged. `NOTIFY` wakes readers of the revocation log, usually within milliseconds.
//! - **An acknowledged commit is as durable as the server's settings make it.** With the default
//!   `synchronous_commit = on`, it survives a crash of the server. A failover to an asynchronous
//!   standby may undo the last commits, and tokens that they revoked are then live again until the
//!   servers notice (`docs/postgresql.md` in the repository). With a synchronous standby nothing is
//!   lost.
//! - **Nothing is left open.** Each operation on the path of a request is one statement that
//!   commits by itself; creating a grant takes two statements, sent in one round trip. So a dropped future leaves no
//!   transaction, and no lock.
//! - **Few connections.** Many callers' statements are in flight on a connection at the same time,
//!   and lookups that arrive while others are under way are sent together, in one statement. By
//!   default a node opens up to ten connections: two for lookups, four for writes, two for lists
//!   and housekeeping, one for the log, and one that listens. A connection that breaks is replaced
//!   when it is next needed, with a pause that grows to half a second while the server cannot be
//!   reached.
//! - **Outages are errors**: a server that is gone, read-only or full, a time-out, a missing privilege. Lookups are
//!   sent once more if their connection has ended, and statements that lost a conflict are sent again. Nothing else is
//!   repeated. When the cause is gone, the same store works again.
//! - **Housekeeping** deletes a few hundred rows in each statement, and skips what others have locked. Any number of
//!   nodes can run it at once.
//! - **Single-use items** ([`SingleUseStore`](cloakroom_core::store::SingleUseStore)) can be in
//!   this database or in a separate one. After a failover that loses commits, items whose spending
//!   was lost can be spent once more until they end.
//!
//! The database contains digests and no tokens, but it shows who uses which client.
//!
//! # Tables and migrations
//!
//! The tables are in a schema of your choice, `cloakroom` by default. [`PostgresStore::connect`]
//! creates and migrates them, from any number of nodes at once. If the program's database user
//! lacks the privileges, run [`PostgresStoreBuilder::migrate`] as a user who has them, or execute
//! the files in the crate's folder `migrations`, and set
//! [`auto_migrate(false)`](PostgresStoreBuilder::auto_migrate). The program then needs `USAGE` on
//! the schema, `SELECT`, `INSERT`, `UPDATE` and `DELETE` on its tables, and `EXECUTE` on its
//! function (which everybody has unless you revoke it).
//!
//! An older program refuses newer tables when it starts. A newer program works with the tables of
//! the previous version, so you can update node by node.
//!
//! # Poolers
//!
//! Behind a pooler that may run each transaction on a different server connection, such as
//! `PgBouncer` with `pool_mode = transaction`, set
//! [`transaction_pooler`](PostgresStoreBuilder::transaction_pooler).
//!
//! # Versions
//!
//! PostgreSQL 13 or newer; the tests run on 15.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod address;
mod advance;
#[cfg(feature = "deadpool")]
mod app_pool;
mod check_values;
mod create;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod list;
mod log_writer;
mod lookups;
mod plans;
mod pool;
mod revocation_log;
mod rows;
mod schema;
mod session;
mod settings;
mod single_use;
mod sql;
mod status;
mod store;
mod tls;
mod watch;

#[cfg(feature = "deadpool")]
pub use deadpool_postgres;
pub use error::ConnectError;
/// The TLS library.
pub use rustls;
pub use settings::PostgresStoreBuilder;
pub use store::PostgresStore;
/// The driver. Its errors are the sources of the errors of this store.
pub use tokio_postgres;

#[cfg(test)]
mod plans_tests;

/// The programs of the page about this store, compiled.
#[cfg(all(doctest, feature = "deadpool"))]
#[doc = include_str!("../../../docs/postgresql.md")]
struct Page;
