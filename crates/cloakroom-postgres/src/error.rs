//! Errors of the store.

use std::io;
use std::sync::Arc;

use cloakroom_core::store::StoreError;
use tokio_postgres::error::SqlState;

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not a PostgreSQL URL, or has a parameter that this store does not support.
    #[error("the database URL is invalid: {why}")]
    Url {
        /// What is wrong. It does not contain the password.
        why: String,
    },
    /// The schema or the prefix is not a valid name.
    #[error(
        "`{name}` cannot be used in the names of tables: use at most 24 lowercase letters, digits and \
         underscores, with a letter or an underscore first, and not `pg_`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {why}")]
    Tls {
        /// What is wrong.
        why: String,
        /// The cause, if there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A newer version of this program made the tables.
    #[error(
        "the tables have schema version {found}, and this program knows up to {known}: use the newer \
         program"
    )]
    Newer {
        /// The version of the tables.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The tables are missing or too old, and this program was told not to migrate.
    #[error(
        "the tables have schema version {found}, and this program needs at least {needed}: migrate \
         them first"
    )]
    NotMigrated {
        /// The version of the tables; 0 if there are none.
        found: u32,
        /// The oldest version with which this program works.
        needed: u32,
    },
    /// The server does not accept writes: it is a standby, or the user or the database is set to read-only.
    #[error("the server does not accept writes: it is a standby, or set to read only")]
    ReadOnly,
    /// The server runs transactions at an isolation level other than `READ COMMITTED`, and the
    /// store cannot change it behind a pooler.
    #[error(
        "transactions run at the isolation level `{found}`: set `default_transaction_isolation` to \
         `read committed` for the user of the store"
    )]
    Isolation {
        /// The level.
        found: String,
    },
    /// The app's pool has too few connections for the store.
    #[cfg(feature = "deadpool")]
    #[error(
        "the pool has at most {max} connections, and the store uses {needed}: give it more, and some for \
         the app, or set `connections`"
    )]
    PoolTooSmall {
        /// The size of the pool.
        max: usize,
        /// How many connections the store uses.
        needed: usize,
    },
    /// The server could not be reached, or refused the connection.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What went wrong with a statement or a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Driver(#[from] tokio_postgres::Error),
    /// The app's pool gave no connection.
    #[cfg(feature = "deadpool")]
    #[error("the pool gave no connection")]
    Pool(#[source] deadpool_postgres::PoolError),
    /// The server of a connection of the app's pool does not accept writes.
    #[cfg(feature = "deadpool")]
    #[error("the server does not accept writes")]
    Standby,
    #[error("the server did not answer in time")]
    TimedOut,
    /// The attempt to connect that several callers waited for.
    #[error("no connection")]
    NoConnection(#[source] Arc<Failed>),
    #[error("the task of the store has ended")]
    Ended,
}

impl Failed {
    pub(crate) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Driver(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the transaction was rolled back because of others, so that the same statement may succeed
    /// if it is sent again. It had no effect.
    pub(crate) fn lost_a_conflict(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    pub(crate) fn is_duplicate(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether the server refuses writes: the primary became a standby, or the connection was routed to one.
    pub(crate) fn is_read_only(&self) -> bool {
        self.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether a server refused to connect because it does not accept writes.
    pub(crate) fn is_standby(&self) -> bool {
        #[cfg(feature = "deadpool")]
        if matches!(self, Self::Standby) {
            return true;
        }
        let Self::Driver(error) = self else { return false };
        let source = std::error::Error::source(error);
        source.and_then(<dyn std::error::Error>::downcast_ref).is_some_and(|error: &io::Error| {
            // It is no error of the operating system.
            error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
        })
    }

    /// Whether the connection is of no more use, as far as the error tells.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Driver(error) => {
                error.is_closed() || self.is_read_only() || error.code().is_some_and(is_shutdown)
            }
            Self::TimedOut => true,
            _ => false,
        }
    }

    /// Whether the server says that its data is damaged.
    fn is_damage(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED
        })
    }
}

/// Whether the server ended the connection, or does not accept any.
fn is_shutdown(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
        .contains(code)
}

/// The error of the contract.
pub(crate) fn failed(context: &'static str, error: impl Into<Failed>) -> StoreError {
    let error = error.into();
    if error.is_damage() {
        StoreError::corrupt("a table", error)
    } else {
        StoreError::unavailable(context, error)
    }
}

/// A column that does not hold what it should.
pub(crate) fn damaged(
    what: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::corrupt(what, error)
}

/// The error of a statement that several callers shared.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the statement that several calls shared failed")]
pub(crate) struct BatchFailed(#[source] pub(crate) Arc<dyn std::error::Error + Send + Sync>);
