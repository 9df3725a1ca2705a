//! What a store reports about itself, for operators.

use crate::time::UnixTime;

/// What a store reports about itself ([`TokenStore::status`](crate::store::TokenStore::status)). A
/// store leaves out what it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// The database and its version, such as `PostgreSQL 16.4`.
    pub server: Option<String>,
    /// The time by the clock of the database server, read while the call ran. `None` if the database
    /// has no clock of its own.
    pub time: Option<UnixTime>,
    /// The version of the tables. `None` if the store has no tables.
    pub schema: Option<u32>,
    /// Rows that housekeeping may delete: at most [`MAX_COUNTED`](Self::MAX_COUNTED).
    pub ended_rows: Option<u64>,
    /// When the first of these rows ended.
    pub oldest_ended: Option<UnixTime>,
    /// Revocations whose grants are not all marked yet.
    pub open_sweeps: Option<u64>,
    /// What is wrong with the database, each with what to do about it.
    pub problems: Vec<String>,
}

impl StoreStatus {
    /// How many ended rows a store counts at most.
    pub const MAX_COUNTED: u64 = 10_000;
}

/// A migration that the tables of a database still need.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The version that the tables have afterwards.
    pub version: u32,
    /// Its statements, as the store runs them.
    pub sql: String,
}

impl Migration {
    /// The migration to this version.
    #[must_use]
    pub fn new(version: u32, sql: impl Into<String>) -> Self {
        Self { version, sql: sql.into() }
    }
}
