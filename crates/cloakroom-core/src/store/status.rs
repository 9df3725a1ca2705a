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
    /// How the database runs the queries that must be fast, as it plans them now. `None` if the store
    /// does not look, or has no plans.
    pub plans: Option<Vec<QueryPlan>>,
}

impl StoreStatus {
    /// How many ended rows a store counts at most.
    pub const MAX_COUNTED: u64 = 10_000;
}

/// How the database runs a query that must read an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryPlan {
    /// What the query is for, such as `find a grant`.
    pub query: String,
    /// The index that it needs.
    pub index: String,
    /// How the database runs it instead, in its own words. `None` if it reads the index.
    pub instead: Option<String>,
}

impl QueryPlan {
    /// A query that needs this index, and reads it.
    #[must_use]
    pub fn new(query: impl Into<String>, index: impl Into<String>) -> Self {
        Self { query: query.into(), index: index.into(), instead: None }
    }

    /// This query, which does not read the index.
    #[must_use]
    pub fn instead(mut self, instead: impl Into<String>) -> Self {
        self.instead = Some(instead.into());
        self
    }
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
