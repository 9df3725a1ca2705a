//! A store of **cloakroom** in a MySQL or MariaDB database, for any number of authorization servers.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use cloakroom_mysql::MysqlStore;
//!
//! let store = MysqlStore::connect("mysql://as:secret@db.internal/auth").await?;
//! # Ok(()) }
//! ```
//!
//! It needs a tokio runtime, and MariaDB 10.11 or later, or MySQL 8.0 or later. The SQL is the same
//! for both. The tests run on MariaDB; they have not been run on MySQL. The crate has no features.
//!
//! # What it promises
//!
//! - **An acknowledged commit is as durable as the server's commits.** With `innodb_flush_log_at_trx_commit = 1`
//!   and, if there is a binary log, `sync_binlog = 1`, it survives a power cut. With other values a power cut may
//!   undo the last commits. If a revocation is among them, it is lost, and a spent refresh token is valid again.
//! - **Any number of nodes.** Each write is one conditional statement, or one transaction that
//!   locks rows in the same order on every node. The comments beside the statements say which
//!   isolation they rely on (`READ COMMITTED`), and which interleavings are safe.
//! - **One round trip** for a lookup, a login and a step (the redemption of a code or a refresh
//!   token). A step and its tokens are sent as one packet with a complete transaction, so a client
//!   that disconnects, or a connection that breaks, leaves no lock behind.
//! - **Byte-exact identifiers**, whatever the collation of the database is.
//! - **Outages are errors**, with the driver's error as their source. Connections that break are
//!   replaced. Transactions that the server rolled back (after a deadlock, or a conflict between
//!   two Galera nodes) run again. So do operations that were lost because an idle connection had
//!   been closed, if they are idempotent.
//! - **A server that does not accept writes is refused**, at the start and after each reconnect.
//!   When a primary becomes read-only, the next heartbeat notices, and the store no longer uses its
//!   connections to it.
//! - **Revocations of other nodes** wake readers of the log within [`MysqlStoreBuilder::poll`]. Those of this
//!   process wake them at once.
//! - **Single-use items** ([`SingleUseStore`](cloakroom_core::store::SingleUseStore)) can be in
//!   this database or in another one. Each item is a row until a later call deletes it, some time
//!   after its end. Only the disk limits their number.
//!
//! The database contains digests and no tokens, but it shows who uses which client.
//!
//! # Requirements of the server
//!
//! - **The primary.** Replicas lag, and would show revoked tokens as live. Turn off read/write
//!   splitting for this user in proxies that send reads to replicas.
//! - With a binary log: `binlog_format` `ROW` or `MIXED`. With `STATEMENT` every write fails.
//! - **A Galera cluster** works with any of its nodes: the store makes each session wait until its
//!   node has applied the writes that others have acknowledged (`wsrep_sync_wait = 7`), and learns
//!   of each write that was given up (`wsrep_retry_autocommit = 0`). Writes to the revocation log
//!   on two nodes at once conflict and run again; one node for all writes is faster. Run all
//!   migrations on one node.
//! - A proxy that moves a session to another connection between transactions must prepare the
//!   session's statements there, as `ProxySQL` and `MaxScale` do.
//!
//! # Tables and versions
//!
//! [`MysqlStore::connect`] creates the tables, and later versions migrate them. An older program refuses newer
//! tables. If your deployment migrates with another user, call [`MysqlStoreBuilder::migrate`] there and set
//! [`MysqlStoreBuilder::auto_migrate`] to `false` in the program. The statements are also in the files of
//! `migrations/`, which you can run yourself.
//!
//! # TLS
//!
//! TLS is rustls, with the process's default `CryptoProvider`. If the app has installed none before it connects,
//! this crate installs that of aws-lc-rs.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod advance;
mod appender;
mod check_values;
mod connection;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod plans;
mod pool;
mod revocation_log;
mod rows;
mod rules;
mod schema;
mod session;
mod settings;
mod single_use;
mod status;
mod store;
mod sweeps;
mod url;
mod wakeups;

pub use error::ConnectError;
/// The driver. Its errors are the sources of the errors of this store.
pub use mysql_async;
pub use settings::MysqlStoreBuilder;
pub use store::MysqlStore;

#[cfg(test)]
mod plans_tests;
#[cfg(test)]
mod test_store;

/// The programs of the page about this store, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/mysql.md")]
struct Page;
