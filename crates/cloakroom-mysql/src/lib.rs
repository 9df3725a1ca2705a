//! A store of **cloakroom** in a MySQL or MariaDB database, for any number of authorization servers.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod advance;
mod appender;
mod check_values;
mod connection;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod pool;
mod revocation_log;
mod rows;
mod rules;
mod schema;
mod session;
mod settings;
mod single_use;
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
