//! A store of **cloakroom** in a PostgreSQL database, for any number of authorization servers.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod address;
mod check_values;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod log_writer;
mod pool;
mod revocation_log;
mod rows;
mod schema;
mod session;
mod settings;
mod single_use;
mod sql;
mod store;
mod tls;
mod watch;

pub use error::ConnectError;
/// The TLS library.
pub use rustls;
pub use settings::PostgresStoreBuilder;
pub use store::PostgresStore;
/// The driver. Its errors are the sources of the errors of this store.
pub use tokio_postgres;

#[cfg(test)]
mod plans_tests;
