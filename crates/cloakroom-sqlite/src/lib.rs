//! A store of **cloakroom** in a SQLite file, for authorization servers on one machine.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloakroom_sqlite::SqliteStore;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("tokens.db");
//! let store = SqliteStore::open(path)?;
//! # Ok(()) }
//! ```
//!
//! The crate has no features, and needs no async runtime.
//!
//! # What it promises
//!
//! - **An acknowledged commit survives the end of the process**, however the process ends. With
//!   [`Synchronous::Full`], the default, it also survives a power cut. With [`Synchronous::Normal`] a power
//!   cut may undo the last commits. If a revocation is among them, it is lost, and a spent refresh token is
//!   valid again.
//! - **One thread writes.** Waiting writes share a commit. Lookups run on the caller's thread and
//!   take microseconds. Longer reads run on a separate thread.
//! - **Several processes** on one machine can open the file. Each sees the writes of the others at
//!   once. Entries that another process writes to the revocation log wake readers within
//!   [`SqliteStoreBuilder::poll`].
//! - **Outages are errors**: a full disk, a lock that is held for too long, a file that was deleted, replaced
//!   or damaged, and permissions that were removed. When the cause is gone, the same store works again.
//! - **Single-use items** ([`SingleUseStore`](cloakroom_core::store::SingleUseStore)) can be in
//!   this file or in a separate one. Each item is a row until a later call deletes it, some time
//!   after its end. Only the disk and [`SqliteStoreBuilder::max_pages`] limit their number. After a
//!   copy of the file is restored, or a power cut undoes commits, items whose spending was lost can
//!   be spent once more until they end.
//!
//! The file contains digests and no tokens, but it shows who uses which client. It is created readable only by
//! its owner, and the store warns of a file that others can read. The file must be on a local file system.
//!
//! # SQLite versions
//!
//! The crate works with rusqlite 0.39, 0.40 and 0.41, since another crate in your app, such as sqlx, may allow
//! only one of them. Use 0.41 if you can. The SQLite in the older versions has one lock for all page caches of
//! a process: lookups on many threads are about half as fast, and housekeeping slows them down. If you must
//! use an older version, build it with `LIBSQLITE3_FLAGS=-USQLITE_ENABLE_MEMORY_MANAGEMENT` in the environment.
//!
//! # File versions
//!
//! The first open creates the tables. Later versions migrate them when they open the file. An older program
//! refuses a newer file.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod check_values;
mod error;
mod file;
mod grants;
mod housekeeping;
mod keys;
mod plans;
mod readers;
mod revocation_log;
mod rows;
mod schema;
mod shared;
mod single_use;
mod status;
mod store;
mod writer;

pub use error::OpenError;
/// The driver. Its errors are the sources of the errors of this store.
pub use rusqlite;
pub use schema::Synchronous;
pub use store::{SqliteStore, SqliteStoreBuilder};

#[cfg(test)]
mod plans_tests;
