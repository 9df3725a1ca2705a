//! Errors of the store.

use cloakroom_core::store::StoreError;
use redis::{ErrorKind, RedisError, Value};

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is not one of the forms that [`RedisStore::connect`](crate::RedisStore::connect) lists.
    #[error("the URL cannot be used: {0}")]
    Url(&'static str),
    /// The key prefix is empty, too long, or contains a brace.
    #[error("a key prefix has 1 to 64 bytes and no braces")]
    Prefix,
    /// The server is too old.
    #[error("the server has version {found}, and this store needs Redis 7 or any Valkey")]
    Version {
        /// The version that the server names.
        found: String,
    },
    /// The server deletes keys when its memory is full. A revocation could be among them.
    #[error(
        "the server evicts keys when its memory is full (maxmemory-policy {policy}): set it to \
         noeviction"
    )]
    Evicts {
        /// Its `maxmemory-policy`.
        policy: String,
    },
    /// The server is a replica, which cannot be written to.
    #[error("the server is a replica: use the URL of its master or of its sentinels")]
    Replica,
    /// [`RedisStoreBuilder::wait_for_replicas`](crate::RedisStoreBuilder::wait_for_replicas) needs a connection
    /// of its own.
    #[error("waiting for replicas would block the other calls on a shared connection: use a URL")]
    SharedConnection,
    /// The server cannot be reached, or refuses to answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The error of the contract for an error of the driver.
pub(crate) fn failed(context: &'static str, error: RedisError) -> StoreError {
    // A key of another type, or an answer of another shape.
    if error.kind() == ErrorKind::UnexpectedReturnType || error.code() == Some("WRONGTYPE") {
        StoreError::corrupt("a key", error)
    } else {
        StoreError::unavailable(context, error)
    }
}

/// An answer of a shape that no command of this store has.
pub(crate) fn unexpected(what: &'static str, value: &Value) -> StoreError {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "an integer",
        Value::BulkString(_) => "a string of another length",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    StoreError::corrupt(what, format!("the server answered with {kind}"))
}
