//! A store of **cloakroom** in Redis or Valkey.

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod address;
mod builder;
mod check_server;
mod check_values;
mod connection;
mod error;
mod grants;
mod housekeeping;
mod keys;
mod layout;
mod reply;
mod revocation_log;
mod rows;
mod scripts;
mod single_use;
mod store;
mod wakeups;
mod work;

pub use builder::RedisStoreBuilder;
pub use connection::SharedConnection;
pub use error::OpenError;
/// The driver. Its errors are the sources of the errors of this store.
pub use redis;
pub use store::RedisStore;
