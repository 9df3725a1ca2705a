//! SQLite keeps the tokens: the store of **cloakroom** for one machine, in one file.
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
//! # What it promises
//!
//! - **An acknowledged commit survives the end of the process**, however it ends; and a power cut,
//!   with [`Synchronous::Full`], the default. With [`Synchronous::Normal`] a power cut may undo the
//!   last commits: a revocation among them is forgotten, and a spent refresh token is good again.
//! - **One thread writes**; writes that wait together share a commit. Lookups are done where they
//!   are asked for, and take microseconds; whatever takes longer runs on a thread of its own. No
//!   runtime is needed.
//! - **Several processes** of one machine may have the file open. Each sees the others' writes at
//!   once, and is woken for their entries in the revocation log within
//!   [`SqliteStoreBuilder::poll`].
//! - **Outages are errors**: a full disk, a lock that is held for too long, a file that was deleted,
//!   replaced or damaged, permissions that were taken away. When the cause is gone, the same store works
//!   again.
//!
//! - **What is good once** ([`SingleUseStore`](cloakroom_core::store::SingleUseStore)) may be kept in this file or in one
//!   of its own. Each item is a row until a later call deletes it, some time after its end; the disk and
//!   [`SqliteStoreBuilder::max_pages`] are the only bounds. Where a copy of the file is put back, or a power cut
//!   undoes commits, items that were spent since can be spent once more until they end.
//!
//! The file holds no token, only digests, but it says who uses what: it is made readable by its
//! owner alone, and a wider one is warned of. It must be on a local file system.
//!
//! # Which SQLite
//!
//! That of rusqlite 0.39, 0.40 or 0.41: an app may have a crate beside it, such as sqlx, that allows one of
//! them only. Take 0.41 where you can. The SQLite that the others build has one lock for all page caches of
//! a process: many threads look up about half as much, and housekeeping slows lookups down. Who has to
//! stay can build theirs without it, with `LIBSQLITE3_FLAGS=-USQLITE_ENABLE_MEMORY_MANAGEMENT` in the
//! environment.
//!
//! # Versions of the file
//!
//! The first open makes the tables; later versions migrate them when they open the file, and an older
//! program refuses a newer file.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod check_values;
mod error;
mod file;
mod grants;
mod housekeeping;
mod keys;
mod readers;
mod revocation_log;
mod rows;
mod schema;
mod shared;
mod single_use;
mod store;
mod writer;

pub use error::OpenError;
/// The driver, whose errors are the sources of this store's.
pub use rusqlite;
pub use schema::Synchronous;
pub use store::{SqliteStore, SqliteStoreBuilder};

#[cfg(test)]
mod plans_tests;
